"""Trying constraints out in processes that may be killed: verdicts by CPU time and memory, never by the wall clock."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.bomb_corpus import bombs
from grammars import CompileTimeout, Constraint, ConstraintRefused, Grammar, GrammarCompiler, JsonSchema, Regex
from grammars.limits import Limits
from grammars.probe import Probe, ProbeLimits
from grammars.vocabulary import Vocabulary

ROOT = Path(__file__).parents[2]
SLOW = JsonSchema({"type": "integer", "allOf": [{"multipleOf": n} for n in (97, 89, 83, 79)]})
"""Small as text; its automaton has 57 million states."""


def probed(i: int) -> JsonSchema:
    """A cheap schema that is not cheap beyond doubt."""
    return JsonSchema({"allOf": [{"type": "integer"}, {"minimum": i}]})


class FaultyProbe(Probe):
    module = "tests.grammars.faulty_probe"


@pytest.fixture(scope="module")
def faulty(tokenizer: Any) -> Iterator[Probe]:
    bounds = ProbeLimits(cpu_s=0.2, memory_bytes=1 << 28)
    probe = FaultyProbe(Vocabulary(tokenizer, 300), "compact", Limits(), bounds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        probe.start()
    yield probe
    probe.close()


@pytest.fixture(scope="module")
def strict(tokenizer: Any) -> Iterator[GrammarCompiler]:
    compiler = GrammarCompiler(tokenizer, vocab_size=300, deadline_s=20, probe=ProbeLimits(cpu_s=0.2))
    yield compiler
    compiler.close()


@pytest.mark.parametrize(
    ("source", "kind"),
    [("spin", "cpu"), ("allocate", "memory"), ("abort", "memory"), ("crash", "crash"), ("nothing", "fits")],
)
def test_whatever_a_backend_does_is_a_verdict_and_the_next_job_gets_its_own(
    faulty: Probe, source: str, kind: str
) -> None:
    assert faulty.try_out(Regex(source), 20).kind == kind
    assert faulty.try_out(Regex("after"), 20).kind == "fits"


def test_the_wall_clock_says_nothing_about_a_constraint(faulty: Probe) -> None:
    with pytest.raises(CompileTimeout):
        faulty.try_out(Regex("sleep"), 0.2)
    assert faulty.try_out(Regex("after"), 20).kind == "fits"


def test_whoever_waits_behind_a_slow_job_is_told_to_come_again(faulty: Probe) -> None:
    assert faulty.try_out(Regex("first"), 20).kind == "fits"

    def sleep() -> None:
        with pytest.raises(CompileTimeout):
            faulty.try_out(Regex("sleep"), 1.0)

    thread = threading.Thread(target=sleep)
    thread.start()
    time.sleep(0.2)
    with pytest.raises(CompileTimeout):
        faulty.try_out(Regex("behind"), 0.2)
    thread.join()


def test_too_much_cpu_time_is_a_refusal_that_is_remembered(strict: GrammarCompiler) -> None:
    with pytest.raises(ConstraintRefused) as caught:
        strict.compile(SLOW)
    assert (caught.value.keyword, caught.value.pointer) == ("schema", "")
    assert "0.2 s of CPU time" in caught.value.reason
    began = time.process_time()
    with pytest.raises(ConstraintRefused, match="CPU time"):
        strict.compile(SLOW)
    with pytest.raises(ConstraintRefused, match="CPU time"):
        strict.cached(SLOW)
    assert time.process_time() - began < 0.1
    assert strict.compile(probed(1)).backend == "llguidance"


def test_a_probe_that_does_not_answer_is_a_timeout_that_is_not_remembered(tokenizer: Any) -> None:
    compiler = GrammarCompiler(tokenizer, vocab_size=300, deadline_s=1.0)
    with contextlib.closing(compiler):
        _until(lambda: _compiles(compiler, probed(0)))
        pid = _server_pid(compiler)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(CompileTimeout):
            compiler.compile(probed(1))
        os.kill(pid, signal.SIGCONT)
        _until(lambda: _compiles(compiler, probed(1)))


def test_the_start_of_the_probe_counts_for_no_constraint(tokenizer: Any) -> None:
    """It takes longer than this deadline: torch alone is imported for most of a second."""
    with contextlib.closing(GrammarCompiler(tokenizer, vocab_size=300, deadline_s=0.5)) as compiler:
        began = time.monotonic()
        assert compiler.compile(probed(0)).backend == "llguidance"
        assert time.monotonic() - began > 0.5


def test_a_probe_that_was_killed_is_started_again(strict: GrammarCompiler) -> None:
    strict.compile(probed(10))
    killed = _server_pid(strict)
    os.kill(killed, signal.SIGKILL)
    assert strict.compile(probed(11)).backend == "llguidance"
    assert _server_pid(strict) != killed


def test_many_threads_get_their_own_verdicts(strict: GrammarCompiler) -> None:
    found: dict[int, bool] = {}

    def ask(i: int) -> None:
        matcher = strict.compile(probed(100 + i)).matcher()
        found[i] = all(matcher.advance(byte) for byte in str(100 + i).encode()) and matcher.is_complete

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(12), True)


def test_the_probe_refuses_and_plans_as_this_process_does(tokenizer: Any) -> None:
    here = GrammarCompiler(tokenizer, vocab_size=300, deadline_s=60, probe=None)
    compiler = GrammarCompiler(tokenizer, vocab_size=300, deadline_s=60, probe=ProbeLimits(cpu_s=20))
    for name in (
        "12 levels of doubling", "7 levels of doubling", "18 alternatives multiplied", "a fan of references",
        "3,000 values", "a{1,1000000}", "128 tools", "60 overlapping patterns",
    ):  # fmt: skip
        bomb = bombs()[name]
        assert not compiler.is_quick(bomb)
        assert _verdict(compiler, bomb) == _verdict(here, bomb), name
    compiler.close()


def test_an_ambiguous_grammar_is_refused_before_an_answer_is_stuck_in_it(tokenizer: Any) -> None:
    with contextlib.closing(GrammarCompiler(tokenizer, vocab_size=300, deadline_s=60)) as compiler:
        with pytest.raises(ConstraintRefused, match="for a token of an answer"):
            compiler.compile(bombs()["40 doublings"])
        assert compiler.compile(Grammar('root ::= "(" root ")" | "x"')).backend == "xgrammar"


def test_closing_leaves_no_process_thread_or_file_behind(tokenizer: Any) -> None:
    with contextlib.closing(GrammarCompiler(tokenizer, vocab_size=300, deadline_s=20)) as warm:
        warm.compile(probed(0))
    before = _files(), threading.active_count(), set(psutil.Process().children(recursive=True))
    compiler = GrammarCompiler(tokenizer, vocab_size=300, deadline_s=20)
    compiler.compile(probed(0))
    assert set(psutil.Process().children(recursive=True)) > before[2]
    compiler.close()
    _until(lambda: (_files(), threading.active_count()) == before[:2])
    assert set(psutil.Process().children(recursive=True)) == before[2]
    with pytest.raises(CompileTimeout):
        compiler.compile(probed(1))
    assert compiler.compile(JsonSchema({"type": "null"})).backend == "llguidance", "what needs no probe still compiles"


def test_a_forgotten_compiler_leaves_no_process_behind(tokenizer: Any) -> None:
    compiler = GrammarCompiler(tokenizer, vocab_size=300, deadline_s=20)
    compiler.compile(probed(0))
    pid = _server_pid(compiler)
    del compiler
    gc.collect()
    _until(lambda: not psutil.pid_exists(pid))


def test_the_probe_ends_with_the_process_that_started_it() -> None:
    code = (
        "import sys, time, threading\n"
        "from benchmarks.tokenizers import byte_tokenizer\n"
        "from grammars import GrammarCompiler, JsonSchema\n"
        "compiler = GrammarCompiler(byte_tokenizer('<end>'), vocab_size=300, deadline_s=20)\n"
        "compiler.compile(JsonSchema({'allOf': [{'type': 'integer'}]}))\n"
        "print(compiler._probe._server.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    with parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        family = [server, *server.children(recursive=True)]
        assert len(family) == 2
        parent.kill()
    _until(lambda: not any(process.is_running() for process in family))


def test_jobs_have_a_lower_priority_and_none_of_our_files(strict: GrammarCompiler) -> None:
    strict.compile(probed(20))
    server = psutil.Process(_server_pid(strict))
    [worker] = server.children()
    assert (worker.nice(), server.nice()) == (psutil.Process().nice() + 10,) * 2
    ours = {os.readlink(f"/proc/self/fd/{fd}") for fd in _files() if os.path.exists(f"/proc/self/fd/{fd}")}
    theirs = {os.readlink(f"/proc/{worker.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{worker.pid}/fd")}
    assert not {name for name in ours & theirs if name.startswith("socket:")}


@pytest.mark.parametrize("bounds", [{"cpu_s": 0}, {"memory_bytes": 1}, {"at_once": 0}, {"nice": 20}])
def test_bounds_that_make_no_sense_are_an_error(bounds: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bounds))):
        ProbeLimits(**bounds)


def _verdict(compiler: GrammarCompiler, constraint: Constraint) -> tuple[str, ...]:
    try:
        return (compiler.compile(constraint).backend,)
    except ConstraintRefused as error:
        return error.keyword, error.pointer, error.reason


def _compiles(compiler: GrammarCompiler, constraint: Constraint) -> bool:
    with contextlib.suppress(CompileTimeout):
        return compiler.compile(constraint).backend == "llguidance"
    return False


def _server_pid(compiler: GrammarCompiler) -> int:
    assert compiler._probe is not None
    assert compiler._probe._server is not None
    return compiler._probe._server.pid


def _files() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def _until(is_true: Callable[[], bool], timeout_s: float = 30.0) -> None:
    began = time.monotonic()
    while not is_true():
        assert time.monotonic() - began < timeout_s
        time.sleep(0.02)
