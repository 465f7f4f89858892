"""Slow and endless steps of a grammar: what they cost an answer, and that a mere guess costs it nothing."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from grammars import Grammar, GrammarCompiler
from grammars.errors import MatcherFailed
from grammars.watched import WatchedState, WatchedThreads

SLOW, ENDLESS = 20, 21
SLOW_S, GIVE_UP_S, ENDLESS_S = 0.06, 0.2, 1.2
"""CPU seconds. What is endless goes on for long after it was given up, even where there are too few cores."""


def burn(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


class Counting:
    """Allows the number of tokens taken so far, and two tokens that are slow: to take, or once they were taken."""

    is_accepting = False

    def __init__(self, taken: tuple[int, ...] = (), *, is_mask_slow: bool = False) -> None:
        self.taken, self._is_mask_slow = list(taken), is_mask_slow

    def fill(self, row: torch.Tensor) -> None:
        if self._is_mask_slow and self.taken:
            burn({SLOW: SLOW_S, ENDLESS: ENDLESS_S}.get(self.taken[-1], 0.0))
        row.zero_()
        row[0] = 1 << len(self.taken) | 1 << SLOW | 1 << ENDLESS

    def advance(self, token_id: int) -> bool:
        if not self._is_mask_slow:
            burn({SLOW: SLOW_S, ENDLESS: ENDLESS_S}.get(token_id, 0.0))
        if token_id not in (len(self.taken), SLOW, ENDLESS):
            return False
        self.taken.append(token_id)
        return True

    def rollback(self, n: int) -> None:
        del self.taken[len(self.taken) - n :]

    def fork(self) -> "Counting":
        return Counting(tuple(self.taken), is_mask_slow=self._is_mask_slow)

    def forced_bytes(self) -> bytes:
        return bytes(self.taken)


def watched(*, is_mask_slow: bool = False) -> WatchedState:
    return WatchedState(Counting(is_mask_slow=is_mask_slow), WatchedThreads(give_up_s=GIVE_UP_S))


def mask(state: WatchedState) -> int:
    row = torch.zeros(1, dtype=torch.int32)
    state.fill(row)
    return int(row[0])


def own(n_taken: int) -> int:
    return 1 << n_taken | 1 << SLOW | 1 << ENDLESS


def guess(state: WatchedState, token: int) -> bool:
    """Whether a token and the mask after it were found in time; it is taken back then."""
    try:
        assert state.advance(token)
    except MatcherFailed:
        return False
    try:
        mask(state)
    except MatcherFailed:
        return False
    finally:
        state.rollback(1)
    return True


@pytest.mark.parametrize("is_mask_slow", [False, True])
def test_the_third_slow_place_ends_an_answer_and_a_step_that_raises_is_not_taken(is_mask_slow: bool) -> None:
    state = watched(is_mask_slow=is_mask_slow)
    for _ in range(2):
        assert state.advance(SLOW)
        assert mask(state) == own(len(state.forced_bytes()))
    with pytest.raises(MatcherFailed, match="as others did before"):
        assert state.advance(SLOW) and mask(state)  # noqa: PT018
    assert state.forced_bytes() == bytes([SLOW, SLOW] + [SLOW] * is_mask_slow)


@pytest.mark.parametrize("is_mask_slow", [False, True])
@pytest.mark.parametrize(("token", "expected"), [(SLOW, [True] * 5), (ENDLESS, [False])])
def test_guesses_that_are_too_slow_leave_the_answer_as_it_was(
    token: int,
    expected: list[bool],
    is_mask_slow: bool,
) -> None:
    state = watched(is_mask_slow=is_mask_slow)
    assert state.advance(0)
    for is_found in expected:
        assert guess(state, token) == is_found
        assert mask(state) == own(1)
    for taken in range(1, 6):  # and it goes on, as if nothing had been asked
        assert state.advance(taken)
        assert mask(state) == own(taken + 1)
    assert state.forced_bytes() == bytes(range(6))


def test_a_guess_beyond_the_strikes_is_not_taken_and_spends_none() -> None:
    state = watched()
    assert state.advance(SLOW)
    assert state.advance(SLOW)
    for _ in range(3):
        assert not guess(state, SLOW)
        assert mask(state) == own(2)
    assert state.advance(2)


def test_after_a_step_that_was_given_up_copies_and_ways_back_go_on_from_the_same_place() -> None:
    state = watched()
    for token in range(3):
        assert state.advance(token)
    assert not guess(state, ENDLESS)
    copy = state.fork()
    state.rollback(2)
    assert (mask(state), state.forced_bytes()) == (own(1), bytes(range(1)))
    assert (mask(copy), copy.forced_bytes()) == (own(3), bytes(range(3)))


class Tiring(Counting):
    """Its copies take endlessly long for any step, as long as it is tired."""

    is_tired = False

    def advance(self, token_id: int) -> bool:
        burn(ENDLESS_S if self.is_tired else 0)
        return super().advance(token_id)

    def fork(self) -> "Tiring":
        copy = Tiring(tuple(self.taken))
        copy.is_tired = self.is_tired
        return copy


def test_an_answer_that_cannot_be_led_back_in_time_fails_and_never_stands_elsewhere() -> None:
    start = Tiring()
    state = WatchedState(start, WatchedThreads(give_up_s=GIVE_UP_S / 2))
    assert state.advance(0)
    assert not guess(state, ENDLESS)
    start.is_tired = True
    with pytest.raises(MatcherFailed, match="takes more than"):
        mask(state)
    start.is_tired = False
    assert mask(state) == own(1)


def given_up_once(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[[], bool]:
    """The call number `at` from now on is given up, whatever it is. Returns whether that has happened."""
    call, left = WatchedThreads.call, at

    def patched(self: WatchedThreads, work: Callable[[], Any], patience: float = 1) -> Any:
        nonlocal left
        left -= 1
        if left == -1:
            call(work=work, self=self)
            raise MatcherFailed("given up")
        return call(self, work, patience)

    monkeypatch.setattr(WatchedThreads, "call", patched)
    return lambda: left < 0


@pytest.mark.parametrize("at", range(7))
def test_a_trial_in_which_a_step_is_given_up_leaves_no_trace(
    compiler: GrammarCompiler, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b"[1,[2,33],4]"
    grammar = Grammar('root ::= "[" item ("," item)* "]"\nitem ::= [0-9]{1,2} | root')
    compiled = compiler.compile(grammar)
    assert compiled.backend == "xgrammar"
    matcher, straight = compiled.matcher(), compiled.matcher()
    for byte in text[:4]:
        assert matcher.advance(byte)
        assert straight.advance(byte)
    expected, n_expected = straight.trial(text[4:7])
    with monkeypatch.context() as patch:
        has_failed = given_up_once(patch, at)
        masks, n_legal = matcher.trial(text[4:7])
        assert has_failed()
    assert n_expected == 3
    assert n_legal < 3
    assert at == 0 or torch.equal(masks, expected[: n_legal + 1])
    row, right = torch.zeros(compiler.n_words, dtype=torch.int32), torch.zeros(compiler.n_words, dtype=torch.int32)
    for byte in text[4:]:
        matcher.fill_mask(row)
        straight.fill_mask(right)
        assert torch.equal(row, right)
        assert matcher.advance(byte)
        assert straight.advance(byte)
    assert matcher.is_complete
