"""Engine cores over a tiny checkpoint, driven step by step: what is posted when decides, not a clock."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.config import CacheConfig, EngineConfig, SchedulerConfig
from engine.core import EngineCore
from engine.instance import ModelInstance
from engine.messages import Command, Delta, Event, Failed, Finished, Prepared, Submit
from engine.pair import load_engine
from engine.pair_config import InstanceOptions, PairConfig
from engine.platform import Platform
from engine.request import SamplingParams, TokenLogprob
from engine.speculation.config import SpeculationConfig
from engine.speculation.proposer import Proposer
from engine.speculation.speculator import Speculator

MODEL = "model"
NO_DRAFTS = SpeculationConfig(sources=())


def engine_config(folder: Path, *, block_size: int = 8, n_blocks: int = 128, **scheduler: Any) -> EngineConfig:
    """A float32 model with few pages, on the CPU."""
    return EngineConfig(
        folder,
        dtype="float32",
        device="cpu",
        cache=CacheConfig(block_size=block_size, n_blocks=n_blocks),
        scheduler=SchedulerConfig(**scheduler),
    )


def build_core(
    *configs: EngineConfig,
    names: Sequence[str] = (MODEL,),
    proposers: Mapping[str, Sequence[Proposer]] | None = None,
    speculation: SpeculationConfig = NO_DRAFTS,
    platform: Platform | None = None,
    **options: Any,
) -> EngineCore:
    """A core with one instance for each config. speculation: nothing is drafted unless a test asks for it, so that
    steps can be counted."""
    chosen = InstanceOptions(**({"calibrate_s": 0.0} | options))
    pair = PairConfig(dict(zip(names, configs, strict=True)), torch_threads=1, options=chosen, speculation=speculation)
    return load_engine(pair, proposers, platform).core


def instance_of(core: EngineCore, name: str = MODEL) -> ModelInstance:
    """The part of a core that tests look into."""
    return core._instances[name]


@dataclass
class Seen:
    """Everything one id was told."""

    events: list[Event] = field(default_factory=list)

    @property
    def deltas(self) -> list[Delta]:
        return [event for event in self.events if isinstance(event, Delta)]

    @property
    def finished(self) -> Finished:
        [event] = [event for event in self.events if isinstance(event, Finished | Failed)]
        assert isinstance(event, Finished), f"failed: {event}"
        return event

    @property
    def failed(self) -> Failed:
        [event] = [event for event in self.events if isinstance(event, Finished | Failed)]
        assert isinstance(event, Failed), f"did not fail: {event}"
        return event

    @property
    def prepared(self) -> Prepared:
        [event] = self.events
        assert isinstance(event, Prepared)
        return event

    @property
    def logprobs(self) -> list[TokenLogprob]:
        return [logprob for delta in self.deltas for logprob in delta.logprobs or []]


def drive(
    core: EngineCore,
    arrivals: Iterable[tuple[int, Command]],
    before_step: Callable[[int], None] = lambda _step: None,
) -> dict[str, Seen]:
    """Post each command before the step it names, step until nothing is left; accounts are checked at every step."""
    todo = sorted(arrivals, key=lambda arrival: arrival[0])
    seen: dict[str, Seen] = {}
    step = 0
    while todo or core.has_work or core._compiling:
        while todo and todo[0][0] <= step:
            core.post(todo.pop(0)[1])
        if not core.has_work and core._compiling:
            core.wait(10.0)
        before_step(step)
        for event in core.step():
            seen.setdefault(getattr(event, "id", ""), Seen()).events.append(event)
        for instance in core._instances.values():
            instance.scheduler.check_integrity()
        step += 1
        assert step < 20_000, "the core does not come to an end"
    return seen


def run(core: EngineCore, *submits: Submit) -> list[Seen]:
    """Post all at once; returns what each saw, in order."""
    seen = drive(core, [(0, submit) for submit in submits])
    return [seen[submit.id] for submit in submits]


def submit(id: str, tokens: Sequence[int], *, model: str = MODEL, constraint: Any = None, **params: Any) -> Submit:
    """A submit of tokens; params are those of SamplingParams, greedy unless they say otherwise."""
    chosen = SamplingParams(**({"temperature": 0.0} | params))
    return Submit(id=id, model=model, params=chosen, tokens=list(tokens), constraint=constraint)


def is_idle(core: EngineCore) -> bool:
    """Whether no request, handle, block or memory of a draft is left behind."""
    return all(
        instance.scheduler.pool.n_used == 0
        and not instance._live.requests
        and not instance._live.generations
        and not instance._live.by_submit
        and not instance._live.kept
        and not instance._live.openings
        and instance._steps.flight is None
        and not list(instance.scheduler.guests)
        and (instance.speculator is None or _remembers_nothing(instance.speculator))
        for instance in core._instances.values()
    )


def _remembers_nothing(speculator: Speculator) -> bool:
    by_request = [speculator._memories]
    for proposer in speculator._free:
        by_request += [memory for name in ("_readers", "_pursuits") if (memory := getattr(proposer, name, None))]
    if speculator._rounds is not None:
        by_request.append(speculator._rounds.model._shadows)  # type: ignore[arg-type]
    return not any(by_request)
