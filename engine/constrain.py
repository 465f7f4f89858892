"""Constraints inside the step loop: compiled on worker threads, and behind a guard, so that a fault ends one
request."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

from engine.guarded_matcher import GrammarFault, GuardedMatcher, TokenMatcher
from grammars.constraint import Constraint, JsonObject
from grammars.errors import CompileTimeout, ConstraintRefused

__all__ = [
    "CompileFailure",
    "CompileOutcome",
    "CompileSuccess",
    "Compiled",
    "Compiler",
    "ConstraintCompiler",
    "GrammarFault",
    "GuardedMatcher",
    "TokenMatcher",
]


class Compiled(Protocol):
    """The part of `grammars.compiler.CompiledConstraint` that the engine uses."""

    @property
    def backend(self) -> str:
        """Which engine enforces it."""

    @property
    def warnings(self) -> Sequence[str]:
        """Annotations that are not asserted."""

    def matcher(self) -> TokenMatcher:
        """A fresh matcher at the start of an answer."""


class Compiler(Protocol):
    """The part of `grammars.compiler.GrammarCompiler` that the engine uses; safe to call from several threads."""

    def cached(self, constraint: Constraint) -> Compiled | None:
        """What the cache holds. Raises ConstraintRefused where it remembers a refusal."""

    def compile(self, constraint: Constraint) -> Compiled:
        """Raises ConstraintRefused or CompileTimeout."""

    def is_quick(self, constraint: Constraint) -> bool:
        """Whether `compile` surely takes milliseconds only."""

    def warm_up(self) -> None:
        """Load what the first constraint would have to wait for."""

    def close(self) -> None:
        """End the processes beside it."""


@dataclass(frozen=True, slots=True)
class CompileSuccess:
    """A constraint compiled, with a matcher at the start of an answer."""

    seconds: float
    cached: bool
    compiled: Compiled
    matcher: TokenMatcher


@dataclass(frozen=True, slots=True)
class CompileFailure:
    """Why the request that asked gets none."""

    seconds: float
    error: ConstraintRefused | CompileTimeout | GrammarFault


CompileOutcome = CompileSuccess | CompileFailure


class ConstraintCompiler:
    """Compiles off the step loop. Caching, deadlines and single flight are the compilers' own.

    There are two lanes, so that constraints which take long, or are made to, hold up no ordinary one.
    """

    def __init__(
        self, factories: Mapping[str, Callable[[], Compiler]], n_threads: int = 2, patience_s: float = 5.0
    ) -> None:
        """factories: by model name; each is called once, when a constraint is first compiled for that model. Models
        with one factory share a compiler. n_threads: of each lane. patience_s: the longest wait in the slow one.
        """
        self._factories, self._patience_s = factories, patience_s
        self._compilers: dict[Callable[[], Compiler], Compiler] = {}
        self._building = Lock()
        self._is_closed = False
        self._quick = ThreadPoolExecutor(n_threads, thread_name_prefix="compile")
        self._slow = ThreadPoolExecutor(n_threads, thread_name_prefix="compile-slow")

    def start(self, model: str, constraint: Constraint, done: Callable[[CompileOutcome], None]) -> None:
        """Compile; `done` is called on the worker thread and must not raise."""
        self._quick.submit(self._begin, model, constraint, done)

    def compile(self, model: str, constraint: Constraint) -> CompileOutcome:
        """Compile on this thread. Nothing that a client's constraint causes escapes as an exception."""
        began = time.perf_counter()
        try:
            compiler = self._compiler(model)
            cached = compiler.cached(constraint) is not None
            compiled = compiler.compile(constraint)
            matcher = compiled.matcher()
            matcher.forced()  # the first mask is often the dearest: fill it here, beside the steps
        except (ConstraintRefused, CompileTimeout) as error:
            return CompileFailure(time.perf_counter() - began, error)
        except Exception as error:
            return _failure(began, error)
        return CompileSuccess(time.perf_counter() - began, cached, compiled, matcher)

    def warm(self) -> None:
        """Load the compilers and their commonest backend, which takes seconds; returns when that is done."""

        def warm(model: str) -> None:
            self._compiler(model).warm_up()
            self.compile(model, JsonObject())

        list(self._quick.map(warm, self._factories))

    def close(self) -> None:
        """Drop what has not begun, and end the processes beside the compilers; what is being compiled here ends on
        its own."""
        with self._building:
            self._is_closed = True
            compilers = list(self._compilers.values())
        self._quick.shutdown(wait=False, cancel_futures=True)
        self._slow.shutdown(wait=False, cancel_futures=True)
        for compiler in compilers:
            compiler.close()

    def _begin(self, model: str, constraint: Constraint, done: Callable[[CompileOutcome], None]) -> None:
        began = time.perf_counter()
        try:
            is_quick = self._compiler(model).is_quick(constraint)
        except Exception as error:
            done(_failure(began, error))
            return
        if is_quick:
            done(self.compile(model, constraint))
            return
        with contextlib.suppress(RuntimeError):  # closed meanwhile: nobody waits any more
            self._slow.submit(self._run_slow, model, constraint, done, began)

    def _run_slow(
        self, model: str, constraint: Constraint, done: Callable[[CompileOutcome], None], began: float
    ) -> None:
        waited_s = time.perf_counter() - began
        if waited_s > self._patience_s:  # its client has given up; whoever came later may still be there
            done(CompileFailure(waited_s, CompileTimeout(f"{waited_s:.1f} s passed before its turn came: try again")))
        else:
            done(self.compile(model, constraint))

    def _compiler(self, model: str) -> Compiler:
        with self._building:
            if self._is_closed:
                raise CompileTimeout("the engine is closing")
            factory = self._factories[model]
            if factory not in self._compilers:
                self._compilers[factory] = factory()
            return self._compilers[factory]


def _failure(began: float, error: Exception) -> CompileFailure:
    fault = GrammarFault(f"the grammar compiler failed with {type(error).__name__}: {error}")
    return CompileFailure(time.perf_counter() - began, fault)
