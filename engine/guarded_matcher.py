"""A request's matcher inside the step loop: one mask per position, and a guard, so that a fault ends one request."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch

from engine.cpu_clock import CpuClock
from engine.guess_budget import GuessBudget
from engine.mask_budget import MaskBudget
from engine.request import EngineError
from engine.trial_walk import TrialWalk, allows
from grammars.errors import MatcherFailed

__all__ = ["GrammarFault", "GrammarTooSlow", "GuardedMatcher", "TokenMatcher"]

T = TypeVar("T")


class GrammarFault(EngineError):
    """A backend raised, or contradicted its own mask. Only the request it belongs to ends."""

    code = "grammar_fault"


class GrammarTooSlow(GrammarFault):
    """Its masks take so long, or so much of a backend's limits, that everybody's answers would wait for them."""

    code = "grammar_too_slow"


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

    def forced_bytes(self) -> bytes:
        """Bytes that every continuation begins with; none where the text may end here."""

    def trial(self, tail: Sequence[int]) -> tuple[torch.Tensor, int]:
        """(masks int32 [n + 1, n_words], n): the mask before each of the `n` leading tokens that are legal, and
        after."""

    @property
    def is_complete(self) -> bool:
        """Whether the answer may end here."""

    @property
    def is_terminated(self) -> bool:
        """Whether the end token was taken."""


class GuardedMatcher:
    """One request's matcher. Whatever it raises becomes a GrammarFault.

    The mask of each position is filled once, always into the same memory, and read once: how many of its words are not
    zero says, for nearly all of them, that neither the end nor a single token is all that may follow. fill_s: seconds
    spent on masks so far.

    Masks of positions that the answer has come to may end the request when they are slow; those that only guesses need
    end the guessing: see `allows_drafts`.
    """

    def __init__(
        self, matcher: TokenMatcher, end_ids: frozenset[int], vocab_size: int, slow_mask_s: float = 0.05
    ) -> None:
        """end_ids: the model's end tokens, which the matcher allows when the answer is complete. slow_mask_s: see
        MaskBudget."""
        self._budget, self._clock = MaskBudget(slow_mask_s), CpuClock(slow_mask_s / 4)
        self._guesses = GuessBudget(slow_mask_s)
        self._matcher, self._end_ids = matcher, end_ids
        self._row = torch.zeros(-(-vocab_size // 32), dtype=torch.int32)
        self._mask = self._row.numpy()  # the same memory
        self._words = self._mask.view(np.uint32)
        self._end_words = np.zeros_like(self._words)
        for end in end_ids:
            self._end_words[end // 32] |= np.uint32(1 << end % 32)
        self._n_end_words = int(np.count_nonzero(self._end_words))
        self._is_filled = False
        self._n_used = 0  # words of the mask that are not zero
        self.fill_s = 0.0

    @property
    def mask(self) -> np.ndarray:
        """What may come next: int32 [n_words]. Filled once for each position, and overwritten by that of the next one;
        nobody else may write into it."""
        if not self._is_filled:
            self._fill()
        return self._mask

    @property
    def allows_drafts(self) -> bool:
        """Whether guesses are worth making: once they are too slow for the backend, or beyond its limits, no token of a
        tail is found legal any more, and no walk takes one."""
        return not self._guesses.is_spent

    @property
    def is_over(self) -> bool:
        """Whether nothing but the end can follow: the end token was taken, or only end tokens are allowed."""
        if not self._is_filled:
            self._fill()
        if self._n_used > self._n_end_words:
            return False
        if self._n_used:
            return not (self._words & ~self._end_words).any()
        if self._call(lambda: self._matcher.is_terminated):
            return True
        raise GrammarFault("the grammar allows no token at all here: a fault of its backend")

    @property
    def is_complete(self) -> bool:
        """Whether what was taken so far satisfies the constraint."""
        return self._call(lambda: self._matcher.is_terminated or self._matcher.is_complete)

    def advance(self, token_id: int) -> None:
        """Take a token that the mask allowed."""
        self._is_filled = False
        try:
            is_legal = self._matcher.advance(token_id)
        except Exception as error:
            raise _fault(error) from error
        if not is_legal:
            raise GrammarFault(f"the grammar's mask allowed token {token_id}, its matcher refused it")

    def masks_along(self, tail: Sequence[int]) -> np.ndarray:
        """The masks before each leading token of `tail` that is legal, and after them: int32 [n_legal + 1, n_words].

        An end token in the tail counts as illegal: nothing could be sampled after it. The state is left as it was.
        """
        own = self.mask  # the answer's own, whatever is guessed
        if not tail or not self.allows_drafts:
            return own[None].copy()  # as the others, it stays what it is
        until = next((i for i, token in enumerate(tail) if token in self._end_ids), len(tail))
        began = self._guesses.begin()
        found, n_legal = self._call(lambda: self._matcher.trial(list(tail[:until])))
        self.fill_s += self._guesses.count(began, len(found))
        masks = found.numpy()
        masks[0] = own  # it may have failed the second time
        if n_legal < until and self._may_follow(masks[n_legal], tail[n_legal]):
            self._guesses.give_up()  # it is no illegal token that ended the trial
        return masks

    def masks_of_tree(self, tokens: Sequence[int], parents: Sequence[int]) -> tuple[np.ndarray, list[bool]]:
        """The masks before a tree of tokens and after each of its nodes, int32 [1 + n, n_words], and which nodes are
        legal; what follows an illegal one is not, and has a mask of zeros.

        parents: of each node, before it, -1 for the position of the matcher. An end token counts as illegal, as in
        `masks_along`. The state is left as it was, whatever happens.
        """
        n = len(tokens)
        masks, is_legal = np.zeros((1 + n, len(self._mask)), dtype=np.int32), [False] * n
        masks[0] = self.mask
        children, depth = children_of(parents), [0] * (1 + n)  # by 1 + node
        walk = self.walk()
        at, todo = 0, list(children.get(-1, ()))
        while todo:  # depth first: whatever is open lies on one path
            node = todo.pop()
            parent = 1 + parents[node]
            if not self._may_follow(masks[parent], tokens[node]):
                continue
            if at > depth[parent]:
                walk.back(at - depth[parent], masks[parent])
                at = depth[parent]
            if walk.advance(tokens[node]):
                at += 1
                depth[1 + node], is_legal[node], masks[1 + node] = at, True, walk.mask
                todo += children.get(node, ())
        walk.close()
        self.note_walk(walk)
        return masks, is_legal

    def legal_nodes(self, tokens: Sequence[int], parents: Sequence[int], masks: np.ndarray) -> list[bool]:
        """Which nodes of a tree are legal by masks that are known, as `masks_of_tree` returns them."""
        is_legal = list[bool]()
        for token, parent in zip(tokens, parents, strict=True):
            is_reached = parent == -1 or (0 <= parent < len(is_legal) and is_legal[parent])
            is_legal.append(is_reached and self._may_follow(masks[1 + parent], token))
        return is_legal

    def _may_follow(self, mask: np.ndarray, token: int) -> bool:
        return allows(mask, token) and token not in self._end_ids

    def walk(self) -> TrialWalk:
        """Lead the matcher along a draft that is being made; nothing else may be asked until the walk is closed. Then
        `note_walk` counts what it took."""
        return TrialWalk(self._matcher, self.mask.copy(), self._end_ids, _fault, self._guesses)

    def note_walk(self, walk: TrialWalk) -> None:
        """Count the time of a walk that is closed."""
        self.fill_s += walk.seconds

    def forced_text(self) -> bytes:
        """Bytes that must come next, as far as the backend sees; they may have several spellings in tokens."""
        try:
            return self._matcher.forced_bytes()
        except MatcherFailed:  # its mask may be found all the same
            return b""
        except Exception as error:
            raise _fault(error) from error

    def only_token(self) -> int | None:
        """The only token that the mask allows, if there is just one and it is no end token."""
        if not self._is_filled:
            self._fill()
        if self._n_used != 1:
            return None
        index = int(self._words.argmax())
        word = int(self._words[index])
        token = index * 32 + word.bit_length() - 1
        return token if word & (word - 1) == 0 and token not in self._end_ids else None

    def _fill(self) -> None:
        began = self._clock.moment()
        try:
            self._matcher.fill_mask(self._row)
        except Exception as error:
            raise _fault(error) from error
        self._n_used = int(np.count_nonzero(self._words))
        self._is_filled = True
        seconds = time.perf_counter() - began
        self.fill_s += seconds
        if seconds >= self._budget.slow_s:
            self._charge(self._clock.spent_since(began))

    def _charge(self, cpu_s: float) -> None:
        if self._budget.is_spent(cpu_s):
            took = f"{1000 * cpu_s:.0f} ms"
            raise GrammarTooSlow(f"a token mask of its constraint took {took}, after other slow ones: simplify it")

    def _call(self, method: Callable[[], T]) -> T:
        try:
            return method()
        except Exception as error:
            raise _fault(error) from error


def children_of(parents: Sequence[int]) -> dict[int, list[int]]:
    """By node, and -1 for what is before all of them, the nodes that follow; those whose parent is no node before them
    follow nothing."""
    children = dict[int, list[int]]()
    for node, parent in enumerate(parents):
        if -1 <= parent < node:
            children.setdefault(parent, []).append(node)
    return children


def _fault(error: Exception) -> GrammarFault:
    if isinstance(error, MatcherFailed) and not str(error).startswith("no answer"):
        return GrammarTooSlow(f"its constraint is too complex at this point of the answer ({error}): simplify it")
    return GrammarFault(f"the grammar's backend failed with {type(error).__name__}: {error}")
