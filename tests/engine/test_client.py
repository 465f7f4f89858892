"""The asynchronous client over a core on a thread."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from engine.client import EngineClient
from engine.messages import Delta, Finished
from engine.pair_config import PairConfig
from engine.request import EngineDied, EngineError, FinishReason, RequestRefused, SamplingParams
from engine.transport import LoadFailed
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
            assert (client.n_calls, client.n_held) == (0, 0)
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"something is left: {stats}")


@ON_MODULE
async def test_it_knows_its_models(client: EngineClient) -> None:
    assert [info.name for info in client.info()] == ["small", "large"]
    assert client.shares_vocabulary
    assert client.health.state == "up"


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
    assert client.health.state == "down"
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
