"""The child process: real ones, killed, orphaned and misconfigured; and the frames that travel to and from it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from engine.child import ProcessTransport
from engine.client import EngineClient
from engine.framing import MAX_FRAME_BYTES, FrameDecoder, FramingError, encode
from engine.messages import Cancel, Command, Compile, Delta, Event, Finished, Release, Submit
from engine.pair_config import PairConfig
from engine.request import EngineDied, SamplingParams
from engine.supervision import RestartPolicy
from engine.transport import LoadFailed
from grammars import Choice, JsonSchema, Tool, ToolCalls
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import build_core, engine_config, run, submit

PROMPT = list(range(10, 30))
ENDLESS = SamplingParams(temperature=0, max_tokens=480, ignore_eos=True)
ON_MODULE = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worker")
    build_checkpoint(folder, seed=4)
    return folder


def config_of(folder: Path) -> PairConfig:
    return PairConfig({"model": engine_config(folder)}, torch_threads=1)


class Child:
    """A client, and the process behind it."""

    def __init__(self, folder: Path) -> None:
        self.transport = ProcessTransport(config_of(folder))
        self.client = EngineClient(self.transport, RestartPolicy(first_s=0.01))

    @property
    def pid(self) -> int:
        assert self.transport.pid is not None
        return self.transport.pid


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def child(folder: Path) -> AsyncIterator[Child]:
    child = Child(folder)
    async with child.client:
        yield child


async def answer(client: EngineClient, params: SamplingParams, **options: object) -> list[Delta | Finished]:
    return [event async for event in client.submit("model", params, **options)]  # type: ignore[arg-type]


def is_gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has, too)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def until_gone(pid: int) -> None:
    until = time.monotonic() + 20
    while not is_gone(pid):
        assert time.monotonic() < until, "the child outlives its reason to be"
        await asyncio.sleep(0.05)


@ON_MODULE
async def test_a_child_answers_as_this_process_would(folder: Path, child: Child) -> None:
    asked = submit(
        "s", PROMPT, temperature=1.0, seed=5, max_tokens=20, constraint=JsonSchema({"type": "integer"}), logprobs=2
    )
    [expected] = run(build_core(engine_config(folder)), asked)
    *deltas, finished = await answer(child.client, asked.params, tokens=PROMPT, constraint=asked.constraint)
    assert isinstance(finished, Finished)
    assert finished.token_ids == expected.finished.token_ids
    assert "".join(delta.text for delta in deltas if isinstance(delta, Delta)) == finished.text
    logprobs = [entry for delta in deltas if isinstance(delta, Delta) for entry in delta.logprobs or []]
    assert [entry.token_id for entry in logprobs] == finished.token_ids


@ON_MODULE
async def test_a_killed_child_fails_what_was_in_flight_and_is_replaced(child: Child) -> None:
    [*_, before] = await answer(child.client, SamplingParams(temperature=0, max_tokens=6), tokens=PROMPT)
    prepared = await child.client.prepare("model", PROMPT)
    old = child.pid
    stream = child.client.submit("model", ENDLESS, tokens=PROMPT)
    assert isinstance(await anext(stream), Delta)
    os.kill(old, signal.SIGKILL)
    with pytest.raises(EngineDied, match="send it again"):
        async for _ in stream:
            pass
    # Waits for the restart; the handle died with its process and is computed anew.
    [*_, after] = await answer(child.client, SamplingParams(temperature=0, max_tokens=6), handle=prepared.handle)
    assert isinstance(before, Finished)
    assert isinstance(after, Finished)
    assert after.token_ids == before.token_ids
    assert child.client.health.restarts == 1
    assert child.pid != old


@ON_MODULE
async def test_closing_ends_the_child(child: Child) -> None:
    pid = child.pid
    await child.client.close()
    assert is_gone(pid)


async def test_a_child_ends_when_its_parent_is_killed(folder: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from engine.child import ProcessTransport\n"
        "from engine.client import EngineClient\n"
        "from engine.config import EngineConfig\n"
        "from engine.pair_config import PairConfig\n"
        "async def main():\n"
        "    transport = ProcessTransport(PairConfig({'model': EngineConfig(Path(sys.argv[1]))}))\n"
        "    await EngineClient(transport).start()\n"
        "    print(transport.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(folder), stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert not is_gone(pid)
    parent.kill()
    await parent.wait()
    await until_gone(pid)


async def test_a_child_that_cannot_load_says_why(tmp_path: Path) -> None:
    child = Child(tmp_path)
    with pytest.raises(LoadFailed, match=r"tokenizer\.json|config\.json"):
        await child.client.start()
    assert child.transport.pid is None
    await child.client.close()


# Frames

TOOLS = ToolCalls((Tool("weather", "says it", {"type": "object"}),), answer=JsonSchema(True))
COMMANDS: list[Command] = [
    Submit(id="1", model="m", params=SamplingParams(logit_bias={3: 1.5}, stop=("a",)), tokens=[1, 2], constraint=TOOLS),
    Compile("2", "m", Choice(("a", "b"))),
    Cancel("3"),
    Release("4"),
]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_messages_survive_any_cut_of_the_stream(cuts: list[int]) -> None:
    data = b"".join(map(encode, COMMANDS))
    decoder: FrameDecoder[Command] = FrameDecoder(Command)
    seen: list[Command] = []
    for cut in cuts:
        seen += decoder.feed(data[:cut])
        data = data[cut:]
    seen += decoder.feed(data)
    assert seen == COMMANDS


def test_a_configuration_travels_with_its_paths(folder: Path) -> None:
    decoder: FrameDecoder[PairConfig] = FrameDecoder(PairConfig)
    assert list(decoder.feed(encode(config_of(folder)))) == [config_of(folder)]


@pytest.mark.parametrize(
    "frame",
    [
        encode({"type": "unknown"}),
        encode(["no", "struct"]),
        b"\x01\x00\x00\x00\xc1",
        (MAX_FRAME_BYTES + 1).to_bytes(4, "little"),
    ],
)
def test_bytes_that_are_no_message_are_refused(frame: bytes) -> None:
    decoder: FrameDecoder[Event] = FrameDecoder(Event)
    with pytest.raises(FramingError):
        list(decoder.feed(frame))


def test_what_is_no_plain_data_does_not_travel() -> None:
    class Strange(msgspec.Struct):
        value: object

    with pytest.raises(NotImplementedError, match="does not travel"):
        encode(Strange(object()))
