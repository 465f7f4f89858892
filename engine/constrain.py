"""Constraints inside the step loop: compiled on worker threads, and behind a guard, so that a fault ends one
request."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Protocol, TypeVar

import numpy as np
import torch

from engine.request import EngineError
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

T = TypeVar("T")


class GrammarFault(EngineError):
    """A backend raised, or contradicted its own mask. Only the request it belongs to ends."""

    code = "grammar_fault"


class TokenMatcher(Protocol):
    """The part of `grammars.matcher.Matcher` that the engine uses. A mask row is int32 [ceil(vocab / 32)], on the
    CPU."""

    def fill_mask(self, row: torch.Tensor) -> None:
        """Set bit t % 32 of word t // 32 for each token t that may come next, clear the others."""

    def advance(self, token_id: int) -> bool:
        """Take a token; False, and no change, where it is not allowed."""

    def rollback(self, n: int) -> None:
        """Take back the last `n` tokens."""

    def forced(self) -> int | None:
        """The only token that may come next, if there is just one; the end token counts."""

    def trial(self, tail: Sequence[int]) -> tuple[torch.Tensor, int]:
        """(masks int32 [n + 1, n_words], n): the mask before each of the `n` leading tokens that are legal, and
        after."""

    @property
    def is_complete(self) -> bool:
        """Whether the answer may end here."""

    @property
    def is_terminated(self) -> bool:
        """Whether the end token was taken."""


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


class GuardedMatcher:
    """One request's matcher. Whatever it raises becomes a GrammarFault.

    The mask of each position is filled once and read once: how many of its words are not zero says, for nearly all of
    them, that neither the end nor a single token is all that may follow. fill_s: seconds spent on masks so far.
    """

    def __init__(self, matcher: TokenMatcher, end_ids: frozenset[int], vocab_size: int) -> None:
        """end_ids: the model's end tokens, which the matcher allows when the answer is complete."""
        self._matcher, self._end_ids = matcher, end_ids
        self._n_words = -(-vocab_size // 32)
        self._end_words = np.zeros(self._n_words, dtype=np.uint32)
        for end in end_ids:
            self._end_words[end // 32] |= np.uint32(1 << end % 32)
        self._n_end_words = int(np.count_nonzero(self._end_words))
        self._mask: torch.Tensor | None = None
        self._n_used = 0  # words of the mask that are not zero
        self.fill_s = 0.0

    @property
    def mask(self) -> torch.Tensor:
        """What may come next: int32 [n_words], filled once for each position; nobody may write into it."""
        if self._mask is None:
            began = time.perf_counter()
            mask = torch.empty(self._n_words, dtype=torch.int32)
            try:
                self._matcher.fill_mask(mask)
            except Exception as error:
                raise _fault(error) from error
            self._mask, self._n_used = mask, int(np.count_nonzero(mask.numpy()))
            self.fill_s += time.perf_counter() - began
        return self._mask

    @property
    def is_over(self) -> bool:
        """Whether nothing but the end can follow: the end token was taken, or only end tokens are allowed."""
        mask = self.mask
        if self._n_used > self._n_end_words:
            return False
        if self._n_used:
            return not (mask.numpy().view(np.uint32) & ~self._end_words).any()
        if self._call(lambda: self._matcher.is_terminated):
            return True
        raise GrammarFault("the grammar allows no token at all here: a fault of its backend")

    @property
    def is_complete(self) -> bool:
        """Whether what was taken so far satisfies the constraint."""
        return self._call(lambda: self._matcher.is_terminated or self._matcher.is_complete)

    def advance(self, token_id: int) -> None:
        """Take a token that the mask allowed."""
        self._mask = None
        try:
            is_legal = self._matcher.advance(token_id)
        except Exception as error:
            raise _fault(error) from error
        if not is_legal:
            raise GrammarFault(f"the grammar's mask allowed token {token_id}, its matcher refused it")

    def masks_along(self, tail: Sequence[int]) -> torch.Tensor:
        """The masks before each leading token of `tail` that is legal, and after them: int32 [n_legal + 1, n_words].

        An end token in the tail counts as illegal: nothing could be sampled after it. The state is left as it was.
        """
        if not tail:
            return self.mask[None]
        began = time.perf_counter()
        until = next((i for i, token in enumerate(tail) if token in self._end_ids), len(tail))
        masks, _ = self._call(lambda: self._matcher.trial(list(tail[:until])))
        self.fill_s += time.perf_counter() - began
        return masks

    def forced_run(self, limit: int) -> list[int]:
        """At most `limit` tokens that follow with no choice, the end token left out. The state is left as it was."""
        run: list[int] = []
        before = self.mask, self._n_used
        try:
            while len(run) < limit and (token := self._only_token()) is not None:
                self.advance(token)
                run.append(token)
        finally:
            if run:
                self._call(lambda: self._matcher.rollback(len(run)))
                self._mask, self._n_used = before
        return run

    def _only_token(self) -> int | None:
        """The only token that the mask allows, if there is just one and it is no end token."""
        mask = self.mask
        if self._n_used != 1:
            return None
        words = mask.numpy().view(np.uint32)
        index = int(words.argmax())
        word = int(words[index])
        token = index * 32 + word.bit_length() - 1
        return token if word & (word - 1) == 0 and token not in self._end_ids else None

    def _call(self, method: Callable[[], T]) -> T:
        try:
            return method()
        except Exception as error:
            raise _fault(error) from error


def _fault(error: Exception) -> GrammarFault:
    return GrammarFault(f"the grammar's backend failed with {type(error).__name__}: {error}")


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
    """Compiles off the step loop. Caching, deadlines and single flight are the compilers' own."""

    def __init__(self, factories: Mapping[str, Callable[[], Compiler]], n_threads: int = 2) -> None:
        """factories: by model name; each is called once, when a constraint is first compiled for that model."""
        self._factories = factories
        self._compilers: dict[str, Compiler] = {}
        self._building = Lock()
        self._threads = ThreadPoolExecutor(n_threads, thread_name_prefix="compile")

    def start(self, model: str, constraint: Constraint, done: Callable[[CompileOutcome], None]) -> None:
        """Compile; `done` is called on the worker thread and must not raise."""
        self._threads.submit(lambda: done(self.compile(model, constraint)))

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
            fault = GrammarFault(f"the grammar compiler failed with {type(error).__name__}: {error}")
            return CompileFailure(time.perf_counter() - began, fault)
        return CompileSuccess(time.perf_counter() - began, cached, compiled, matcher)

    def warm(self) -> None:
        """Load the compilers and their commonest backend, which takes seconds; returns when that is done."""
        list(self._threads.map(lambda model: self.compile(model, JsonObject()), self._factories))

    def close(self) -> None:
        """Drop what has not begun; what is being compiled ends on its own."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _compiler(self, model: str) -> Compiler:
        with self._building:
            if model not in self._compilers:
                self._compilers[model] = self._factories[model]()
            return self._compilers[model]
