"""Shadow pairs beside live traffic, on a real engine: who is drawn, who gives way, what is recorded."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from gateway.prices import bundled_prices
from gateway.routing import live_shadow
from gateway.routing.decision import Reason
from gateway.routing.grade_book import GradeBook, TellGrade
from gateway.routing.grading import FormGrader, GradedAnswer, Grader
from gateway.routing.live_shadow import LiveShadow
from tests.gateway.live_world import KEY, World
from tests.gateway.waiting import until

CHOICE = {"structured_outputs": {"choice": ["left", "right"]}}


class Slow(Grader):
    """Gives a score once it is let; counts who asks."""

    name = "slow"

    def __init__(self) -> None:
        self.asked: list[GradedAnswer] = []
        self.may = asyncio.Event()

    async def grade(self, answer: GradedAnswer) -> float | None:
        self.asked.append(answer)
        await self.may.wait()
        return 0.25 if answer.model == "small" else None


def shadowing(
    world: World,
    grader: Grader | None = None,
    *,
    share: float = 1.0,
    at_once: int = 2,
    graded: TellGrade = lambda *_: None,
) -> LiveShadow:
    return LiveShadow(
        world.engine,
        world.catalogue,
        world.load,
        GradeBook(world.kept, graded),
        grader or FormGrader(),
        bundled_prices(),
        np.random.default_rng(0),
        share=share,
        at_once=at_once,
    )


async def test_the_other_model_answers_and_both_are_graded(world: World) -> None:
    shadow = shadowing(world, share=1.0)
    shadow.start()
    job = await world.job(**CHOICE)
    outcome = await world.answered(job)
    shadow.offer(job, outcome)
    await until(lambda: shadow.counts.answered == 1)
    small, large = sorted(world.kept.rows, key=lambda row: row.model, reverse=True)
    assert (small.model, large.model) == ("small", "large")
    for row in (small, large):
        assert (row.decision_id, row.key_id, row.source) == (outcome.decision.id, KEY, "schema_valid")
        assert (row.score, row.valid, row.shadow, row.keep_prob) == (1.0, True, True, 1.0)
        assert row.tokens
    assert small.cost_usd == 0  # the client paid for that one
    assert large.cost_usd > 0
    assert shadow.counts.cost_usd == pytest.approx(large.cost_usd)
    await shadow.close()


class Critic(Grader):
    """Likes the large model's answers half, and nothing of the small one's."""

    name = "command"

    async def grade(self, answer: GradedAnswer) -> float | None:
        return 0.5 if answer.model == "large" else 0.0


@pytest.mark.parametrize("grader", [Critic(), FormGrader()], ids=["quality", "form"])
async def test_the_router_is_told_both_grades_of_quality_and_none_of_form(world: World, grader: Grader) -> None:
    told: list[tuple[object, ...]] = []
    shadow = shadowing(world, grader, graded=lambda *said: told.append(said))
    shadow.start()
    job = await world.job()
    outcome = await world.answered(job)
    outcome.decision = replace(outcome.decision, artefact_hash="of the router", p_small=0.25, p_large=0.75)
    shadow.offer(job, outcome)
    await until(lambda: shadow.counts.answered == 1)
    decision = outcome.decision.id
    expected = [(decision, "of the router", "large", 0.75, 0.5, 1), (decision, "of the router", "small", 0.25, 0.0, 1)]
    assert sorted(told, key=str) == (sorted(expected, key=str) if isinstance(grader, Critic) else [])
    await shadow.close()


async def test_the_small_models_sureness_is_measured(world: World) -> None:
    shadow = shadowing(world)
    shadow.start()
    job = await world.job()
    shadow.offer(job, await world.answered(job, "large"))
    await until(lambda: shadow.counts.answered == 1)
    (row,) = (row for row in world.kept.rows if row.model == "small")
    assert row.logprob_mean is not None
    assert row.logprob_min is not None
    assert row.logprob_min <= row.logprob_mean < 0
    await shadow.close()


async def test_an_answer_that_the_cascade_discarded_need_not_be_made_again(world: World) -> None:
    shadow = shadowing(world)
    shadow.start()
    job = await world.job()
    discarded, outcome = await world.answered(job), await world.answered(job, "large")
    outcome.decision, outcome.model = discarded.decision, "large"
    outcome.others.append(discarded)
    before = (await world.engine.stats())["small"]["submitted"]
    shadow.offer(job, outcome)
    await until(lambda: shadow.counts.answered == 1)
    assert {row.model for row in world.kept.rows} == {"small", "large"}
    assert shadow.counts.cost_usd == 0
    assert (await world.engine.stats())["small"]["submitted"] == before
    await shadow.close()


@pytest.mark.parametrize("why", ["explicit", "opted out", "share 0", "one eligible"])
async def test_who_is_not_drawn(world: World, why: str) -> None:
    shadow = shadowing(world, share=0.0 if why == "share 0" else 1.0)
    shadow.start()
    job = await world.job(**({"router": {"explore": False}} if why == "opted out" else {}))
    outcome = await world.answered(job, reason=Reason.EXPLICIT if why == "explicit" else Reason.NO_ROUTER)
    if why == "one eligible":
        job = replace(job, eligibility=replace(job.eligibility, eligible=("small",)))
    drawn = shadow.offer(job, outcome)
    assert (shadow.counts.drawn, shadow.n_waiting) == (0, 0)
    assert (drawn.is_drawn, drawn.probability) == (False, 0)
    await shadow.close()


async def test_as_many_are_drawn_as_the_share_says(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_shadow, "_MAX_WAITING", 10_000)
    shadow = shadowing(world, share=0.3)  # not started: nothing runs
    job = await world.job()
    outcome = await world.answered(job)
    for _ in range(2_000):
        assert shadow.offer(job, outcome).probability == 0.3
    assert shadow.counts.drawn / 2_000 == pytest.approx(0.3, abs=0.04)
    assert shadow.n_waiting == shadow.counts.drawn


async def test_what_cannot_wait_is_dropped_and_counted(world: World) -> None:
    shadow = shadowing(world)
    job = await world.job()
    outcome = await world.answered(job)
    for _ in range(live_shadow._MAX_WAITING + 3):
        shadow.offer(job, outcome)
    assert (shadow.n_waiting, shadow.counts.dropped) == (live_shadow._MAX_WAITING, 3)


async def test_nothing_runs_while_a_client_is_served(world: World) -> None:
    shadow = shadowing(world)
    shadow.start()
    job = await world.job()
    outcome = await world.answered(job)
    ticket = world.load.submitted("large", 10)
    shadow.offer(job, outcome)
    await asyncio.sleep(0.3)
    assert (shadow.n_waiting, shadow.n_running, world.kept.rows) == (1, 0, [])
    world.load.finished(ticket)
    await until(lambda: shadow.counts.answered == 1)
    await shadow.close()


async def test_a_run_gives_way_to_a_client_and_is_made_up_for_later(world: World) -> None:
    shadow = shadowing(world)
    shadow.start()
    job = await world.job(max_tokens=1500, ignore_eos=True)
    short = await world.answered(await world.job())
    shadow.offer(job, short)
    await until(lambda: world.engine.n_calls > 0)
    ticket = world.load.submitted("small", 10)
    await until(lambda: shadow.counts.gave_way == 1, timeout_s=2.0)
    await until(lambda: world.engine.n_calls == 0)
    assert (shadow.n_running, shadow.n_waiting) == (0, 1)
    assert shadow.counts.cost_usd > 0, "what was computed in vain is accounted for, too"
    world.load.finished(ticket)
    await until(lambda: shadow.counts.answered == 1, timeout_s=60)
    assert {row.model for row in world.kept.rows} == {"small", "large"}
    await shadow.close()


async def test_what_never_finds_the_engine_idle_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_shadow, "_MAX_AGE_S", 0.0)
    shadow = shadowing(world)
    shadow.start()
    job = await world.job()
    shadow.offer(job, await world.answered(job))
    await until(lambda: shadow.counts.abandoned == 1)
    assert world.kept.rows == []
    await shadow.close()


async def test_no_more_run_at_once_than_allowed_and_graders_see_the_request(world: World) -> None:
    grader = Slow()
    shadow = shadowing(world, grader, at_once=2)
    shadow.start()
    job = await world.job()
    outcome = await world.answered(job)
    for _ in range(5):
        shadow.offer(job, outcome)
    await until(lambda: len(grader.asked) == 4)
    assert (shadow.n_running, shadow.n_waiting) == (2, 3)
    assert grader.asked[0].request["messages"][0]["content"] == "Which way?"
    grader.may.set()
    await until(lambda: shadow.counts.answered == 5)
    # The large model's answers got no score: their rows say so, and hold what they cost.
    assert shadow.counts.ungraded == 5
    assert {(row.model, row.score) for row in world.kept.rows} == {("small", 0.25), ("large", None)}
    await shadow.close()


async def test_a_share_of_zero_stops_what_runs(world: World) -> None:
    grader = Slow()
    shadow = shadowing(world, grader)
    shadow.start()
    job = await world.job()
    outcome = await world.answered(job)
    for _ in range(3):
        shadow.offer(job, outcome)
    await until(lambda: len(grader.asked) == 4)
    shadow.configure(share=0.0)
    await until(lambda: shadow.n_running == 0)
    assert (shadow.n_waiting, shadow.counts.dropped, world.kept.rows) == (0, 3, [])
    shadow.configure(share=1.0, at_once=1)
    shadow.offer(job, outcome)
    await until(lambda: shadow.n_running == 1)
    await shadow.close()


async def test_closing_leaves_nothing_on_the_engine(world: World) -> None:
    shadow = shadowing(world)
    shadow.start()
    job = await world.job(max_tokens=1500, ignore_eos=True)
    shadow.offer(job, await world.answered(await world.job()))
    await until(lambda: world.engine.n_calls > 0)
    await shadow.close()
    assert (world.engine.n_calls, world.engine.n_held) == (0, 0)


async def test_a_comparison_that_is_stopped_before_it_began_leaves_room_for_the_next(world: World) -> None:
    shadow = shadowing(world, at_once=1)
    job = await world.job()
    outcome = await world.answered(job)
    shadow.offer(job, outcome)
    shadow._step()  # the task is made, and has run none of its lines
    assert shadow.n_running == 1
    shadow.configure(share=0.0)
    await until(lambda: shadow.n_running == 0)
    shadow.configure(share=1.0)
    shadow.start()
    shadow.offer(job, outcome)
    await until(lambda: shadow.counts.answered == 1)
    await shadow.close()
