"""A target, models that draft for it, and requests of every kind for the target."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from engine.config import EngineConfig
from engine.core import EngineCore
from engine.generation import Generation
from engine.speculation.config import SpeculationConfig
from engine.speculation.proposer import Source
from grammars import FreeText, Tool, ToolCalls
from grammars import Sequence as Parts
from tests.engine.answers import SCHEMA, SHARED, SUBMITS
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import MODEL, build_core, engine_config, instance_of, submit

SMALL = "small"
DRAFTERS = ("same", "near", "other", "wider")
TOOLS = ToolCalls((Tool("get_weather", "", SCHEMA.schema if isinstance(SCHEMA.schema, dict) else None),), "required")
REPEATED = [*SHARED[:12], *SHARED[:12], *SHARED[:7]]
ASKED = [
    *SUBMITS,
    submit("repeated", REPEATED, max_tokens=30, ignore_eos=True),
    submit("biased", REPEATED, max_tokens=18, temperature=0.7, seed=6, logit_bias={9: 4.0, 77: 3.0, 300: -9.0}),
    submit("filtered", SHARED[3:], max_tokens=20, temperature=1.3, seed=7, top_p=0.9, top_k=40, min_p=0.02),
    submit("present", REPEATED, max_tokens=22, temperature=0.7, seed=1, presence_penalty=1.2, logprobs=2),
    submit(
        "not before", SHARED[1:9], max_tokens=25, temperature=1.3, seed=5, min_tokens=9, stop_token_ids=(40, 41, 42)
    ),
    submit("tool", SHARED[2:20], max_tokens=60, temperature=0.7, seed=3, constraint=TOOLS),
    submit(
        "thought", SHARED[4:12], max_tokens=60, temperature=0.7, seed=3, constraint=Parts((FreeText("</t>", 6), SCHEMA))
    ),
    submit("one", SHARED[6:12], max_tokens=1, temperature=0.7, seed=3),
    submit("two", SHARED[6:13], max_tokens=2),
]
ALL = (Source.FORCED, Source.PREDICTION, Source.NGRAM, Source.DRAFT_MODEL)


@dataclass(frozen=True)
class Checkpoints:
    """target, and by name what drafts for it: itself, weights that are near its own, another family's, and a model
    whose vocabulary has room for more tokens than the tokenizer has."""

    target: Path
    drafters: Mapping[str, Path]


def build_checkpoints(root: Path) -> Checkpoints:
    """All of them, in folders of `root`."""
    build_checkpoint(root / "target", seed=1)
    model = build_checkpoint(root / "near", seed=1)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.03 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(root / "near")
    build_checkpoint(root / "other", "qwen3", seed=2, hidden_size=32, num_hidden_layers=1)
    build_checkpoint(root / "wider", seed=1, vocab_size=550)
    for path in (root / "target").glob("tokenizer*"):
        shutil.copy(path, root / "wider")
    drafters = {"same": root / "target"} | {name: root / name for name in DRAFTERS[1:]}
    return Checkpoints(root / "target", drafters)


def config_of(folder: Path, **limits: Any) -> EngineConfig:
    return replace(engine_config(folder, **limits), invariant=True)


def drafted_core(
    folders: Checkpoints,
    speculation: SpeculationConfig,
    drafter: str = "near",
    small: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    **options: Any,
) -> EngineCore:
    """A core of the target and a drafter. small, limits: of the drafter's engine and the target's."""
    configs = config_of(folders.target, **(limits or {})), config_of(folders.drafters[drafter], **(small or {}))
    speculation = replace(speculation, drafters={MODEL: SMALL})
    return build_core(*configs, names=(MODEL, SMALL), speculation=speculation, **options)


class Verdicts:
    """What became of every draft of a core's model: its tokens and parents, the path that was verified, the source of
    each node, and whether the answer ended with it."""

    def __init__(self, core: EngineCore) -> None:
        self.drafts: list[Verdict] = []
        speculator = instance_of(core).speculator
        assert speculator is not None
        learn = speculator.learn

        def spied(generation: Generation) -> None:
            if generation.draft is not None and generation.request.tail:
                request = generation.request
                parents = tuple(request.tail_parents) or tuple(range(-1, len(request.tail) - 1))
                is_over = generation.reason is not None
                verdict = Verdict(request.id, tuple(request.tail), parents, generation.path, is_over)
                self.drafts.append(verdict)
            learn(generation)

        speculator.learn = spied  # type: ignore[method-assign]


@dataclass(frozen=True)
class Verdict:
    """One draft of a step."""

    request_id: str
    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    path: tuple[int, ...]
    is_over: bool
