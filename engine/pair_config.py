"""What an engine of one or more models is started with, as plain data that travels to the child process. No torch."""

from dataclasses import dataclass, field

from engine.config import EngineConfig
from engine.constraint_config import ConstraintConfig
from engine.speculation.config import SpeculationConfig

__all__ = ["InstanceOptions", "PairConfig"]


@dataclass(frozen=True, slots=True)
class InstanceOptions:
    """forced_tokens: commit what a grammar leaves no choice about without sampling it (the output is the same either
    way). prefix_cache: share the pages of equal prefixes. max_hold_s: after that long a prepared request that nobody
    submits is released. calibrate_s: about so long the first steps of a model are measured while it loads (0:
    predictions begin with a guess). overlap_depth: 1 launches a step before the tokens of
    the last one are known, so that masks, text and events are worked out beside its forward pass; 0 does one thing
    after the other (the output is the same either way); None is 1 on a GPU, and 0 on a CPU, where both would share the
    cores. graphs: record decode steps as CUDA graphs, on a GPU. slow_mask_s: CPU time of a slow token mask, see
    MaskBudget.
    """

    forced_tokens: bool = True
    prefix_cache: bool = True
    max_hold_s: float = 120.0
    calibrate_s: float = 1.5
    overlap_depth: int | None = None
    graphs: bool = True
    slow_mask_s: float = 0.05

    def __post_init__(self) -> None:
        """Raise ValueError with what was wrong and what is allowed."""
        if self.overlap_depth not in (None, 0, 1):
            raise ValueError(f"overlap_depth is {self.overlap_depth}: use 0, 1 or None")
        if self.slow_mask_s <= 0:
            raise ValueError(f"slow_mask_s is {self.slow_mask_s}: use more than 0")

    def depth(self, *, runs_beside: bool) -> int:
        """Steps launched ahead. runs_beside: whether the device computes while the step loop goes on."""
        return int(runs_beside) if self.overlap_depth is None else self.overlap_depth


@dataclass(frozen=True, slots=True)
class PairConfig:
    """models: by the name that clients use, one or more. kv_bytes: for the pages of all models together, split so that
    every model can hold as many tokens (None: each model takes what its own configuration says, and those that say
    nothing share what is left of a GPU in the same way). memory_share: of a GPU's memory, for weights, pages and steps.
    torch_threads: of one operation (None: torch decides). compile_threads: for constraints that compile quickly, and as
    many for the others. constraints: what one of them may cost. speculation: who drafts for whom. log_level: of the
    least severe lines that a child process logs, by its name in `logging`.
    """

    models: dict[str, EngineConfig]
    kv_bytes: int | None = None
    torch_threads: int | None = None
    compile_threads: int = 2
    memory_share: float = 0.9
    log_level: str = "WARNING"
    options: InstanceOptions = field(default_factory=InstanceOptions)
    constraints: ConstraintConfig = field(default_factory=ConstraintConfig)
    speculation: SpeculationConfig = field(default_factory=SpeculationConfig)

    def __post_init__(self) -> None:
        """Raise ValueError with what was wrong and what is allowed."""
        if not self.models:
            raise ValueError("models is empty: name at least one")
        for name in ("kv_bytes", "torch_threads", "compile_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: use 1 or more")
        if not 0.0 < self.memory_share <= 1.0:
            raise ValueError(f"memory_share is {self.memory_share}: use more than 0, up to 1")
        drafters = self.speculation.drafters.items()
        unknown = sorted({name for pair in drafters for name in pair if name not in self.models})
        if unknown:
            known = ", ".join(self.models)
            raise ValueError(f"speculation.drafters names {', '.join(unknown)}: the models are {known}")
