"""Floor 3: tokens in, tokens out. `from engine import Engine, SamplingParams` is the stable Python interface.

Names load on first use, so that importing one module of the engine does not load torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.engine import Engine, GenerationResult
    from engine.request import EngineDied, EngineError, FinishReason, RequestRefused, RequestTimeline, SamplingParams

__all__ = [
    "Engine",
    "EngineDied",
    "EngineError",
    "FinishReason",
    "GenerationResult",
    "RequestRefused",
    "RequestTimeline",
    "SamplingParams",
]


def __getattr__(name: str) -> Any:
    """PEP 562."""
    if name not in __all__:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    import importlib

    home = "engine.engine" if name in ("Engine", "GenerationResult") else "engine.request"
    return getattr(importlib.import_module(home), name)
