"""The service under anything that clients may do, in any order: every request ends once, queues stay within their caps,
and what is measured adds up.

The numbers in the comments are those of docs/invariants.md.
"""

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from engine.core import EngineCore
from engine.messages import Cancel, Delta, Event, Failed, Finished, Prepare, Prepared, Release, Submit
from engine.plan import StepPlan
from engine.request import FinishReason, SamplingParams
from engine.runner import RunnerOutput
from grammars import Choice, Constraint
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import MODEL, build_core, engine_config, instance_of, is_idle

MAX_WAITING, MAX_WAITING_TOKENS = 2, 60
CONSTRAINTS: list[Constraint | None] = [None, Choice(("hello world", "hello there"))]
WHICH = st.integers(0, 30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("service")
    build_checkpoint(folder, seed=6)
    return folder


@dataclass
class Asked:
    """A submitted request and what its client was told, and when."""

    command: Submit
    arrived_s: float
    events: list[Event] = field(default_factory=list)
    token_times_s: list[float] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return any(isinstance(event, Finished | Failed) for event in self.events)


class Broken:
    """A matcher that raises whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"sabotaged {name}")


class ServiceMachine(RuleBasedStateMachine):
    """Submits, prefills, handles, cancels, releases, deadlines, faults and steps, on a clock that the rules move."""

    def __init__(self, folder: Path, happened: Counter[str]) -> None:
        super().__init__()
        self.folder, self.happened = folder, happened
        self.core: EngineCore | None = None

    @initialize(
        n_blocks=st.integers(12, 24), budget=st.integers(4, 40), rows=st.integers(1, 4), depth=st.integers(0, 1)
    )
    def start(self, n_blocks: int, budget: int, rows: int, depth: int) -> None:
        limits = {"max_waiting_requests": MAX_WAITING, "max_waiting_tokens": MAX_WAITING_TOKENS}
        config = engine_config(self.folder, n_blocks=n_blocks, token_budget=budget, max_rows=rows, **limits)
        self.core = build_core(config, overlap_depth=depth, max_hold_s=6.0)
        self.now, self.n_ids = 100.0, 0
        self.asked: dict[str, Asked] = {}
        self.handles: list[str] = []
        self.first_row_s: dict[str, float] = {}
        instance = instance_of(self.core)
        self.core._clock = instance._clock = instance._steps._clock = instance.scheduler._clock = lambda: self.now
        run = instance._runner.run

        def spied(plan: StepPlan, drawn: torch.Tensor | None = None) -> RunnerOutput:
            for row in plan.rows:
                self.first_row_s.setdefault(row.request_id, self.now)
            return run(plan, drawn)

        instance._runner.run = spied  # type: ignore[method-assign]

    @property
    def served(self) -> EngineCore:
        assert self.core is not None
        return self.core

    def new_id(self) -> str:
        self.n_ids += 1
        return str(self.n_ids)

    @rule(seed=st.integers(0, 2**16), handle=st.booleans(), constraint=st.sampled_from(CONSTRAINTS))
    def submit(self, seed: int, handle: bool, constraint: Constraint | None) -> None:
        draw = random.Random(seed)
        tokens: list[int] | None = [draw.randrange(4, 40) for _ in range(draw.randrange(1, 50))]
        continued = draw.choice(self.handles) if handle and self.handles else None
        command = Submit(
            id=self.new_id(),
            model=MODEL,
            params=SamplingParams(seed=seed, max_tokens=draw.randrange(1, 12), ignore_eos=True),
            tokens=None if continued else tokens,
            handle=continued,
            constraint=constraint,
            priority=draw.randrange(2),
            deadline_s=draw.choice([None, 1.0]),
            salt=draw.choice(["", "tenant"]),
        )
        self.asked[command.id] = Asked(command, self.now)
        self.served.post(command)
        self.step()

    @rule(n=st.integers(1, 45))
    def prepare(self, n: int) -> None:
        handle = self.new_id()
        self.handles.append(handle)
        self.served.post(Prepare(handle, MODEL, [4 + i % 7 for i in range(n)]))

    @precondition(lambda self: self.asked)
    @rule(which=WHICH)
    def cancel(self, which: int) -> None:
        self.served.post(Cancel(sorted(self.asked)[which % len(self.asked)]))

    @precondition(lambda self: self.handles)
    @rule(which=WHICH)
    def release(self, which: int) -> None:
        self.served.post(Release(self.handles[which % len(self.handles)]))

    @rule(which=WHICH)
    def sabotage(self, which: int) -> None:
        """No precondition: how soon a constraint is compiled is not for hypothesis to know."""
        generations = instance_of(self.served)._live.generations
        if matchers := [each.matcher for _, each in sorted(generations.items()) if each.matcher is not None]:
            matchers[which % len(matchers)]._matcher = Broken()  # type: ignore[assignment]

    @rule(seconds=st.integers(1, 4))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @rule(n=st.integers(1, 8))
    def steps(self, n: int) -> None:
        for _ in range(n):
            self.step()
            self.now += 0.25

    def step(self) -> None:
        core = self.served
        if not core.has_work and core._compiling:
            core.wait(10.0)
        for event in core.step():
            self.note(event)
        scheduler = instance_of(core).scheduler
        scheduler.check_integrity()
        fresh = [r for r in scheduler.requests() if r.id not in self.first_row_s]  # 32
        assert len(fresh) <= MAX_WAITING
        assert len(fresh) <= 1 or sum(r.n_prompt for r in fresh) <= MAX_WAITING_TOKENS
        self.happened["steps"] += 1

    def note(self, event: Event) -> None:
        if isinstance(event, Prepared) or getattr(event, "id", "") in self.handles:
            return
        asked = self.asked[getattr(event, "id", "")]
        assert not asked.is_over, "told something after its end"  # 31
        asked.events.append(event)
        if isinstance(event, Delta):
            asked.token_times_s += [self.now] * len(event.token_ids)
        elif isinstance(event, Finished):
            self.happened[event.reason.value] += 1
            self.check_finished(asked, event)
        elif isinstance(event, Failed):
            self.happened[event.code] += 1
            assert event.code != "overloaded" or event.retry_after_s is not None

    def check_finished(self, asked: Asked, finished: Finished) -> None:
        deltas = [event for event in asked.events if isinstance(event, Delta)]
        assert "".join(delta.text for delta in deltas) == finished.text  # 28
        assert [token for delta in deltas for token in delta.token_ids] == finished.token_ids
        timeline = finished.timeline  # 33, against the clock and the rows that this test saw
        assert timeline.finished_s == self.now
        assert timeline.token_times_s == asked.token_times_s
        handle = asked.command.handle
        if handle is None and asked.command.constraint is None:  # else it arrives prepared, or when that is compiled
            assert timeline.arrived_s == asked.arrived_s
        if not asked.token_times_s:
            return
        if first_row_s := self.first_row_s.get(handle or asked.command.id):
            assert timeline.admitted_s == first_row_s
            assert timeline.cached_tokens + timeline.computed_tokens == timeline.prompt_tokens
            queue_s = timeline.admitted_s - timeline.arrived_s
            prefill_s = timeline.first_token_s - timeline.admitted_s
            gaps_s = [b - a for a, b in zip(timeline.token_times_s, timeline.token_times_s[1:], strict=False)]
            assert min([queue_s, prefill_s, *gaps_s]) >= 0.0
            assert queue_s + prefill_s + sum(gaps_s) == asked.token_times_s[-1] - timeline.arrived_s
            if finished.reason in (FinishReason.STOP, FinishReason.LENGTH):
                assert timeline.finished_s == asked.token_times_s[-1]
            self.happened["added up"] += 1

    def teardown(self) -> None:
        if self.core is None:
            return
        for handle in self.handles:
            self.core.post(Release(handle))
        n_steps = 0
        while self.core.has_work or self.core._compiling:
            self.step()
            n_steps += 1
            assert n_steps < 2000, "the core does not come to an end"
        assert all(asked.is_over for asked in self.asked.values()), "a request was never told its end"  # 31
        assert is_idle(self.core)  # 7
        self.core.close()


def test_every_request_ends_once_within_the_caps_and_its_times_add_up(folder: Path) -> None:
    happened: Counter[str] = Counter()
    run_state_machine_as_test(
        lambda: ServiceMachine(folder, happened),
        settings=settings(max_examples=70, stateful_step_count=50, suppress_health_check=[HealthCheck.too_slow]),
    )
    expected = ("length", "cancelled", "deadline", "overloaded", "grammar_fault", "added up")
    assert all(happened[name] for name in expected), happened
