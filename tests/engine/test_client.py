"""The asynchronous client over a core on a thread, and its supervision over a transport that dies on command."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from engine.client import EngineClient, RestartPolicy
from engine.messages import (
    Cancel,
    Command,
    Delta,
    Event,
    Finished,
    ModelInfo,
    Prepare,
    Prepared,
    Ready,
    Release,
    Submit,
)
from engine.pair_config import PairConfig
from engine.poison import Suspects, content_key
from engine.request import EngineDied, EngineError, FinishReason, RequestRefused, RequestTimeline, SamplingParams
from engine.transport import Listener, LoadFailed
from grammars import Choice, ConstraintRefused, JsonSchema
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import engine_config

GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
ENDLESS = SamplingParams(temperature=0, max_tokens=450, ignore_eos=True)
PROMPT = list(range(10, 40))
ON_MODULE = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("client")
    build_checkpoint(folder, seed=3)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(folder: Path) -> AsyncIterator[EngineClient]:
    config = PairConfig({"small": engine_config(folder), "large": engine_config(folder)}, torch_threads=1)
    async with EngineClient.in_process(config) as client:
        yield client


async def collect(
    client: EngineClient, model: str = "small", params: SamplingParams = GREEDY, **options: object
) -> Finished:
    """The terminal event, after checking that the deltas lead to it."""
    events = [event async for event in client.submit(model, params, **options)]  # type: ignore[arg-type]
    *deltas, finished = events
    assert isinstance(finished, Finished)
    assert "".join(delta.text for delta in deltas if isinstance(delta, Delta)) == finished.text
    return finished


async def until_idle(client: EngineClient) -> None:
    for _ in range(200):
        stats = await client.stats()
        if all(
            model["kv_blocks_used_now"] == model["held_now"] == model["running_now"] == 0 for model in stats.values()
        ):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"something is left: {stats}")


@ON_MODULE
async def test_it_knows_its_models(client: EngineClient) -> None:
    assert [info.name for info in client.info()] == ["small", "large"]
    assert client.shares_vocabulary
    assert client.is_up


@ON_MODULE
async def test_many_streams_at_once_each_get_their_own_answer(client: EngineClient) -> None:
    alone = [await collect(client, tokens=PROMPT[i:]) for i in range(8)]
    together = await asyncio.gather(
        *[collect(client, model, tokens=PROMPT[i:]) for model in ("small", "large") for i in range(8)]
    )
    assert [finished.token_ids for finished in together] == [finished.token_ids for finished in alone] * 2
    await until_idle(client)


@ON_MODULE
async def test_a_prepared_prompt_is_continued(client: EngineClient) -> None:
    before = (await client.stats())["large"]["prompt_tokens_computed"]
    prepared = await client.prepare("large", PROMPT[3:], salt="tenant")
    finished = await collect(client, "large", handle=prepared.handle)
    assert finished.token_ids == (await collect(client, tokens=PROMPT[3:])).token_ids
    assert (await client.stats())["large"]["prompt_tokens_computed"] == before + len(PROMPT) - 3
    with pytest.raises(RequestRefused, match="no prefill") as refusal:
        await collect(client, "large", handle=prepared.handle)
    assert refusal.value.code == "unknown_handle"


@ON_MODULE
async def test_a_released_or_abandoned_prefill_is_freed(client: EngineClient) -> None:
    prepared = await client.prepare("small", PROMPT)
    client.release(prepared.handle)
    client.release(prepared.handle)
    task = asyncio.create_task(client.prepare("small", PROMPT * 10))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_idle(client)


@ON_MODULE
async def test_closing_a_stream_early_cancels_the_request(client: EngineClient) -> None:
    before = (await client.stats())["small"]["finished_cancelled"]
    async with aclosing(client.submit("small", ENDLESS, tokens=PROMPT)) as events:
        assert isinstance(await anext(events), Delta)
    await until_idle(client)
    assert (await client.stats())["small"]["finished_cancelled"] == before + 1


@ON_MODULE
async def test_a_cancelled_reader_cancels_the_request(client: EngineClient) -> None:
    task = asyncio.create_task(collect(client, params=ENDLESS, tokens=PROMPT))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_idle(client)


@ON_MODULE
async def test_a_constraint_is_kept_or_refused(client: EngineClient) -> None:
    compiled = await client.compile("small", Choice(("yes", "no")))
    assert compiled.backend
    finished = await collect(client, tokens=PROMPT, constraint=Choice(("yes", "no")))
    assert finished.text in ("yes", "no")
    assert finished.is_complete
    refused = JsonSchema({"type": "object", "properties": {"a": {"type": "nonsense"}}})
    for attempt in (client.compile("small", refused), collect(client, tokens=PROMPT, constraint=refused)):
        with pytest.raises(ConstraintRefused) as refusal:
            await attempt
        assert (refusal.value.keyword, refusal.value.pointer) == ("type", "/properties/a")


@ON_MODULE
async def test_a_refusal_reaches_its_caller(client: EngineClient) -> None:
    with pytest.raises(RequestRefused) as refusal:
        await collect(client, tokens=[1] * 512)
    assert refusal.value.code == "too_long"
    with pytest.raises(RequestRefused, match="use one of large, small"):
        await client.prepare("huge", PROMPT)


@ON_MODULE
async def test_a_deadline_ends_a_stream_in_order(client: EngineClient) -> None:
    finished = await collect(client, params=ENDLESS, tokens=PROMPT, deadline_s=0.1)
    assert finished.reason in (FinishReason.DEADLINE, FinishReason.LENGTH)


async def test_before_the_start_nothing_is_known(folder: Path) -> None:
    client = EngineClient.in_process(PairConfig({"m": engine_config(folder)}))
    with pytest.raises(EngineError, match="await start"):
        client.info()
    assert not client.is_up
    await client.close()
    with pytest.raises(EngineDied, match="closed"):
        await client.stats()


async def test_a_folder_without_a_model_fails_the_start(tmp_path: Path) -> None:
    client = EngineClient.in_process(PairConfig({"m": engine_config(tmp_path)}))
    with pytest.raises(LoadFailed, match=r"tokenizer\.json|config\.json"):
        await client.start()
    await client.close()


async def test_closing_lets_running_requests_finish_within_the_grace(folder: Path) -> None:
    client = EngineClient.in_process(PairConfig({"m": engine_config(folder)}, torch_threads=1))
    await client.start()
    task = asyncio.create_task(collect(client, "m", tokens=PROMPT))
    await asyncio.sleep(0.02)
    await client.close(30.0)
    assert len((await task).token_ids) == GREEDY.max_tokens


# Supervision


class Mortal:
    """A transport whose engine answers nothing by itself, and dies and comes back as the test says."""

    def __init__(self) -> None:
        self.sent: list[Command] = []
        self.listener: Listener | None = None
        self.opens: list[Exception | None] = []
        self.n_opened = 0

    async def open(self, listener: Listener) -> Ready:
        self.n_opened += 1
        error = self.opens.pop(0) if self.opens else None
        if error is not None:
            raise error
        self.listener = listener
        return Ready([ModelInfo("m", "", 1, 1, 1, "float32", 1, 1, 1, "")], 0.0)

    def send(self, command: Command) -> None:
        self.sent.append(command)

    async def close(self, grace_s: float) -> None:  # noqa: ARG002 - the protocol names it
        self.listener = None

    def answer(self, *events: Event) -> None:
        assert self.listener is not None
        self.listener.on_events(events)

    def die(self) -> None:
        assert self.listener is not None
        self.listener.on_death("test")


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0.001)


def finished(id: str) -> Finished:
    return Finished(id=id, reason=FinishReason.STOP, text="", token_ids=[], timeline=RequestTimeline())


async def started(policy: RestartPolicy | None = None) -> tuple[Mortal, EngineClient]:
    transport = Mortal()
    client = EngineClient(transport, policy or RestartPolicy(first_s=0.001, max_s=0.004))
    await client.start()
    return transport, client


def last_submit(transport: Mortal) -> Submit:
    return next(command for command in reversed(transport.sent) if isinstance(command, Submit))


async def test_requests_in_flight_get_one_clear_error_and_the_next_wait_for_the_restart() -> None:
    transport, client = await started()
    first = asyncio.create_task(collect(client, "m", tokens=[1]))
    await settle()
    transport.die()
    second = asyncio.create_task(collect(client, "m", tokens=[2]))
    with pytest.raises(EngineDied, match="send it again"):
        await first
    await settle()
    assert (client.restarts, client.is_up) == (1, True)
    transport.answer(finished(last_submit(transport).id))
    assert (await second).reason is FinishReason.STOP
    assert not any(isinstance(command, Cancel) for command in transport.sent)
    await client.close()


async def test_the_same_content_may_not_kill_the_engine_a_third_time() -> None:
    transport, client = await started()
    for _ in range(2):
        killer = asyncio.create_task(collect(client, "m", tokens=[6, 6, 6]))
        await settle()
        transport.die()
        with pytest.raises(EngineDied):
            await killer
        await settle()
    with pytest.raises(RequestRefused, match="died twice") as refusal:
        await collect(client, "m", tokens=[6, 6, 6])
    assert refusal.value.code == "poisoned"
    other = asyncio.create_task(collect(client, "m", tokens=[7]))
    await settle()
    transport.answer(finished(last_submit(transport).id))
    await other
    await client.close()


async def test_a_handle_whose_engine_died_is_submitted_as_its_tokens() -> None:
    transport, client = await started()
    prepare = asyncio.create_task(client.prepare("m", [4, 5], salt="t"))
    await settle()
    command = transport.sent[-1]
    assert isinstance(command, Prepare)
    transport.answer(prepared(command.id))
    handle = (await prepare).handle
    transport.die()
    await settle()
    task = asyncio.create_task(collect(client, "m", handle=handle))
    await settle()
    submitted = last_submit(transport)
    assert (submitted.handle, submitted.tokens, submitted.salt) == (None, [4, 5], "t")
    transport.answer(finished(submitted.id))
    await task
    await client.close()


def prepared(id: str) -> Prepared:
    return Prepared(
        id=id,
        handle=id,
        state=b"",
        state_shape=(),
        entropy=0.0,
        margin=0.0,
        prompt_tokens=2,
        cached_tokens=0,
        computed_tokens=2,
        queue_s=0.0,
        prefill_s=0.0,
    )


async def test_a_prefill_that_nobody_waits_for_is_released() -> None:
    transport, client = await started()
    transport.answer(prepared("late"))
    assert transport.sent == [Release("late")]
    await client.close()


async def test_restarts_are_tried_until_one_succeeds() -> None:
    transport, client = await started()
    transport.opens = [EngineDied("again"), EngineDied("and again")]
    transport.die()
    await asyncio.sleep(0.05)
    assert (transport.n_opened, client.is_up) == (4, True)
    await client.close()


async def test_a_model_that_can_no_longer_be_loaded_ends_the_waiting() -> None:
    transport, client = await started()
    transport.opens = [LoadFailed("the folder is gone")]
    transport.die()
    with pytest.raises(EngineDied, match="the folder is gone"):
        await client.stats()
    assert not client.is_up
    await client.close()


async def test_nobody_waits_for_a_restart_longer_than_allowed() -> None:
    transport, client = await started(RestartPolicy(first_s=60.0, wait_s=0.01))
    transport.die()
    with pytest.raises(RequestRefused) as refusal:
        await client.stats()
    assert refusal.value.code == "engine_restarting"
    assert refusal.value.retry_after_s
    await client.close()


async def test_a_close_during_a_restart_ends_it() -> None:
    transport, client = await started(RestartPolicy(first_s=60.0))
    transport.die()
    await client.close()
    assert transport.n_opened == 1


def test_suspicion_is_bounded_and_ends_with_success() -> None:
    suspects = Suspects(max_entries=3)
    keys: Sequence[bytes] = [content_key("submit", i, SamplingParams()) for i in range(5)]
    for _ in range(2):
        suspects.note_death(keys[:2])
    assert [suspects.is_poison(key) for key in keys[:3]] == [True, True, False]
    suspects.clear(keys[0])
    assert not suspects.is_poison(keys[0])
    suspects.note_death(keys[2:])
    assert not suspects.is_poison(keys[1])  # pushed out by newer suspects
