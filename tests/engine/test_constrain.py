"""Compiling on worker threads."""

import threading
import time
from typing import Any

import pytest

from engine.constrain import (
    CompileFailure,
    CompileOutcome,
    CompileSuccess,
    ConstraintCompiler,
    GrammarFault,
)
from grammars import Choice, CompileTimeout, ConstraintRefused, GrammarCompiler, JsonSchema
from tests.engine.checkpoints import build_tokenizer

VOCAB = 512


class HfTokenizer:
    """What GrammarCompiler asks of an engine's tokenizer."""

    def __init__(self) -> None:
        from transformers import PreTrainedTokenizerFast

        self.hf = PreTrainedTokenizerFast(tokenizer_object=build_tokenizer(), eos_token="<|im_end|>")  # noqa: S106


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return HfTokenizer()


class FailingCompiler:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def cached(self, _constraint: object) -> None:
        return None

    def compile(self, _constraint: object) -> Any:
        raise self._error

    def is_quick(self, _constraint: object) -> bool:
        return True

    def warm_up(self) -> None:
        return

    def close(self) -> None:
        return


class SlowCompiler(FailingCompiler):
    """Refuses; `slow` takes until the gate opens."""

    def __init__(self) -> None:
        super().__init__(ConstraintRefused("choice", "", "no"))
        self.gate = threading.Event()
        self.is_closed = False

    def compile(self, constraint: object) -> Any:
        if not self.is_quick(constraint):
            assert self.gate.wait(30)
        raise self._error

    def is_quick(self, constraint: object) -> bool:
        return constraint != SLOW

    def close(self) -> None:
        self.is_closed = True


SLOW = Choice(("slow",))


def test_what_takes_long_holds_up_nothing_that_does_not() -> None:
    compiler = SlowCompiler()
    service = ConstraintCompiler({"m": lambda: compiler}, n_threads=1)
    done: dict[str, threading.Event] = {name: threading.Event() for name in ("slow", "behind it", "quick")}
    for name, constraint in (("slow", SLOW), ("behind it", SLOW), ("quick", Choice(("quick",)))):
        service.start("m", constraint, lambda _, name=name: done[name].set())
    assert done["quick"].wait(30)
    assert not done["slow"].is_set()
    assert not done["behind it"].is_set()
    compiler.gate.set()
    assert all(event.wait(30) for event in done.values())
    service.close()
    assert compiler.is_closed


def test_who_waited_too_long_is_told_to_come_again_and_costs_nothing() -> None:
    compiler = SlowCompiler()
    service = ConstraintCompiler({"m": lambda: compiler}, n_threads=1, patience_s=0.05)
    outcomes: list[CompileOutcome] = []
    done = threading.Semaphore(0)

    def take(outcome: CompileOutcome) -> None:
        outcomes.append(outcome)
        done.release()

    service.start("m", SLOW, take)
    service.start("m", SLOW, take)
    time.sleep(0.2)
    compiler.gate.set()
    for _ in range(2):
        assert done.acquire(timeout=30)
    service.close()
    assert [type(outcome.error) for outcome in outcomes if isinstance(outcome, CompileFailure)] == [
        ConstraintRefused,
        CompileTimeout,
    ]


def test_models_with_one_factory_share_a_compiler() -> None:
    built: list[SlowCompiler] = []

    def build() -> SlowCompiler:
        built.append(SlowCompiler())
        return built[-1]

    service = ConstraintCompiler({"a": build, "b": build})
    service.compile("a", Choice(("x",)))
    service.compile("b", Choice(("x",)))
    service.close()
    assert len(built) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [(CompileTimeout("slow"), CompileTimeout), (RuntimeError("bug"), GrammarFault), (MemoryError(), GrammarFault)],
)
def test_what_a_compiler_raises_becomes_an_outcome(error: Exception, kind: type[Exception]) -> None:
    service = ConstraintCompiler({"m": lambda: FailingCompiler(error)})
    outcome = service.compile("m", Choice(("a",)))
    service.close()
    assert isinstance(outcome, CompileFailure)
    assert isinstance(outcome.error, kind)


def test_compiling_runs_beside_the_caller_and_builds_each_compiler_once(tokenizer: Any) -> None:
    built: list[str] = []

    def build() -> GrammarCompiler:
        built.append(threading.current_thread().name)
        return GrammarCompiler(tokenizer, vocab_size=VOCAB, deadline_s=60)

    service = ConstraintCompiler({"m": build}, n_threads=2)
    outcomes: list[CompileOutcome] = []
    done = threading.Semaphore(0)

    def take(outcome: CompileOutcome) -> None:
        outcomes.append(outcome)
        done.release()

    for i in range(4):
        service.start("m", JsonSchema({"const": i}), take)
    for _ in range(4):
        assert done.acquire(timeout=30)
    service.close()
    assert all(isinstance(outcome, CompileSuccess) for outcome in outcomes)
    assert len(built) == 1
    assert built[0] != threading.current_thread().name
