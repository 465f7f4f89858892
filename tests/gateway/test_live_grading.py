"""Grading of ordinary answers: who is drawn and with which probability, what waits, what is recorded."""

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gateway.routing import live_grading
from gateway.routing.decision import Reason
from gateway.routing.draw import NEVER, Draw
from gateway.routing.grade_book import GradeBook, TellGrade
from gateway.routing.grading import FormGrader, GradedAnswer, Grader
from gateway.routing.live_grading import MAX_WAITING, LiveGrading
from tests.gateway.live_world import KEY, World
from tests.gateway.waiting import until


class Critic(Grader):
    """Gives one score, or none; once it is let, where it was told to wait."""

    name = "command"

    def __init__(self, score: float | None = 0.25, *, waits: bool = False) -> None:
        self.score, self.may, self.asked = score, asyncio.Event(), list[GradedAnswer]()
        if not waits:
            self.may.set()

    async def grade(self, answer: GradedAnswer) -> float | None:
        self.asked.append(answer)
        await self.may.wait()
        return self.score


class Broken(Grader):
    """Raises."""

    name = "command"

    async def grade(self, answer: GradedAnswer) -> float | None:
        raise ArithmeticError(f"of {answer.model}")


def grading(
    world: World,
    grader: Grader | None = None,
    *,
    share: float = 1.0,
    at_once: int = 2,
    seed: int = 0,
    graded: TellGrade = lambda *_: None,
) -> LiveGrading:
    book, rng = GradeBook(world.kept, graded), np.random.default_rng(seed)
    return LiveGrading(grader or Critic(), book, rng, share=share, at_once=at_once)


async def test_an_answer_becomes_a_row_of_its_decision(world: World) -> None:
    critic = Critic()
    live = grading(world, critic)
    live.start()
    job = await world.job()
    outcome = await world.answered(job, "large")
    live.offer(job, outcome)
    await until(lambda: live.counts.done == 1)
    (row,) = world.kept.rows
    assert (row.decision_id, row.key_id, row.model) == (outcome.decision.id, KEY, "large")
    assert (row.score, row.source, row.weight) == (0.25, "command", 1.0)
    assert (row.keep_prob, row.shadow, row.cost_usd) == (1.0, False, 0.0)
    (asked,) = critic.asked
    assert asked.request["messages"][0]["content"] == "Which way?"
    assert (asked.model, asked.text) == ("large", outcome.finished[0].text)
    await live.close()


async def test_what_a_pair_grades_is_not_graded_again_and_the_rest_stand_for_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_grading, "MAX_WAITING", 10_000)
    live = grading(world, share=0.5)
    live.start()
    job = await world.job()
    outcome, rng, n = await world.answered(job), np.random.default_rng(1), 4_000
    compared = [Draw.by_chance(0.3, rng) for _ in range(n)]
    for one in compared:
        before = live.counts.drawn
        live.offer(job, outcome, one)
        assert not (one.is_drawn and live.counts.drawn > before)
    await until(lambda: live.counts.done == live.counts.drawn, timeout_s=60)
    assert {row.keep_prob for row in world.kept.rows} == {0.5 * 0.7}
    stood_for = sum(1 / row.keep_prob for row in world.kept.rows)
    assert stood_for == pytest.approx(n, rel=4 * np.sqrt(0.65 / 0.35 / n))
    await live.close()


@pytest.mark.parametrize("why", ["explicit", "opted out", "share 0", "compared"])
async def test_who_is_not_drawn(world: World, why: str) -> None:
    live = grading(world, share=0.0 if why == "share 0" else 1.0)
    job = await world.job(**({"router": {"explore": False}} if why == "opted out" else {}))
    outcome = await world.answered(job, reason=Reason.EXPLICIT if why == "explicit" else Reason.NO_ROUTER)
    live.offer(job, outcome, Draw(is_drawn=True, probability=0.5) if why == "compared" else NEVER)
    assert live.counts.drawn == 0


async def test_what_came_of_a_request_has_no_say_in_whether_it_is_drawn(world: World) -> None:
    job = await world.job()
    plain, explored, invalid = [await world.answered(job) for _ in range(3)]
    escalated = await world.answered(job, "large")
    explored.decision = replace(explored.decision, explored=True, propensity=0.01)
    escalated.escalated, invalid.valid = True, False
    drawn = []
    for outcome in (plain, explored, escalated, invalid):
        live = grading(world, share=0.3)
        picked = []
        for _ in range(100):
            before = live.counts.drawn
            live.offer(job, outcome)
            picked.append(live.counts.drawn > before)
        drawn.append(picked)
    assert 10 < sum(drawn[0]) < 60
    assert drawn == [drawn[0]] * 4


async def test_what_cannot_wait_is_dropped_and_counted(world: World) -> None:
    live = grading(world)  # not started: nothing is graded
    job = await world.job()
    outcome = await world.answered(job)
    for _ in range(MAX_WAITING + 3):
        live.offer(job, outcome)
    assert (live.counts.drawn, live.counts.dropped) == (MAX_WAITING + 3, 3)


async def test_no_more_are_graded_at_once_than_allowed(world: World) -> None:
    critic = Critic(waits=True)
    live = grading(world, critic, at_once=2)
    live.start()
    job = await world.job()
    outcome = await world.answered(job)
    for _ in range(5):
        live.offer(job, outcome)
    await until(lambda: len(critic.asked) == 2)
    await asyncio.sleep(0.05)
    assert (len(critic.asked), live.counts.done) == (2, 0)
    critic.may.set()
    await until(lambda: live.counts.done == 5)
    await live.close()


@pytest.mark.parametrize("grader", [Critic(None), Broken()], ids=["no score", "broken"])
async def test_an_answer_that_the_grader_fails_on_has_no_row_and_the_next_is_graded(
    world: World, grader: Grader
) -> None:
    live = grading(world, grader, at_once=1)
    live.start()
    job = await world.job()
    outcome = await world.answered(job)
    for _ in range(3):
        live.offer(job, outcome)
    await until(lambda: live.counts.failed == 3)
    assert (world.kept.rows, live.counts.done) == ([], 0)
    await live.close()


CASES: dict[str, tuple[dict[str, Any], float | None]] = {
    "small": ({}, 0.25),
    "small, judged before it was sent": ({"p_right": 0.5}, 0.5),
    "escalated": ({"escalated": True}, None),
}


@pytest.mark.parametrize("case", CASES)
async def test_the_router_is_told_what_a_sample_of_its_predictions_is(world: World, case: str) -> None:
    fields, expected = CASES[case]
    told: list[tuple[object, ...]] = []
    live = grading(world, graded=lambda *said: told.append(said))
    live.start()
    job = await world.job()
    outcome = await world.answered(job)
    outcome.decision = replace(outcome.decision, artefact_hash="of the router", p_small=0.25, p_large=0.75)
    for name, value in fields.items():
        setattr(outcome, name, value)
    live.offer(job, outcome)
    await until(lambda: live.counts.done == 1)
    said = (outcome.decision.id, "of the router", "small", expected, 0.25, 1.0)
    assert told == ([] if expected is None else [said])
    await live.close()


async def test_without_a_command_good_form_is_recorded_and_nobody_told(world: World) -> None:
    told: list[tuple[object, ...]] = []
    live = grading(world, FormGrader(), graded=lambda *said: told.append(said))
    live.start()
    job = await world.job(structured_outputs={"choice": ["left", "right"]})
    outcome = await world.answered(job)
    outcome.decision = replace(outcome.decision, artefact_hash="of the router", p_small=0.25, p_large=0.75)
    live.offer(job, outcome)
    await until(lambda: live.counts.done == 1)
    assert [(row.source, row.score) for row in world.kept.rows] == [("schema_valid", 1.0)]
    assert told == []
    await live.close()


async def test_closing_ends_what_is_being_graded(world: World) -> None:
    critic = Critic(waits=True)
    live = grading(world, critic)
    live.start()
    job = await world.job()
    live.offer(job, await world.answered(job))
    await until(lambda: len(critic.asked) == 1)
    await live.close()
    assert world.kept.rows == []
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "live-grading"]
