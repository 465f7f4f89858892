"""The watch over a child: faked children that hang, dawdle, die and talk nonsense, and a real one that is stopped."""

import ast
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.child import Patience, ProcessTransport
from engine.client import EngineClient
from engine.config import EngineConfig
from engine.messages import Delta, Event
from engine.pair_config import PairConfig
from engine.request import EngineDied, SamplingParams
from engine.supervision import RestartPolicy
from engine.transport import Death, Listener
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import engine_config
from tests.gateway.waiting import until

FAKE = """#!{python} -P
import os, signal, socket, subprocess, sys, time
from engine.framing import encode
from engine.heartbeat import HeartbeatPage
from engine.messages import Ready
numbers = [int(word) for word in sys.argv if word.isdigit()]
parent, page = socket.socket(fileno=numbers[0]), HeartbeatPage(numbers[1])
ready = encode(Ready([], 0.0))
{life}
"""
READY = "parent.sendall(ready)\n"
HANG = "time.sleep(600)\n"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets this program be the child from now on. It has `parent`, `page` and `ready`."""

    def become(life: str) -> None:
        path = tmp_path / "child"
        path.write_text(FAKE.format(python=real, life=life))
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    real = sys.executable
    return become


def children() -> set[str]:
    """Processes that this one started and has not waited for, zombies among them."""
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text(encoding="ascii").split())


class Watched:
    """A transport, what its listener heard, and what was open before it."""

    def __init__(self, patience: Patience) -> None:
        self.transport = ProcessTransport(PairConfig({"m": EngineConfig(Path("/nowhere"))}), patience)
        self.deaths: list[Death] = []
        self.listener = Listener(self._ignore, self.deaths.append)
        self._open_before, self._children_before = open_files(), children()

    def _ignore(self, events: Sequence[Event]) -> None:
        """Nothing is asked here."""

    async def death(self) -> Death:
        """Start a child and wait for its end, which must leave nothing."""
        await self.transport.open(self.listener)
        await until(lambda: bool(self.deaths), timeout_s=20.0)
        self.check_nothing_is_left()
        [death] = self.deaths
        return death

    def check_nothing_is_left(self) -> None:
        """No process, not even a zombie, and no open file."""
        assert self.transport.pid is None
        assert self.transport.silent_s is None
        assert children() == self._children_before
        assert open_files() == self._open_before


def open_files() -> set[str]:
    """What this process has open: pages, sockets and pipes are told apart by their names."""
    names = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            names.add(str(entry.readlink()))
        except FileNotFoundError:
            continue  # the listing itself
    return {name for name in names if "memfd" in name or "socket" in name}


QUICK = Patience(load_s=20.0, silence_s=0.4)
Fake = Callable[[str], None]


@given(st.floats(0.1, 100), st.floats(0, 1000))
def test_a_step_gets_ten_times_what_is_expected_of_it_but_never_less_than_the_floor(
    silence_s: float, expected_s: float
) -> None:
    limit_s = Patience(silence_s=silence_s).limit_s(expected_s)
    assert limit_s >= silence_s
    assert limit_s >= 10 * expected_s
    assert limit_s in (silence_s, 10 * expected_s)


@pytest.mark.parametrize("name", [None, "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
async def test_idle_threads_of_a_child_leave_the_cores_unless_the_operator_decides_how_they_wait(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    chosen = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    for one in chosen:
        monkeypatch.delenv(one, raising=False)
    if name is not None:
        monkeypatch.setenv(name, "7")
    found = tmp_path / "environment"
    fake(f"open({str(found)!r}, 'w').write(repr(dict(os.environ)))\n{READY}")
    await Watched(QUICK).death()
    environment = ast.literal_eval(found.read_text())
    if name is None:
        assert int(environment["GOMP_SPINCOUNT"]) < 300_000  # libgomp's own
        assert "OMP_WAIT_POLICY" not in environment
    else:
        assert {one: environment[one] for one in chosen & environment.keys()} == {name: "7"}


async def test_a_loop_that_hangs_in_a_step_is_killed_and_the_step_is_known(fake: Fake) -> None:
    fake(READY + "page.beat(['1-1', '1-2'], 0.001)\n" + HANG)
    death = await Watched(QUICK).death()
    assert death.cause == "silent"
    assert "in a step that should take 0.001 s" in death.detail
    assert death.working_for == {"1-1", "1-2"}


async def test_a_loop_that_never_begins_is_killed(fake: Fake) -> None:
    fake(READY + HANG)
    death = await Watched(QUICK).death()
    assert (death.cause, death.working_for) == ("silent", frozenset())


async def test_a_long_step_that_was_expected_is_left_alone(fake: Fake) -> None:
    fake(READY + "page.beat(['1-1'], 60.0)\ntime.sleep(2.0)\nsys.exit(7)\n")
    assert (await Watched(QUICK).death()).cause == "exit code 7"


async def test_a_loop_that_beats_is_left_alone(fake: Fake) -> None:
    fake(READY + "for _ in range(20):\n    page.beat(['1-1'])\n    time.sleep(0.1)\nsys.exit(7)\n")
    assert (await Watched(QUICK).death()).cause == "exit code 7"


async def test_a_stopped_process_is_killed(fake: Fake) -> None:
    fake(READY + "page.beat(['1-1'])\nos.kill(os.getpid(), signal.SIGSTOP)\n")
    assert (await Watched(QUICK).death()).cause == "silent"


async def test_before_it_is_killed_a_hanging_child_is_asked_where_it_hangs(fake: Fake, tmp_path: Path) -> None:
    said = tmp_path / "said"
    fake(f"signal.signal(signal.SIGUSR1, lambda *_: open({str(said)!r}, 'w').close())\n" + READY + HANG)
    assert (await Watched(QUICK).death()).cause == "silent"
    assert said.exists()


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("os.kill(os.getpid(), 40)", "signal 40"),
        ("os.abort()", "SIGABRT"),
        ("sys.exit(3)", "exit code 3"),
        ("time.sleep(0.3); parent.sendall(b'nonsense' * 99); time.sleep(600)", "protocol"),  # after Ready was read
        ("parent.close(); time.sleep(600)", "SIGKILL"),
    ],
)
async def test_how_a_child_ended_is_said_in_few_words(fake: Fake, end: str, cause: str) -> None:
    fake(READY + "page.beat(['1-1'], 1e6)\n" + end)
    death = await Watched(QUICK).death()
    assert (death.cause, death.working_for) == (cause, {"1-1"})


async def test_a_child_dies_even_where_a_process_of_its_own_keeps_the_socket(fake: Fake, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    heir = (
        f"other = subprocess.Popen(['sleep', '60'], pass_fds=numbers)\nopen({str(pid)!r}, 'w').write(str(other.pid))\n"
    )
    fake(heir + READY + "page.beat(['1-1'], 1e6)\nos.kill(os.getpid(), signal.SIGKILL)")
    try:
        assert (await Watched(QUICK).death()).cause == "SIGKILL"
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)


async def test_a_child_that_does_not_load_in_time_is_given_up(fake: Fake) -> None:
    fake(HANG)
    watched = Watched(Patience(load_s=0.3))
    with pytest.raises(EngineDied, match=r"not loaded within 0\.3 s"):
        await watched.transport.open(watched.listener)
    watched.check_nothing_is_left()


@pytest.mark.parametrize("life", ["sys.exit(3)", "parent.sendall(b'nonsense' * 99)\n" + HANG])
async def test_a_child_that_dies_while_it_loads_is_an_error_and_no_death(fake: Fake, life: str) -> None:
    fake(life)
    watched = Watched(QUICK)
    with pytest.raises(EngineDied, match=r"exit code 3|a message"):
        await watched.transport.open(watched.listener)
    watched.check_nothing_is_left()
    assert watched.deaths == []


async def test_a_system_that_starts_no_process_is_an_error(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    watched = Watched(QUICK)
    with pytest.raises(EngineDied, match="could not be started"):
        await watched.transport.open(watched.listener)
    watched.check_nothing_is_left()


async def test_a_start_that_is_cancelled_leaves_nothing(fake: Fake) -> None:
    fake(HANG)
    watched = Watched(QUICK)
    opening = asyncio.create_task(watched.transport.open(watched.listener))
    await until(lambda: watched.transport.pid is not None)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    watched.check_nothing_is_left()


async def test_a_stopped_engine_is_noticed_and_replaced(tmp_path: Path) -> None:
    build_checkpoint(tmp_path, seed=4)
    transport = ProcessTransport(
        PairConfig({"m": engine_config(tmp_path)}, torch_threads=1), Patience(load_s=60.0, silence_s=3.0)
    )
    client = EngineClient(transport, RestartPolicy(first_s=0.01))
    async with client:
        await asyncio.sleep(4.0)
        assert client.health.state == "up", "an idle engine goes on beating"
        assert client.health.silent_s is not None
        assert client.health.silent_s < 3.0
        old = transport.pid
        assert old is not None
        params = SamplingParams(temperature=0, max_tokens=450, ignore_eos=True)
        stream = client.submit("m", params, tokens=range(10, 30))
        assert isinstance(await anext(stream), Delta)
        began = time.monotonic()
        os.kill(old, signal.SIGSTOP)
        with pytest.raises(EngineDied, match="send it again"):
            async for _ in stream:
                pass
        assert time.monotonic() - began < 20.0
        death = client.health.last_death
        assert death is not None
        assert death.cause == "silent"
        assert (await client.stats())["m"]["running_now"] == 0
        assert transport.pid != old
