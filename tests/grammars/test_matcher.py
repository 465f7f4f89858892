"""Masks against brute force over a tiny vocabulary, and the ways back."""

import itertools
import json
import random
import re
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from grammars import (
    Alternatives,
    Choice,
    Constraint,
    Copied,
    FreeText,
    Grammar,
    GrammarCompiler,
    JsonSchema,
    Layout,
    Regex,
)
from grammars import Sequence as SequenceOf
from grammars.errors import MatcherFailed
from grammars.llguidance_backend import LLGuidanceBackend, LLGuidanceState
from grammars.tracking.position import Position
from tests.grammars.answers import END, draw, legal

TINY = ["{", "}", '"', '"a', '":', "a", "b", ",", "1", "0", '{"', "[", "]", "11", "ab"]
TINY_END = len(TINY) + 1
BACKENDS: list[tuple[str, Constraint]] = [
    ("llguidance", JsonSchema({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})),
    ("xgrammar", Grammar('root ::= "[" item ("," item)* "]"\nitem ::= [0-9]{1,2} | root')),
    ("llguidance", Grammar('start: "[" item ("," item)* "]"\nitem: /[0-9]{1,2}/ | start', "lark")),
    ("outlines", Regex("(a|bc)+[0-9]?")),
    ("llguidance", Regex(r"[a-z ]{1,300}")),
    ("outlines", Choice(("yes", "no", "note"))),
]


@pytest.fixture(scope="module")
def tiny() -> GrammarCompiler:
    """Fifteen tokens of one to two characters, a special token, an end token and padding up to 40 logits."""
    pad, end = "<pad>", "<end>"
    vocabulary = {token: i for i, token in enumerate([*TINY, pad, end])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end, pad_token=pad)
    return GrammarCompiler(tokenizer, vocab_size=40, deadline_s=60)


def _sentences(alphabet: str, most: int, holds: Callable[[str], bool]) -> set[str]:
    texts = ("".join(chars) for n in range(most + 1) for chars in itertools.product(alphabet, repeat=n))
    return {text for text in texts if holds(text)}


def _is_valid(schema: Any) -> Callable[[str], bool]:
    judge = jsonschema_rs.Draft202012Validator(schema)

    def holds(text: str) -> bool:
        try:
            value = json.loads(text)
        except ValueError:
            return False
        return judge.is_valid(value) and json.dumps(value, separators=(",", ":")) == text

    return holds


# constraint, the characters of its sentences, their listed length, the length up to which every continuation is listed
SMALL: list[tuple[Constraint, str, int, int, Callable[[str], bool]]] = [
    (Regex("a*b|1{2,3}"), "ab1", 7, 5, lambda text: re.fullmatch("a*b|1{2,3}", text) is not None),
    (Choice(("a", "ab", "0")), "ab01", 4, 4, lambda text: text in ("a", "ab", "0")),
    (JsonSchema({"type": "integer", "minimum": 0, "maximum": 110}), "10", 4, 4, _is_valid({"type": "integer",
     "maximum": 110})),
    (JsonSchema({"type": "array", "items": {"enum": [0, 1]}, "maxItems": 2}), "[]01,", 6, 5,
     _is_valid({"items": {"enum": [0, 1]}, "maxItems": 2, "type": "array"})),
    (JsonSchema({"type": "string", "maxLength": 2}), '"ab:,{}[]01', 4, 4, _is_valid({"type": "string",
     "maxLength": 2})),
    (Grammar('root ::= "a" root "b" | "1"'), "ab1", 7, 3, lambda text: re.fullmatch("(a*)1(b*)",
     text) is not None and text.count("a") == text.count("b")),
]  # fmt: skip


@pytest.mark.parametrize(("constraint", "alphabet", "most", "reach", "holds"), SMALL, ids=range(len(SMALL)))
def test_a_mask_allows_exactly_the_tokens_that_some_sentence_continues_with(
    tiny: GrammarCompiler, constraint: Constraint, alphabet: str, most: int, reach: int, holds: Callable[[str], bool]
) -> None:
    sentences = _sentences(alphabet, most, holds)
    assert sentences
    row = torch.zeros(tiny.n_words, dtype=torch.int32)

    def check(matcher: Any, text: str) -> None:
        matcher.fill_mask(row)
        allowed = legal(row)
        assert allowed <= {*range(len(TINY)), TINY_END}
        assert (TINY_END in allowed) == (text in sentences) == matcher.is_complete
        for i, token in enumerate(TINY):
            longer = text + token
            if len(longer) <= reach:
                assert (i in allowed) == any(sentence.startswith(longer) for sentence in sentences), longer
                if i in allowed:
                    assert matcher.advance(i)
                    check(matcher, longer)
                    matcher.rollback(1)

    check(tiny.compile(constraint).matcher(), "")


@pytest.mark.parametrize(("backend", "constraint"), BACKENDS, ids=range(len(BACKENDS)))
def test_every_backend_takes_back_forks_and_tries_without_a_trace(
    compiler: GrammarCompiler, backend: str, constraint: Constraint
) -> None:
    compiled = compiler.compile(constraint)
    assert compiled.backend == backend

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(seed=st.integers(0, 2**32), junk=st.lists(st.integers(0, 299), max_size=4), cut=st.floats(0, 1))
    def check(seed: int, junk: list[int], cut: float) -> None:
        text = draw(compiled.matcher(), random.Random(seed), compiler.n_words)
        if text is None:
            return
        tokens = [*text, END]
        straight, other = compiled.matcher(), compiled.matcher()
        rows = [_row(compiler, straight)]
        for token in tokens:
            assert straight.advance(token)
            rows.append(_row(compiler, straight))
        assert straight.is_terminated
        assert not rows[-1].any()
        assert not straight.advance(tokens[0])
        at = int(cut * len(tokens))
        straight.rollback(len(tokens) - at)
        assert torch.equal(_row(compiler, straight), rows[at])
        # a fork goes its own way
        fork = straight.fork()
        for token in tokens[at:]:
            assert fork.advance(token)
        assert fork.is_terminated
        assert torch.equal(_row(compiler, straight), rows[at])
        # a trial says how much of a draft is legal, and leaves no trace
        masks, n_valid = straight.trial([*tokens[at:], *junk])
        assert n_valid == len(tokens) - at
        assert torch.equal(masks, torch.stack(rows[at:]))
        assert torch.equal(_row(compiler, straight), rows[at])
        masks, n_valid = straight.trial(junk)
        taken = 0
        for token in tokens[:at]:
            assert other.advance(token)
        for token in junk:
            if not other.advance(token):
                break
            taken += 1
        assert n_valid == taken
        assert masks.shape == (taken + 1, compiler.n_words)
        assert torch.equal(_row(compiler, straight), rows[at])

    check()


@pytest.mark.parametrize(("backend", "constraint"), BACKENDS, ids=range(len(BACKENDS)))
def test_an_illegal_token_is_refused_and_changes_nothing(
    compiler: GrammarCompiler, backend: str, constraint: Constraint
) -> None:
    matcher = compiler.compile(constraint).matcher()
    before = _row(compiler, matcher)
    for token in sorted(set(range(-1, 305)) - legal(before)):
        assert not matcher.advance(token), (backend, token)
    assert matcher.n_tokens == 0
    assert torch.equal(_row(compiler, matcher), before)


def _row(compiler: GrammarCompiler, matcher: Any) -> torch.Tensor:
    row = torch.full((compiler.n_words,), -1, dtype=torch.int32)
    matcher.fill_mask(row)
    return row


def test_forced_names_a_token_only_when_it_is_the_only_one(compiler: GrammarCompiler) -> None:
    matcher = compiler.compile(Choice(("note", "no"))).matcher()
    path: list[int | None] = []
    while not matcher.is_terminated:
        path.append(matcher.forced())
        assert (path[-1] is not None) == (len(legal(_row(compiler, matcher))) == 1)
        assert matcher.advance(ord("t") if path[-1] is None else path[-1])
    assert path == [ord("n"), ord("o"), None, ord("e"), END]


@pytest.mark.parametrize(("backend", "constraint"), BACKENDS, ids=range(len(BACKENDS)))
def test_forced_bytes_are_what_every_continuation_begins_with(
    compiler: GrammarCompiler, backend: str, constraint: Constraint
) -> None:
    matcher = compiler.compile(constraint).matcher()
    text = draw(compiler.compile(constraint).matcher(), random.Random(3), compiler.n_words)
    assert text is not None
    for byte in text:
        for forced in matcher.forced_bytes():
            assert legal(_row(compiler, matcher)) == {forced}, backend
            break
        assert matcher.advance(byte)
    assert matcher.forced_bytes() == b""


def test_a_mask_holds_every_spelling_in_tokens_of_a_forced_text(tiny: GrammarCompiler) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    matcher = tiny.compile(JsonSchema(schema)).matcher()
    assert matcher.forced_bytes() == b'{"a":'
    assert legal(_row(tiny, matcher)) == {TINY.index("{"), TINY.index('{"')}
    assert matcher.forced() is None


def test_more_than_can_be_taken_back_is_an_error(compiler: GrammarCompiler) -> None:
    matcher = compiler.compile(Choice(("ab",))).matcher()
    assert matcher.advance(ord("a"))
    with pytest.raises(ValueError, match="roll back 2"):
        matcher.rollback(2)
    matcher.rollback(0)
    matcher.rollback(1)
    assert matcher.advance(ord("a"))


@pytest.mark.parametrize(
    "row", [torch.zeros(9, dtype=torch.int32), torch.zeros(10), torch.zeros(20, dtype=torch.int32)[::2]]
)
def test_a_row_of_another_shape_or_kind_is_an_error(compiler: GrammarCompiler, row: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="mask row"):
        compiler.compile(Choice(("ab",))).matcher().fill_mask(row)


def test_what_a_draft_uses_up_of_the_limits_is_not_the_answers_loss(tiny: GrammarCompiler) -> None:
    import llguidance

    lark = "start: /[ab1]{3,20}0[1]{2,30}/ | /(a|b|ab){2,30},/"
    limits = llguidance.LLParserLimits(max_lexer_states=30)
    backend = LLGuidanceBackend(tiny._vocabulary, limits)
    state, row = backend.compile(lark), torch.zeros(2, dtype=torch.int32)
    free = LLGuidanceBackend(tiny._vocabulary).compile(lark)
    drafted = [TINY.index(char) for char in "abababababababab"]
    answer = [TINY.index(char) for char in "aa1"]
    for token in answer:
        assert state.advance(token)
        assert free.advance(token)
    taken = list[bool]()

    def draft() -> None:
        for token in drafted:
            state.fill(row)
            taken.append(state.advance(token))

    with pytest.raises(MatcherFailed, match="too many states"):
        draft()
    assert all(taken)
    state.rollback(len(taken))
    expected = torch.zeros(2, dtype=torch.int32)
    state.fill(row)
    free.fill(expected)
    assert row.tolist() == expected.tolist()
    assert state.advance(TINY.index("0"))


TAGS = JsonSchema({"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2, "uniqueItems": True})
WRAPPED: dict[str, tuple[Constraint, str]] = {
    "plain": (JsonSchema({"type": "array", "items": {"type": "integer"}}), "[1,23]"),
    "a rule": (TAGS, '["a","b"]'),
    "a layout": (JsonSchema({"type": "object"}, layout=Layout("indented", 1)), '{\n "a": [\n  1\n ]\n}'),
    "a source": (Copied(JsonSchema({"type": "array", "items": {"type": "string"}}), "one two"), '["one","wo"]'),
    "alternatives": (Alternatives((JsonSchema({"type": "array", "items": {"type": "string"}}), TAGS)), '["a","b"]'),
    "a prelude": (SequenceOf((FreeText("</t>"), TAGS)), 'why</t>["b","a"]'),
}
"""Each state that stands before another one, and a text that leads through it."""


class OutOfLimits:
    """Lets its n-th call from now on end in MatcherFailed, before it does anything."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.left = -1
        for owner, name in [(LLGuidanceState, "fill"), (LLGuidanceState, "advance"), (Position, "read")]:
            patch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise MatcherFailed("too many states")
            return method(*arguments)

        return call


@pytest.mark.parametrize("name", WRAPPED)
def test_a_step_beyond_the_limits_leaves_every_state_where_it_was(
    compiler: GrammarCompiler, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    constraint, text = WRAPPED[name]
    matcher = compiler.compile(constraint).matcher()
    limits, n_failed = OutOfLimits(monkeypatch), 0
    for byte in text.encode():
        before = _row(compiler, matcher)
        for fails_at in itertools.count(1):
            fork = matcher.fork()
            limits.left = fails_at
            try:
                is_legal = matcher.advance(byte)
            except MatcherFailed:
                n_failed += 1
                assert torch.equal(_row(compiler, matcher), before)
                assert matcher.forced_bytes() == fork.forced_bytes()
                assert matcher.is_complete == fork.is_complete
                continue
            limits.left = -1
            assert is_legal
            assert fork.advance(byte)
            assert torch.equal(_row(compiler, matcher), _row(compiler, fork))
            break
    assert matcher.is_complete
    assert n_failed >= 2


def test_a_trial_whose_first_mask_fails_is_no_reason_to_forbid_everything(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    matcher, expected = (compiler.compile(WRAPPED["plain"][0]).matcher() for _ in range(2))
    with monkeypatch.context() as patch:
        OutOfLimits(patch).left = 1
        masks, n_valid = matcher.trial(b"[1")
        assert (masks.any(), n_valid) == (False, 0)
    assert torch.equal(_row(compiler, matcher), _row(compiler, expected))
