"""Slow masks: some are forgiven, several are not, and what waits for a core is not slow."""

import itertools
import threading
import time
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.guarded_matcher import GrammarFault, GrammarTooSlow, GuardedMatcher
from engine.mask_budget import MaskBudget
from grammars.errors import MatcherFailed


class Laborious:
    """A matcher that allows token 1, after some work."""

    is_terminated = False

    def __init__(self, work: Callable[[], None]) -> None:
        self.work = work

    def fill_mask(self, row: torch.Tensor) -> None:
        self.work()
        row.zero_()
        row[0] = 2

    def advance(self, _token_id: int) -> bool:
        return True

    def rollback(self, _n: int) -> None:
        pass

    def trial(self, tail: list[int]) -> tuple[torch.Tensor, int]:
        rows = torch.zeros(len(tail) + 1, 2, dtype=torch.int32)
        for row in rows:
            self.fill_mask(row)
        return rows, len(tail)


def burn(seconds: float) -> Callable[[], None]:
    def work() -> None:
        began = time.thread_time()
        while time.thread_time() - began < seconds:
            pass

    return work


def filled(work: Callable[[], None], n: int, slow_s: float = 0.01) -> int:
    """How many of `n` masks were filled."""
    matcher = GuardedMatcher(Laborious(work), frozenset([5]), 64, slow_s)
    for i in range(n):
        try:
            _ = matcher.mask
        except GrammarTooSlow:
            return i
        matcher.advance(1)
    return n


def test_the_third_slow_mask_ends_a_request() -> None:
    assert filled(burn(0.015), 9) == 2


def test_a_mask_beyond_hope_ends_a_request_at_once() -> None:
    assert filled(burn(0.11), 9) == 0


def test_waiting_is_not_slow() -> None:
    assert filled(lambda: time.sleep(0.03), 9) == 9


TREE = ([1, 1, 1, 1], [-1, 0, 0, 2])


def followed(matcher: GuardedMatcher, kind: str) -> int:
    """How many of four guesses are followed."""
    if kind == "chain":
        return len(matcher.masks_along([1, 1, 1, 1])) - 1
    if kind == "tree":
        return sum(matcher.masks_of_tree(*TREE)[1])
    walk, n = matcher.walk(), 0
    while n < 4 and walk.advance(1):
        n += 1
    walk.close()
    matcher.note_walk(walk)
    return n


@pytest.mark.parametrize("kind", ["chain", "tree", "walk"])
def test_slow_masks_of_guesses_end_the_guessing_and_not_the_request(kind: str) -> None:
    laborious, n_followed = Laborious(burn(0)), list[int]()
    matcher = GuardedMatcher(laborious, frozenset([5]), 64, 0.01)
    for _ in range(5):
        assert matcher.mask[0] == 2
        laborious.work = burn(0.015)
        n_followed.append(followed(matcher, kind))
        laborious.work = burn(0)
        assert not matcher.allows_drafts
        matcher.advance(1)
    assert n_followed == [4 if kind == "chain" else 3, 0, 0, 0, 0]


@pytest.mark.parametrize("kind", ["chain", "tree", "walk"])
def test_many_masks_that_are_not_slow_are_no_slow_one(kind: str) -> None:
    matcher = GuardedMatcher(Laborious(burn(0.004)), frozenset([5]), 64, 0.02)
    for _ in range(8):
        assert followed(matcher, kind) == 4
        matcher.advance(1)
    assert matcher.allows_drafts


@pytest.mark.parametrize("kind", ["chain", "tree", "walk"])
def test_the_first_mask_of_a_verification_is_the_answers_own(kind: str) -> None:
    matcher = GuardedMatcher(Laborious(burn(0.11)), frozenset([5]), 64, 0.01)
    with pytest.raises(GrammarTooSlow):
        followed(matcher, kind)


def test_what_works_on_another_thread_for_a_guess_is_counted() -> None:
    """As a backend does that is watched."""

    def work() -> None:
        worker = threading.Thread(target=burn(0.03))
        worker.start()
        worker.join()

    laborious = Laborious(burn(0))
    matcher = GuardedMatcher(laborious, frozenset([5]), 64, 0.01)
    assert matcher.mask[0] == 2
    laborious.work = work
    assert followed(matcher, "walk") == 3
    assert not matcher.allows_drafts


def test_waiting_ends_no_guessing() -> None:
    matcher = GuardedMatcher(Laborious(lambda: time.sleep(0.03)), frozenset([5]), 64, 0.02)
    for kind in ("chain", "tree", "walk"):
        assert followed(matcher, kind) == 4
    assert matcher.allows_drafts


@pytest.mark.parametrize(
    ("reason", "code"), [("ParserTooComplex", "grammar_too_slow"), ("no answer can satisfy it", "grammar_fault")]
)
def test_a_backend_at_its_limits_is_too_slow_and_one_without_an_answer_is_at_fault(reason: str, code: str) -> None:
    def fail() -> None:
        raise MatcherFailed(reason)

    with pytest.raises(GrammarFault) as caught:
        _ = GuardedMatcher(Laborious(fail), frozenset([5]), 64).mask
    assert caught.value.code == code


@given(st.lists(st.floats(0, 2), max_size=30))
def test_masks_are_judged_one_by_one(cpu_s: list[float]) -> None:
    budget = MaskBudget(1.0)
    spent = [budget.is_spent(seconds) for seconds in cpu_s]
    slow = [i for i, seconds in enumerate(cpu_s) if seconds >= 1.0]
    assert spent.index(True) == slow[2] if len(slow) > 2 else not any(spent)


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 20)), max_size=20))
def test_masks_that_are_timed_together_are_judged_by_their_share(masks: list[tuple[float, int]]) -> None:
    budget = MaskBudget(1.0)
    spent = [budget.is_spent(share_s * n, n) for share_s, n in masks]
    n_slow = list(itertools.accumulate(n if share_s * n / n >= 1.0 else 0 for share_s, n in masks))
    assert any(spent) == (bool(n_slow) and n_slow[-1] >= 3)
    if any(spent):
        assert spent.index(True) == next(i for i, n in enumerate(n_slow) if n >= 3)
