"""The page between the step loop and who watches it, and what counts as silence."""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core import EngineCore
from engine.heartbeat import HeartbeatPage, Silence
from engine.messages import Command, Compile, Compiled, Event, Prepare, Prepared, Shutdown, Submit
from engine.request import SamplingParams
from grammars import JsonSchema
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import MODEL, build_core, engine_config, submit

BEATS = st.lists(st.tuples(st.lists(st.text(max_size=20), max_size=40), st.floats(0, 1e6)), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def shared_page() -> Iterator[HeartbeatPage]:
    page = HeartbeatPage.create()
    yield page
    page.close()
    page.close()


@given(BEATS)
def test_the_last_beat_is_read_and_differs_from_the_one_before(
    shared_page: HeartbeatPage, beats: list[tuple[list[str], float]]
) -> None:
    before = shared_page.read().sequence
    for ids, expected_s in beats:
        shared_page.beat(ids, expected_s)
        beat = shared_page.read()
        assert (beat.ids, beat.expected_s) == (frozenset(ids), expected_s)
        assert beat.sequence != before
        before = beat.sequence


def test_before_the_first_beat_nobody_is_worked_for() -> None:
    page = HeartbeatPage.create()
    assert (page.read().ids, page.read().expected_s) == (frozenset(), 0.0)
    page.close()


def test_ids_that_do_not_fit_are_unknown(shared_page: HeartbeatPage) -> None:
    shared_page.beat(map(str, range(100_000)), 2.0)
    assert (shared_page.read().ids, shared_page.read().expected_s) == (None, 2.0)
    shared_page.beat(["a"])
    assert shared_page.read().ids == {"a"}


def test_what_a_killed_process_did_is_read_after_its_death() -> None:
    page = HeartbeatPage.create()
    program = (
        "import os, signal, sys\n"
        "from engine.heartbeat import HeartbeatPage\n"
        "HeartbeatPage(int(sys.argv[1])).beat(['7-1', '7-2'], 3.0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(page.fd)], pass_fds=(page.fd,), check=False)
    assert ended.returncode == -9
    assert (page.read().ids, page.read().expected_s) == ({"7-1", "7-2"}, 3.0)
    page.close()


@given(st.lists(st.binary(min_size=1, max_size=8), max_size=5), st.integers(0, 60))
def test_a_page_that_is_being_written_is_never_believed_nor_fatal(garbage: list[bytes], at: int) -> None:
    page = HeartbeatPage.create()
    page.beat(["a"])
    for bytes_ in garbage:
        os.pwrite(page.fd, bytes_, at)
    os.pwrite(page.fd, (9).to_bytes(8, sys.byteorder), 0)  # odd: a beat was begun
    assert page.read().ids is None
    os.pwrite(page.fd, (8).to_bytes(8, sys.byteorder), 0)
    page.read()
    page.close()


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 50)), max_size=40))
def test_silence_is_the_time_since_the_last_new_beat_but_no_pause_counts_more_than_its_limit(
    looks: list[tuple[bool, float]],
) -> None:
    silence, sequence, now_s, expected = Silence(max_pause_s=2.0), 0, 100.0, 0.0
    assert silence.look(sequence, now_s) == 0.0
    for beats, pause_s in looks:
        sequence += 2 * beats
        now_s += pause_s
        expected = 0.0 if beats else expected + min(pause_s, 2.0)
        assert silence.look(sequence, now_s) == silence.seconds == pytest.approx(expected, abs=1e-9)


class Diary:
    """A pulse that keeps what it was told; the core is asked to end once it has worked and is idle again."""

    def __init__(self, core: EngineCore) -> None:
        self._core = core
        self.working: list[tuple[set[str], float]] = []

    def beat(self, ids: Iterable[str], expected_s: float = 0.0) -> None:
        names = set(ids) - {""}  # a Shutdown is nobody's
        if names:
            self.working.append((names, expected_s))
        elif self.working:
            self._core.post(Shutdown(0.0))

    @property
    def steps(self) -> list[set[str]]:
        return [names for names, expected_s in self.working if expected_s > 0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heartbeat")
    build_checkpoint(folder, seed=9)
    return folder


def watched(core: EngineCore, *commands: Command) -> tuple[Diary, list[Event]]:
    """What the loop said while it worked off the commands, and the events."""
    diary, events = Diary(core), list[Event]()
    for command in commands:
        core.post(command)
    core.run(events.extend, diary)
    core.close()
    return diary, events


def test_the_loop_names_who_is_in_a_step_and_how_long_it_should_take(folder: Path) -> None:
    asked = [submit(name, range(10, 40), max_tokens=4, ignore_eos=True) for name in "abc"]
    diary, _ = watched(build_core(engine_config(folder, max_rows=2)), *asked)
    assert max(map(len, diary.steps)) == 2, "who waits is not named"
    assert set().union(*diary.steps) == {"a", "b", "c"}
    assert diary.working[:3] == [({"a"}, 0.0), ({"b"}, 0.0), ({"c"}, 0.0)], "taking a request in is work for it"


def test_who_continues_a_prefill_is_named_as_its_client_knows_it(folder: Path) -> None:
    core = build_core(engine_config(folder))
    core.post(Prepare("prefill", MODEL, list(range(10, 40))))
    [prepared] = core.step()
    assert isinstance(prepared, Prepared)
    params = SamplingParams(max_tokens=3, ignore_eos=True)
    diary, _ = watched(core, Submit(id="answer", model=MODEL, params=params, handle=prepared.handle))
    assert diary.steps
    assert all(names == {"answer"} for names, _ in diary.working)


def test_whose_constraint_is_being_compiled_is_named_beside_each_step(folder: Path) -> None:
    asked = submit("answer", range(10, 40), max_tokens=4, ignore_eos=True)
    diary, events = watched(build_core(engine_config(folder)), Compile("c", MODEL, JsonSchema(True)), asked)
    assert diary.working[0] == ({"c"}, 0.0)
    assert any(isinstance(event, Compiled) for event in events)
    assert {"answer", "c"} in diary.steps, "the first compilation takes longer than the first step"


class Impatient:
    """A pulse that asks an idle core to end at its third beat."""

    def __init__(self, core: EngineCore) -> None:
        self._core, self.n_beats = core, 0

    def beat(self, ids: Iterable[str], expected_s: float = 0.0) -> None:
        self.n_beats += 1
        if self.n_beats <= 3:
            assert (list(ids), expected_s) == ([], 0.0)
        if self.n_beats == 3:
            self._core.post(Shutdown(0.0))


def test_an_idle_loop_goes_on_beating(folder: Path) -> None:
    core = build_core(engine_config(folder))
    impatient = Impatient(core)
    core.run(lambda _: None, impatient)
    core.close()
    assert impatient.n_beats >= 3
