"""Held answers and second ones on a real engine, with a judge that says what the test wants it to say."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from engine.client import EngineClient
from engine.messages import Delta
from engine.request import EngineDied, RequestRefused
from gateway.accounts.authenticator import Principal
from gateway.engine_host import pair_config
from gateway.openai.answering import Answering
from gateway.openai.errors import ApiError
from gateway.openai.generation import Piece
from gateway.openai.intake import Intake
from gateway.openai.job import Arrival, Job
from gateway.openai.prompt import prompters
from gateway.openai.run import Attempt, Run
from gateway.prices import PriceTable
from gateway.routing.cascade import PARTIAL
from gateway.routing.catalogue import Catalogue
from gateway.routing.decision import Decision
from gateway.routing.load import Load
from gateway.routing.outcome import Outcome
from gateway.routing.question import Question
from gateway.routing.router import Judge, Route
from gateway.settings import EngineSettings, RoutingSettings, Settings
from grammars.dialects.dialect import TextDelta
from router_model.cascade import Answer
from router_model.escalation import EscalateReason, Escalation
from tests.gateway.server import Checkpoints
from tests.gateway.waiting import until

ON_MODULE = pytest.mark.asyncio(loop_scope="module")


@dataclass(slots=True)
class Witness:
    """A judge that remembers what it was asked, and always says the same."""

    doubts: bool
    seen: list[Answer] = field(default_factory=list)
    n_escalated: int = 0

    def __call__(self, answer: Answer) -> Escalation:
        self.seen.append(answer)
        reason = EscalateReason.LOW_CONFIDENCE if self.doubts else None
        return Escalation(p_right=0.25, rank=0.5, threshold=0.5, reason=reason)


@dataclass(frozen=True, slots=True)
class Judged(Route):
    """A route whose small answer the witness judges."""

    witness: Witness = field(kw_only=True)

    @property
    def judge(self) -> Judge:
        return self.witness

    def on_escalated(self) -> None:
        self.witness.n_escalated += 1


@dataclass(frozen=True, slots=True)
class ToSmall:
    """A router that sends everything to the small model, after a prefill."""

    engine: EngineClient
    load: Load
    witness: Witness

    async def route(self, question: Question) -> Route:
        made = Decision(model="small", reason="score_below_threshold", policy="x", eligible=("small", "large"))
        prompt = question.prompts["small"]
        ticket = self.load.submitted("small", len(prompt))
        prepared = await self.engine.prepare("small", prompt, salt=question.salt)
        return Judged(made, prepared, ticket, witness=self.witness)


@dataclass(frozen=True, slots=True)
class World:
    """A running pair, and how its requests are read."""

    engine: EngineClient
    catalogue: Catalogue
    intake: Intake
    load: Load

    async def job(self, **fields: Any) -> Job:
        body = {"model": "auto", "messages": [{"role": "user", "content": "a long story"}], "max_tokens": 30, **fields}
        return await self.intake.read(msgspec.json.encode(body), Principal(None, "x"), Arrival())

    async def answered(
        self, judge: Witness, hold: int | None = None, change: Callable[[Run], None] = lambda _: None, **fields: Any
    ) -> "Told":
        """What a client is told. hold: of a stream. change: what happens to the run between start and answer."""
        routing = RoutingSettings(hold_tokens=hold or 0)
        settings = msgspec.structs.replace(self.intake.settings, routing=routing)
        job = await self.job(stream=hold is not None, **fields)
        router = ToSmall(self.engine, self.load, judge)
        run = Run(self.engine, router, self.catalogue, job, settings)  # type: ignore[arg-type]
        try:
            await run.start()
            change(run)
            answering = Answering(run, job, self.intake.prompters, settings.prices, uses_predictions=True)
            steps = [progress async for progress in answering.progress()]
            text = "".join(event.fragment for step in steps for event in step.events if isinstance(event, TextDelta))
            [choice] = answering.choices.completed()
            assert choice.message.content == text, "what was streamed is what was said"
            assert choice.logprobs is None, "nobody asked for any"
            return Told(text, run.attempt.outcome, settings.prices)
        finally:
            run.close()

    async def alone(self, model: str, **fields: Any) -> str:
        """What the model says by itself."""
        job = await self.job(**fields)
        params, tokens = job.params(self.catalogue[model])[0], job.prompts[model]
        stream = self.engine.submit(model, params, tokens=tokens, constraint=job.constraint(model), salt=job.salt)
        return "".join([event.text async for event in stream if isinstance(event, Delta)])


@dataclass(frozen=True, slots=True)
class Told:
    """text: what left, in order; outcome: of the answer that was sent."""

    text: str
    outcome: Outcome
    prices: PriceTable


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(checkpoints: Checkpoints) -> AsyncIterator[World]:
    settings = Settings(
        small=checkpoints.small,
        large=checkpoints.large,
        engine=EngineSettings(mode="thread", dtype="float32", threads=1, kv_bytes=64 << 20),
    )
    async with EngineClient.in_process(pair_config(settings)) as engine:
        catalogue = Catalogue(engine.info())
        intake = Intake(settings, catalogue, prompters(catalogue, settings.dialects), b"salt")
        load = Load(catalogue.models, overload_wait_s=2.0)
        yield World(engine, catalogue, intake, load)
        assert engine.n_calls == engine.n_held == 0
        assert load.is_idle


SAMPLING = pytest.mark.parametrize(
    "sampling", [{"temperature": 0}, {"temperature": 1, "seed": 7}], ids=["greedy", "seed"]
)
SURE = {"structured_outputs": {"regex": "[a-z]{25}"}, "max_tokens": 60}
"""An answer that ends in order, so that only the judge can doubt it."""


@ON_MODULE
@SAMPLING
async def test_a_doubted_answer_is_replaced_by_the_large_models(world: World, sampling: dict[str, Any]) -> None:
    doubting, trusting = Witness(doubts=True), Witness(doubts=False)
    told = await world.answered(doubting, **SURE, **sampling)
    kept = await world.answered(trusting, **SURE, **sampling)
    small, large = [await world.alone(alias, **SURE, **sampling) for alias in ("small", "large")]
    assert small != large
    assert (told.text, kept.text) == (large, small)
    found, own = told.outcome, kept.outcome
    assert (found.model, found.escalated, found.escalate_reason, found.p_right) == (
        "large",
        True,
        "low_confidence",
        0.25,
    )
    assert (own.model, own.escalated, own.escalate_reason, own.p_right) == ("small", False, None, 0.25)
    assert (doubting.n_escalated, trusting.n_escalated) == (1, 0)
    [asked] = doubting.seen
    assert (asked.text, asked.reason, asked.is_valid) == (small, "stop", True)
    assert asked.logprob_mean is not None
    assert asked.logprob_min is not None
    assert asked.logprob_min <= asked.logprob_mean <= 0
    assert (found.judged.logprob_mean, found.judged.logprob_min) == (asked.logprob_mean, asked.logprob_min)


@ON_MODULE
@SAMPLING
async def test_a_stream_is_judged_once_by_what_was_held_back(world: World, sampling: dict[str, Any]) -> None:
    fields = {"max_tokens": 400, "ignore_eos": True, **sampling}
    doubting, trusting = Witness(doubts=True), Witness(doubts=False)
    told, kept = await world.answered(doubting, 5, **fields), await world.answered(trusting, 5, **fields)
    small, large = [await world.alone(alias, **fields) for alias in ("small", "large")]
    assert (told.text, kept.text) == (large, small)
    [asked], [_] = doubting.seen, trusting.seen
    assert asked.reason == PARTIAL
    assert 5 <= asked.n_tokens < 400
    assert small.startswith(asked.text)
    assert asked.logprob_mean is not None
    discarded = told.outcome.discarded
    assert discarded is not None
    assert asked.n_tokens <= discarded.completion_tokens < 400, "the small model was stopped, and what it did counts"
    assert told.outcome.cost(told.prices).discarded_usd > 0
    assert kept.outcome.discarded is None


@ON_MODULE
async def test_a_stream_without_a_hold_is_not_judged_and_asks_for_no_logprobs(world: World) -> None:
    judge = Witness(doubts=True)
    told = await world.answered(judge, 0, max_tokens=20, temperature=0)
    assert told.text == await world.alone("small", max_tokens=20, temperature=0)
    assert judge.seen == []
    assert told.outcome.logprob_tokens == 0


def refusing(run: Run) -> None:
    """The engine takes no second answer."""

    async def try_large(_: Sequence[int]) -> Attempt:
        raise RequestRefused("overloaded", "too many wait", 1.0)

    run.try_large = try_large  # type: ignore[method-assign]


def failing(error: Exception) -> Callable[[Run], None]:
    """The second answer breaks off after its first token."""

    def change(run: Run) -> None:
        begin = run.try_large

        async def try_large(prediction: Sequence[int]) -> Attempt:
            attempt = await begin(prediction)
            pieces = attempt.generation.pieces

            async def broken() -> AsyncGenerator[Piece, None]:
                async for piece in pieces():
                    yield piece
                    raise error

            attempt.generation.pieces = broken  # type: ignore[method-assign]
            return attempt

        run.try_large = try_large  # type: ignore[method-assign]

    return change


@ON_MODULE
@pytest.mark.parametrize("hold", [None, 5], ids=["whole", "stream"])
async def test_a_refused_second_answer_leaves_the_first_whole(world: World, hold: int | None) -> None:
    fields = SURE if hold is None else {"max_tokens": 60, "ignore_eos": True}
    judge = Witness(doubts=True)
    told = await world.answered(judge, hold, refusing, temperature=0, **fields)
    assert told.text == await world.alone("small", temperature=0, **fields)
    outcome = told.outcome
    assert (outcome.model, outcome.escalated, outcome.escalate_reason) == ("small", False, "escalation_refused")
    assert outcome.discarded is None
    assert judge.n_escalated == 0


@ON_MODULE
async def test_a_second_answer_that_fails_midway_is_paid_for_and_the_first_is_sent(world: World) -> None:
    deadline = ApiError(504, "deadline_exceeded", "late")
    told = await world.answered(Witness(doubts=True), None, failing(deadline), temperature=0, **SURE)
    assert told.text == await world.alone("small", temperature=0, **SURE)
    outcome = told.outcome
    assert (outcome.model, outcome.escalated, outcome.escalate_reason) == ("small", False, "escalation_refused")
    assert outcome.discarded is not None
    assert outcome.discarded.model == "large"
    cost = outcome.cost(told.prices)
    assert cost.discarded_usd > 0
    assert cost.total_usd == pytest.approx(cost.answer_usd + cost.discarded_usd + cost.draft_usd)


@ON_MODULE
@pytest.mark.parametrize(
    ("hold", "error"),
    [(None, EngineDied("gone")), (5, EngineDied("gone")), (5, ApiError(504, "deadline_exceeded", "late"))],
    ids=["death", "death in a stream", "text has left"],
)
async def test_there_is_nothing_else_to_send(world: World, hold: int | None, error: Exception) -> None:
    with pytest.raises(type(error)):
        await world.answered(Witness(doubts=True), hold, failing(error), temperature=0, **SURE)


@ON_MODULE
@pytest.mark.parametrize("n", [1, 2])
async def test_what_was_computed_for_a_client_that_left_before_reading_it_is_paid_for(world: World, n: int) -> None:
    settings = world.intake.settings
    job = await world.job(stream=True, temperature=0, n=n, ignore_eos=True, max_tokens=30)
    run = Run(world.engine, ToSmall(world.engine, world.load, Witness(doubts=False)), world.catalogue, job, settings)  # type: ignore[arg-type]
    await run.start()
    await until(lambda: world.load.is_idle)  # all is generated, and lies in the queue
    outcome = run.attempt.outcome
    assert outcome.completion_tokens == 0
    run.close()
    assert outcome.completion_tokens == 30 * n
    assert outcome.finished == {}, "the client did not get an end"
    run.close()
    assert outcome.completion_tokens == 30 * n
