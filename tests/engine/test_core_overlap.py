"""Depth 1 against depth 0: a step that is launched before the tokens of the last one are known changes no answer."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core import EngineCore
from engine.messages import Cancel, Command, Finished, Prepare, Release, Submit
from engine.plan import StepPlan
from engine.request import FinishReason
from grammars import Choice
from tests.engine.answers import SCHEMA
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import MODEL, Seen, build_core, drive, engine_config, instance_of, is_idle, run, submit

PROMPT = [(i * 53 + 7) % 480 + 8 for i in range(45)]
SUBMITS = [
    submit("free", PROMPT, max_tokens=14, ignore_eos=True),
    submit("short", PROMPT[:9], max_tokens=1),
    submit("drawn", PROMPT[:20], max_tokens=17, temperature=1.2, seed=3, logprobs=2, frequency_penalty=0.5),
    submit("stopped", PROMPT[:30], max_tokens=40, temperature=1.5, seed=5, stop=("e", "a"), min_tokens=4),
    submit("json", PROMPT[5:], max_tokens=40, temperature=1.0, seed=2, constraint=SCHEMA),
    submit("choice", PROMPT[7:], constraint=Choice(("hello world", "hello there")), temperature=2.0, seed=9),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("overlap")
    build_checkpoint(folder, seed=1)
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Finished]:
    return {each.id: run(core_of(folder, depth=0), each)[0].finished for each in SUBMITS}


def core_of(folder: Path, *, depth: int = 1, prefix_cache: bool = True, **limits: int) -> EngineCore:
    return build_core(engine_config(folder, **limits), prefix_cache=prefix_cache, overlap_depth=depth)


def plans_ahead(core: EngineCore) -> list[StepPlan]:
    """Collects the steps that are launched before the last one's tokens are known."""
    scheduler, found = instance_of(core).scheduler, []
    schedule_ahead = scheduler.schedule_ahead

    def spy(awaited: dict[str, int]) -> StepPlan | None:
        plan = schedule_ahead(awaited)
        found.extend([plan] if plan else [])
        return plan

    scheduler.schedule_ahead = spy  # type: ignore[method-assign]
    return found


def continued(handle: str, each: Submit, name: str) -> Submit:
    return Submit(id=name, model=MODEL, params=each.params, handle=handle, constraint=each.constraint)


def renamed(each: Submit, name: str) -> Submit:
    return Submit(id=name, model=MODEL, params=each.params, tokens=each.tokens, constraint=each.constraint)


def test_decoding_runs_ahead_and_computes_nothing_that_is_known_to_be_vain(folder: Path) -> None:
    core = core_of(folder)
    ahead = plans_ahead(core)
    asked = [submit(f"s{i}", PROMPT[i:], max_tokens=10 + i, ignore_eos=True) for i in range(3)]
    seen = run(core, *asked)
    assert [len(each.finished.token_ids) for each in seen] == [10, 11, 12]
    assert [len(plan.rows) for plan in ahead] == [3] * 9 + [2, 1]
    assert instance_of(core).counters.steps == 1 + len(ahead)
    assert is_idle(core)


@pytest.mark.parametrize("depth", [0, 1])
def test_tokens_after_a_stop_string_are_neither_told_nor_counted_nor_kept(folder: Path, depth: int) -> None:
    each = next(each for each in SUBMITS if each.id == "stopped")
    core = core_of(folder, depth=depth)
    ahead = plans_ahead(core)
    seen = drive(core, [(0, each)])[each.id]
    finished, stats = seen.finished, core.stats()[MODEL]
    assert finished.reason is FinishReason.STOP
    assert isinstance(finished.stop_match, str)
    assert [token for delta in seen.deltas for token in delta.token_ids] == finished.token_ids
    assert stats["tokens_generated"] == len(finished.token_ids) == len(finished.timeline.token_times_s)
    assert stats["tokens_recomputed"] == 0
    # One step was launched in vain, since text decides about this end.
    assert len(ahead) == depth * len(finished.token_ids)
    assert is_idle(core)
    # The last token was never computed, though a step in vain may have written it: the cache must not claim it.
    turn = [*PROMPT[:30], *finished.token_ids, *PROMPT[:5]]
    warm = drive(core, [(0, Prepare("warm", MODEL, turn))])["warm"].prepared
    cold = drive(core_of(folder, depth=0), [(0, Prepare("cold", MODEL, turn))])["cold"].prepared
    assert 30 // 8 * 8 <= warm.cached_tokens < 30 + len(finished.token_ids)
    assert (warm.entropy, warm.margin) == pytest.approx((cold.entropy, cold.margin), abs=1e-4)
    drive(core, [(0, Release("warm"))])
    assert is_idle(core)


def test_an_id_that_is_used_again_under_a_step_ahead_gets_its_own_answer(
    folder: Path, alone: dict[str, Finished]
) -> None:
    core = core_of(folder)
    core.post(submit("x", PROMPT[::-1], max_tokens=200, ignore_eos=True))
    for _ in range(4):
        core.step()
    assert instance_of(core)._steps.flight is not None
    again = next(each for each in SUBMITS if each.id == "drawn")
    core.post(Cancel("x"))
    core.post(renamed(again, "x"))
    seen = Seen()
    while core.has_work:
        seen.events += core.step()
        instance_of(core).scheduler.check_integrity()
    first, second = (event for event in seen.events if isinstance(event, Finished))
    assert (first.reason, len(first.token_ids)) == (FinishReason.CANCELLED, 4)
    assert second.token_ids == alone["drawn"].token_ids
    assert is_idle(core)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    n_blocks=st.integers(14, 40),
    rows=st.integers(1, 6),
    prefix_cache=st.booleans(),
    commands=st.lists(
        st.tuples(
            st.integers(0, 12),
            st.sampled_from(SUBMITS),
            st.booleans(),
            st.none() | st.integers(0, 12),
            st.none() | st.integers(0, 30),
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_no_mix_of_holds_cancels_and_deadlines_changes_what_a_request_is_told(
    folder: Path,
    alone: dict[str, Finished],
    n_blocks: int,
    rows: int,
    prefix_cache: bool,
    commands: list[tuple[int, Submit, bool, int | None, int | None]],
) -> None:
    core = core_of(folder, n_blocks=n_blocks, max_rows=rows, token_budget=40, prefix_cache=prefix_cache)
    arrivals: list[tuple[int, Command]] = []
    late: dict[int, list[str]] = {}
    for i, (at, each, holds, cancel_after, late_after) in enumerate(commands):
        if holds:
            arrivals.append((at, Prepare(f"h{i}", MODEL, each.tokens or [])))
            arrivals.append((at + 6, continued(f"h{i}", each, f"s{i}")))
        else:
            arrivals.append((at, renamed(each, f"s{i}")))
        if cancel_after is not None:
            arrivals.append((at + 6 * holds + cancel_after, Cancel(f"s{i}")))
        if late_after is not None:
            late.setdefault(at + 6 * holds + late_after, []).append(f"s{i}")
    scheduler = instance_of(core).scheduler

    def before_step(step: int) -> None:
        for name in late.get(step, []):
            if generation := instance_of(core)._live.by_submit.get(name):
                scheduler.set_deadline(generation.request, 0.0)

    seen = drive(core, arrivals, before_step)
    for i, (_, each, _, cancel_after, late_after) in enumerate(commands):
        finished, whole = seen[f"s{i}"].finished, alone[each.id]
        told = [token for delta in seen[f"s{i}"].deltas for token in delta.token_ids]
        assert told == finished.token_ids
        assert "".join(delta.text for delta in seen[f"s{i}"].deltas) == finished.text
        if finished.reason in (FinishReason.CANCELLED, FinishReason.DEADLINE):
            assert (cancel_after if finished.reason is FinishReason.CANCELLED else late_after) is not None
            assert finished.token_ids == whole.token_ids[: len(finished.token_ids)]
        else:
            assert (finished.token_ids, finished.text, finished.reason) == (whole.token_ids, whole.text, whole.reason)
            assert finished.is_complete == whole.is_complete
    assert is_idle(core)


def test_two_models_share_the_thread_of_forward_passes(folder: Path) -> None:
    names = ("small", "large")
    core = build_core(engine_config(folder), engine_config(folder), names=names, overlap_depth=1)
    asked = [
        submit(f"{name} {i}", PROMPT[i:], model=name, max_tokens=9, ignore_eos=True) for name in names for i in (0, 1)
    ]
    small0, small1, large0, large1 = [seen.finished.token_ids for seen in run(core, *asked)]
    assert (small0, small1) == (large0, large1)
    assert instance_of(core, "small")._thread is instance_of(core, "large")._thread is not None
    assert is_idle(core)
    core.close()
