"""Slow masks: some are forgiven, several are not, and what waits for a core is not slow."""

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
        self._work = work

    def fill_mask(self, row: torch.Tensor) -> None:
        self._work()
        row.zero_()
        row[0] = 2

    def advance(self, _token_id: int) -> bool:
        return True

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


def test_slow_masks_of_a_draft_count_as_well() -> None:
    matcher = GuardedMatcher(Laborious(burn(0.015)), frozenset([5]), 64, 0.01)
    with pytest.raises(GrammarTooSlow):
        matcher.masks_along([1, 1, 1])


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
