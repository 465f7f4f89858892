"""The guard around a request's matcher."""

import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.guarded_matcher import GrammarFault, GrammarTooSlow, GuardedMatcher
from grammars import Choice, GrammarCompiler
from tests.engine.checkpoints import END_ID, build_tokenizer

VOCAB = 512


class HfTokenizer:
    """What GrammarCompiler asks of an engine's tokenizer."""

    def __init__(self) -> None:
        from transformers import PreTrainedTokenizerFast

        self.hf = PreTrainedTokenizerFast(tokenizer_object=build_tokenizer(), eos_token="<|im_end|>")  # noqa: S106


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    return GrammarCompiler(HfTokenizer(), vocab_size=VOCAB, stop_token_ids=[END_ID], deadline_s=60)


def guarded(compiler: GrammarCompiler, *choices: str) -> GuardedMatcher:
    return GuardedMatcher(compiler.compile(Choice(choices)).matcher(), frozenset([END_ID]), VOCAB)


def tokens_of(compiler: GrammarCompiler, text: str) -> list[int]:
    return compiler._vocabulary.hf.encode(text, add_special_tokens=False)


def allowed(mask: np.ndarray) -> set[int]:
    return set(np.unpackbits(mask.view(np.uint8), bitorder="little").nonzero()[0].tolist())


class Scripted:
    """A matcher whose mask holds the given tokens."""

    is_terminated = False

    def __init__(self, tokens: set[int]) -> None:
        self._tokens = tokens

    def fill_mask(self, row: torch.Tensor) -> None:
        row.zero_()
        for token in self._tokens:
            row.numpy().view(np.uint32)[token // 32] |= np.uint32(1 << token % 32)


def test_the_only_token_is_what_single_bit_masks_spell_and_reading_it_changes_nothing(
    compiler: GrammarCompiler,
) -> None:
    matcher = guarded(compiler, "ÞΩ only", "ÞΩ out")  # two letters that are spelt byte by byte, then a choice
    run = []
    while (token := matcher.only_token()) is not None:
        assert allowed(matcher.mask) == {token}
        assert matcher.only_token() == token
        matcher.advance(token)
        run.append(token)
    assert len(allowed(matcher.mask)) > 1
    assert compiler._vocabulary.hf.decode(run).strip() == "ÞΩ"


@given(st.sets(st.integers(0, VOCAB - 1), min_size=1, max_size=4), st.sets(st.integers(0, VOCAB - 1), max_size=3))
def test_a_mask_says_what_its_bits_say(tokens: set[int], ends: set[int]) -> None:
    matcher = GuardedMatcher(Scripted(tokens), frozenset(ends), VOCAB)
    only = next(iter(tokens)) if len(tokens) == 1 and not tokens & ends else None
    assert matcher.only_token() == only
    assert matcher.is_over == (tokens <= ends)
    assert allowed(matcher.mask) == tokens


def test_masks_along_a_tail_are_those_of_taking_it_token_by_token(compiler: GrammarCompiler) -> None:
    matcher = guarded(compiler, "abcd", "abce")
    tokens = tokens_of(compiler, "abce")
    masks = matcher.masks_along([*tokens[:2], 3, tokens[2]])  # 3 is a control token: never legal
    replay = guarded(compiler, "abcd", "abce")
    for i, mask in enumerate(masks):
        assert np.array_equal(mask, replay.mask)
        if i < len(masks) - 1:
            replay.advance(tokens[i])
    assert len(masks) <= 3


def test_an_end_token_in_a_tail_is_not_followed(compiler: GrammarCompiler) -> None:
    matcher = guarded(compiler, "a", "ab")
    [token] = tokens_of(compiler, "a")
    assert len(matcher.masks_along([token, END_ID, token])) == 2
    assert not matcher.is_complete


def test_an_answer_is_over_once_only_the_end_may_follow(compiler: GrammarCompiler) -> None:
    matcher = guarded(compiler, "a", "ab")
    a, b = (tokens_of(compiler, letter)[0] for letter in "ab")
    matcher.advance(a)
    assert (matcher.is_complete, matcher.is_over) == (True, False)
    matcher.advance(b)
    assert (matcher.is_complete, matcher.is_over) == (True, True)
    matcher.advance(END_ID)
    assert (matcher.is_complete, matcher.is_over) == (True, True)


def test_a_token_that_the_matcher_refuses_is_a_fault(compiler: GrammarCompiler) -> None:
    with pytest.raises(GrammarFault, match="its matcher refused it"):
        guarded(compiler, "a").advance(3)


class Broken:
    """A matcher whose every call fails."""

    def __getattr__(self, name: str) -> Any:
        raise MemoryError(name)


def test_a_mask_without_any_token_is_a_fault() -> None:
    with pytest.raises(GrammarFault, match="no token at all"):
        _ = GuardedMatcher(Scripted(set()), frozenset([END_ID]), VOCAB).is_over


@pytest.mark.parametrize("call", ["only_token", "advance", "masks_along"])
def test_whatever_a_backend_raises_is_a_fault_of_the_request(call: str) -> None:
    matcher = GuardedMatcher(Broken(), frozenset([END_ID]), VOCAB)
    arguments: dict[str, list[Any]] = {"only_token": [], "advance": [1], "masks_along": [[1]]}
    with pytest.raises(GrammarFault, match="failed with MemoryError"):
        getattr(matcher, call)(*arguments[call])


class Busy(Scripted):
    """A matcher whose masks take so many seconds, of the processor's or merely by the clock."""

    def __init__(self, seconds: float, *, sleeps: bool) -> None:
        super().__init__({1, 2})
        self.seconds, self._sleeps = seconds, sleeps

    def advance(self, _token_id: int) -> bool:
        return True

    def fill_mask(self, row: torch.Tensor) -> None:
        super().fill_mask(row)
        if self._sleeps:
            time.sleep(self.seconds)
        else:
            until = time.thread_time() + self.seconds
            while time.thread_time() < until:
                pass


def n_masks(matcher: GuardedMatcher, at_most: int) -> int:
    """How many masks are filled before the guard has had enough."""
    for n in range(at_most):
        try:
            _ = matcher.mask
        except GrammarTooSlow:
            return n
        matcher.advance(1)
    return at_most


def test_slow_masks_end_their_request_and_waiting_for_the_processor_does_not() -> None:
    ends = frozenset([END_ID])
    assert n_masks(GuardedMatcher(Busy(0.02, sleeps=False), ends, VOCAB, slow_mask_s=0.01), 9) == 2
    assert n_masks(GuardedMatcher(Busy(0.2, sleeps=False), ends, VOCAB, slow_mask_s=0.01), 9) == 0
    assert n_masks(GuardedMatcher(Busy(0.02, sleeps=True), ends, VOCAB, slow_mask_s=0.01), 9) == 9
    assert n_masks(GuardedMatcher(Busy(0.0, sleeps=False), ends, VOCAB, slow_mask_s=0.01), 9) == 9
