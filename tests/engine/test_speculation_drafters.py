"""A drafter that serves requests of its own: what it shares with the target's drafts, and what it lacks for them."""

import pytest
import torch

from engine.core import EngineCore
from engine.messages import Prepare, Release
from engine.plan import StepPlan
from engine.runner import RunnerOutput
from engine.speculation.config import SpeculationConfig
from engine.speculation.proposer import Source
from tests.engine.answers import SHARED, assert_same
from tests.engine.drafted import SMALL, Checkpoints, build_checkpoints, config_of, drafted_core
from tests.engine.harness import MODEL, build_core, drive, engine_config, instance_of, is_idle, run, submit
from tests.engine.recorded import recorded_platform


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    return build_checkpoints(tmp_path_factory.mktemp("speculation"))


@pytest.mark.parametrize("is_first", [True, False])
def test_a_prompt_that_was_drafted_for_and_one_that_is_routed_share_the_drafters_pages(
    folders: Checkpoints, is_first: bool
) -> None:
    """Either way round nothing is computed twice, and the state that routing reads has the same bits."""
    prompt, speculation = SHARED[:33], SpeculationConfig((Source.DRAFT_MODEL,), is_adaptive=False)
    prepare, answer = Prepare("h", SMALL, prompt, turn_start=20), submit("a", prompt, max_tokens=30, ignore_eos=True)
    alone = drive(drafted_core(folders, speculation), [(0, prepare)])["h"].prepared
    core = drafted_core(folders, speculation)
    computed = count_prompt_tokens(core)
    first, second = ([(0, answer)], [(0, prepare)]) if is_first else ([(0, prepare)], [(0, answer)])
    seen = drive(core, first)
    n_first = sum(computed)
    seen |= drive(core, second)
    found = seen["h"].prepared
    assert (found.state, found.entropy, found.margin) == (alone.state, alone.entropy, alone.margin)
    assert n_first >= len(prompt)
    if is_first:
        assert found.cached_tokens == 32
    else:
        assert instance_of(core, SMALL).scheduler.n_held == 1
    assert sum(computed) - n_first <= (1 if is_first else 2), "the prompt was computed again"
    assert instance_of(core).counters.drafts[Source.DRAFT_MODEL].accepted > 0
    drive(core, [(0, Release("h"))])
    assert is_idle(core)


def count_prompt_tokens(core: EngineCore) -> list[int]:
    """Of each step of the drafter, for whomever: tokens of the first 33 positions that it computes."""
    runner, counts = instance_of(core, SMALL)._runner, list[int]()
    compute = runner.run

    def spied(plan: StepPlan, drawn: torch.Tensor | None = None) -> RunnerOutput:
        counts.append(sum(max(0, min(33, row.start + row.n) - row.start) for row in plan.rows))
        return compute(plan, drawn)

    runner.run = spied  # type: ignore[method-assign]
    return counts


def test_a_drafter_that_lacks_tokens_of_the_target_leaves_those_to_it(folders: Checkpoints) -> None:
    """What nobody can draft for is answered without drafts, and the rest as ever."""
    wider = config_of(folders.drafters["wider"])
    lifted = dict.fromkeys(range(512, 550), 6.0)  # tokens that only the target has
    asked = [
        submit("known", SHARED, max_tokens=20, ignore_eos=True),
        submit("strange prompt", [*SHARED[:9], 540, 9], max_tokens=9, ignore_eos=True),
        submit(
            "strange answer", SHARED[:8], max_tokens=30, temperature=1.0, seed=1, logit_bias=lifted, ignore_eos=True
        ),
    ]
    expected = run(build_core(wider), *asked)
    assert any(token >= 512 for token in expected[2].finished.token_ids)
    speculation = SpeculationConfig(drafters={MODEL: SMALL}, is_adaptive=False)
    core = build_core(wider, config_of(folders.target), names=(MODEL, SMALL), speculation=speculation)
    seen = run(core, *asked)
    for one, other in zip(seen, expected, strict=True):
        assert_same(one, other)
    assert seen[0].finished.timeline.drafts["draft_model"].drafted > 0
    assert "draft_model" not in seen[1].finished.timeline.drafts
    assert is_idle(core)


@pytest.mark.parametrize("is_recorded", [False, True])
@pytest.mark.parametrize("overlap_depth", [0, 1])
def test_a_drafter_may_have_a_step_of_its_own_under_way(
    folders: Checkpoints, overlap_depth: int, is_recorded: bool
) -> None:
    """Recorded steps write their logits to one place: those of the drafter's own step are still to be drawn from."""
    config = engine_config(folders.target, max_rows=4)
    asked = [
        submit("large", SHARED, max_tokens=40, ignore_eos=True),
        submit("small", SHARED[:9], model=SMALL, max_tokens=40, ignore_eos=True),
        submit("small too", SHARED[:19], model=SMALL, max_tokens=40, ignore_eos=True),
    ]
    expected = run(build_core(config, config, names=(MODEL, SMALL)), *asked)
    drafts = SpeculationConfig((Source.DRAFT_MODEL,), drafters={MODEL: SMALL}, is_adaptive=False)
    core = build_core(
        config,
        config,
        names=(MODEL, SMALL),
        speculation=drafts,
        overlap_depth=overlap_depth,
        platform=recorded_platform() if is_recorded else None,
    )
    for seen, plain in zip(run(core, *asked), expected, strict=True):
        assert_same(seen, plain)
    assert instance_of(core).counters.draft_rounds > 0
