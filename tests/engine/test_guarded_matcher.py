"""The guard around a request's matcher."""

import random
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.guarded_matcher import GrammarFault, GrammarTooSlow, GuardedMatcher
from grammars import Choice, Constraint, FreeText, GrammarCompiler, JsonSchema, MatcherFailed, Tool, ToolCalls
from grammars import Sequence as SequenceOf
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


PERSON = JsonSchema(
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 9}, "days": {"type": "integer", "minimum": 3}},
        "required": ["name", "days"],
        "additionalProperties": False,
    }
)
GRAMMARS: dict[str, tuple[Constraint, str]] = {
    "json": (PERSON, '{"name":"Paris","days":31}'),
    "calls": (
        ToolCalls((Tool("get_weather", parameters=PERSON.schema if isinstance(PERSON.schema, dict) else None),)),
        '[{"name":"get_weather","arguments":{"name":"Zürich","days":4}}]',
    ),
    "thoughts first": (SequenceOf((FreeText("</think>"), PERSON)), 'Is it 東京?</think>{"name":"a","days":3}'),
}
"""Each with a text of it."""


def random_tree(fresh: GuardedMatcher, path: list[int], example: Sequence[int], seed: int) -> tuple[list[int], ...]:
    """Tokens and parents of a tree after a path: mostly along the example, else another legal token, or anything.
    fresh: at the beginning."""
    chance = random.Random(seed)
    tokens, parents, paths = list[int](), list[int](), [path]
    for node in range(chance.randrange(1, 12)):
        parent = chance.choice([node - 1, node - 1, chance.randrange(-1, node)]) if node else -1
        before = paths[parent + 1]
        token, kind = chance.randrange(-2, VOCAB + 40), chance.random()
        if kind < 0.6 and list(example[: len(before)]) == before and len(before) < len(example):
            token = example[len(before)]
        elif kind < 0.9 and (mask := mask_after(fresh, before)) is not None and allowed(mask):
            token = chance.choice(sorted(allowed(mask)))
        tokens.append(token)
        parents.append(parent)
        paths.append([*before, token])
    return tokens, parents


def mask_after(fresh: GuardedMatcher, path: Sequence[int]) -> np.ndarray | None:
    """What may come after a path that does not end the answer; None where it is not legal."""
    matcher = GuardedMatcher(fresh._matcher.fork(), frozenset([END_ID]), VOCAB)  # type: ignore[attr-defined]
    for token in path:
        if token not in allowed(matcher.mask) or token == END_ID:
            return None
        matcher.advance(token)
    return matcher.mask.copy()


@pytest.mark.parametrize("name", GRAMMARS)
@given(st.integers(0, 2**20), st.integers(0, 40))
@settings(max_examples=40)
def test_masks_of_a_tree_are_those_of_taking_each_path_token_by_token(
    compiler: GrammarCompiler, name: str, seed: int, n_taken: int
) -> None:
    """24 and 25, for trees."""
    constraint, text = GRAMMARS[name]
    compiled = compiler.compile(constraint)
    fresh = GuardedMatcher(compiled.matcher(), frozenset([END_ID]), VOCAB)
    matcher = GuardedMatcher(compiled.matcher(), frozenset([END_ID]), VOCAB, slow_mask_s=60)
    example = tokens_of(compiler, text)
    taken = example[: min(n_taken, len(example) - 1)]
    for token in taken:
        matcher.advance(token)
    tokens, parents = random_tree(fresh, taken, example, seed)
    before = matcher.mask.copy()
    masks, is_legal = matcher.masks_of_tree(tokens, parents)
    paths = [taken]
    for node, (token, parent) in enumerate(zip(tokens, parents, strict=True)):
        paths.append([*paths[parent + 1], token])
        expected = mask_after(fresh, paths[-1])
        assert is_legal[node] == (expected is not None)
        assert np.array_equal(masks[node + 1], np.zeros_like(before) if expected is None else expected)
    assert np.array_equal(masks[0], before)
    assert np.array_equal(matcher.mask, before)
    assert matcher.legal_nodes(tokens, parents, masks) == is_legal
    chain = matcher.masks_along(tokens)
    assert np.array_equal(chain[0], before)
    for token in example[len(taken) :]:  # and it goes on as if nothing had been asked
        assert np.array_equal(matcher.mask, mask_after(fresh, taken))
        matcher.advance(token)
        taken = [*taken, token]
    assert matcher.is_complete


class Raising:
    """A matcher that raises in its n-th call from now on, or in none."""

    def __init__(self, matcher: Any) -> None:
        self._matcher, self.left, self.error, self.failed = matcher, 0, RuntimeError("broken"), ""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._matcher, name)
        if not callable(found):
            return found

        def call(*arguments: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                self.failed = name
                raise self.error
            return found(*arguments)

        return call


@pytest.mark.parametrize("error", [RuntimeError("broken"), MatcherFailed("ParserTooComplex")])
def test_a_backend_that_raises_amid_a_tree_leaves_the_state_as_it_was(
    compiler: GrammarCompiler, error: Exception
) -> None:
    constraint, text = GRAMMARS["json"]
    example = tokens_of(compiler, text)
    parents = [-1, 0, 1, 0, 3, -1, 5]
    tokens = [example[0], example[1], example[2], example[1], example[2], example[0], example[1]]
    n_faults = 0
    for fails_at in range(1, 80):
        raising: Any = Raising(compiler.compile(constraint).matcher())
        raising.error = error
        matcher = GuardedMatcher(raising, frozenset([END_ID]), VOCAB, slow_mask_s=60)
        before = matcher.mask.copy()
        raising.left = fails_at
        try:
            matcher.masks_of_tree(tokens, parents)
        except GrammarFault:
            n_faults += 1
        if raising.left > 0:
            break
        raising.left = 0
        row = torch.zeros(len(before), dtype=torch.int32)
        raising._matcher.fill_mask(row)
        if raising.failed != "rollback":
            assert np.array_equal(row.numpy(), before)
    assert n_faults > 2
    assert raising.left > 0


@pytest.mark.parametrize("kind", ["chain", "tree"])
def test_a_guess_beyond_the_limits_ends_the_guessing_and_the_answer_goes_on(
    compiler: GrammarCompiler, kind: str
) -> None:
    constraint, text = GRAMMARS["json"]
    example, failed = tokens_of(compiler, text), set[str]()
    parents = [-1, 0, 1, 2] if kind == "chain" else [-1, 0, 0, 1]
    for fails_at in range(1, 40):
        straight = GuardedMatcher(compiler.compile(constraint).matcher(), frozenset([END_ID]), VOCAB, slow_mask_s=60)
        inner = compiler.compile(constraint).matcher()
        state: Any = Raising(inner._state)
        state.error, inner._state = MatcherFailed("too many states"), state
        matcher = GuardedMatcher(inner, frozenset([END_ID]), VOCAB, slow_mask_s=60)

        def n_legal(matcher: GuardedMatcher) -> int:
            if kind == "chain":
                return len(matcher.masks_along(example[:4])) - 1
            return sum(matcher.masks_of_tree([*example[:2], *example[1:3]], parents)[1])

        expected = n_legal(straight)
        assert expected > 1
        _ = matcher.mask
        state.left = fails_at
        try:
            n_found = n_legal(matcher)
        except GrammarFault:
            assert state.failed == "rollback"
            continue
        if state.left > 0:
            assert matcher.allows_drafts
            break
        state.left = 0
        failed.add(state.failed)
        assert n_found < expected
        assert not matcher.allows_drafts
        assert n_legal(matcher) == 0
        for token in example:
            assert np.array_equal(matcher.mask, straight.mask)
            matcher.advance(token)
            straight.advance(token)
        assert matcher.is_complete
    assert failed == {"advance", "fill"}
    assert state.left > 0


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
