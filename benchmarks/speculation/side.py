"""One engine of a comparison, and what became of a job that it was given."""

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.config import EngineConfig
from engine.messages import Failed, Finished, Submit, as_exception
from engine.pair import load_engine
from engine.pair_config import PairConfig
from engine.request import SamplingParams
from engine.speculation.config import SpeculationConfig
from engine.speculation.proposer import Source
from engine.tokenizer import Tokenizer
from grammars.constraint import Constraint

__all__ = ["DRAFTER", "OFF", "TARGET", "Ask", "Outcome", "Side"]

TARGET, DRAFTER = "target", "drafter"
OFF = SpeculationConfig(sources=())
COUNTED = (
    "steps", "tokens_generated", "tokens_forced", "tokens_drafted", "tokens_accepted", "draft_rounds", "draft_s",
    "prompt_tokens_computed", "forward_s",
    *(f"tokens_{what}_{source}" for source in Source for what in ("drafted", "accepted")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a job. prediction: see `engine.messages.Submit`."""

    name: str
    prompt: Sequence[int]
    params: SamplingParams
    constraint: Constraint | None = None
    prediction: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a side made of a job. seconds: from the first request to the last end; decode_s: of a request
    on average, from its first token to its last; counted: by how much the counters of the target grew."""

    seconds: float
    decode_s: float
    answers: tuple[tuple[int, ...], ...]
    counted: Mapping[str, float] = field(default_factory=dict)


class Side:
    """An engine of a target and, where one is given, its draft model, which is loaded whether it is used or not."""

    def __init__(
        self,
        target: Path,
        drafter: Path | None = None,
        speculation: SpeculationConfig | None = None,
        threads: int | None = None,
        *,
        is_invariant: bool = False,
    ) -> None:
        """speculation: its drafters are set here; None is the default. is_invariant: see EngineConfig."""
        given = speculation or SpeculationConfig()
        models = {TARGET: EngineConfig(target, invariant=is_invariant)}
        if drafter is not None:
            models[DRAFTER] = EngineConfig(drafter, invariant=is_invariant)
        config = SpeculationConfig(
            sources=given.sources,
            drafters={} if drafter is None else {TARGET: DRAFTER},
            max_draft=given.max_draft,
            width=given.width,
            verification=given.verification,
            is_adaptive=given.is_adaptive,
        )
        self._loaded = load_engine(PairConfig(models, torch_threads=threads, speculation=config))
        self._ids = itertools.count()

    @property
    def tokenizer(self) -> Tokenizer:
        """The target's."""
        return self._loaded.tokenizers[TARGET]

    def answer(self, asks: Sequence[Ask], model: str = TARGET) -> Outcome:
        """Answer all requests at once, as a tenant that was never seen: of prompts, nothing is cached.

        Raises the exception of the first request that fails: a benchmark without it would measure something else.
        """
        core = self._loaded.core
        names = [f"{next(self._ids)}" for _ in asks]
        salt = names[0]
        submits = [
            Submit(
                id=name,
                model=model,
                params=ask.params,
                tokens=list(ask.prompt),
                constraint=ask.constraint,
                salt=salt,
                prediction=list(ask.prediction),
            )
            for name, ask in zip(names, asks, strict=True)
        ]
        before, finished = self._counted(model), dict[str, Finished]()
        began = time.perf_counter()
        for submit in submits:
            core.post(submit)
        while len(finished) < len(submits):
            if not core.has_work:
                core.wait(None)
            for event in core.step():
                if isinstance(event, Failed):
                    raise as_exception(event)
                if isinstance(event, Finished):
                    finished[event.id] = event
        seconds = time.perf_counter() - began
        after = self._counted(model)
        ends = [finished[name] for name in names]
        times = [end.timeline.token_times_s for end in ends if end.timeline.token_times_s]
        decode_s = sum(t[-1] - t[0] for t in times) / len(ends)
        counted = {key: after[key] - before[key] for key in COUNTED}
        return Outcome(seconds, decode_s, tuple(tuple(end.token_ids) for end in ends), counted)

    def close(self) -> None:
        """End its threads."""
        self._loaded.core.close()

    def _counted(self, model: str) -> dict[str, float]:
        stats = self._loaded.core.stats()[model]
        return {key: stats[key] for key in COUNTED}
