"""Sequences, alternatives and free text: masks against brute force, budgets of tokens, and what is refused."""

import random
from typing import Any

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
    ConstraintRefused,
    Copied,
    FreeText,
    Grammar,
    GrammarCompiler,
    JsonObject,
    JsonSchema,
    Layout,
    Regex,
    Sequence,
    Tool,
    ToolCalls,
)
from grammars.validation import validate
from tests.grammars.answers import END, draw, legal, takes

CLOSED = JsonSchema(
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
)
LAST = "<end>"
TOKENS = ["a", "b", "<", ">", "ab", "<>", "a<", "<>a", ">b", "b<>", "1", "a<>1", "<<", ">1"]


@pytest.fixture(scope="module")
def tiny() -> GrammarCompiler:
    """Tokens of one to four characters, many of which hold `<>` or a piece of it."""
    vocabulary = {token: i for i, token in enumerate([*TOKENS, LAST])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return GrammarCompiler(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=LAST), deadline_s=60)


# A constraint over a, b, <, > and 1, and the definition of its texts.
SMALL: list[tuple[Constraint, Any]] = [
    (Sequence((FreeText("<>"), Choice(("1",)))), lambda text: text.endswith("<>1") and text.count("<>") == 1),
    (Sequence((FreeText("<<"), Regex("a*"))), lambda text: "<<" in text and set(text.partition("<<")[2]) <= {"a"}),
    (Sequence((FreeText("aba"), FreeText())), lambda text: "aba" in text),
    (Sequence((Regex("a*"), Choice(("ab", "1")))), lambda text: text.lstrip("a") in ("b", "1") and text != "b"),
    (Sequence((Choice(("<", "b")), FreeText(">"), Choice(("1", "a1")))),
     lambda text: text[:1] in ("<", "b") and text[1:].partition(">")[1:] in ((">", "1"), (">", "a1"))),
    (Alternatives((Regex("a+"), Grammar('root ::= "a" root ">" | "b"'), Sequence((FreeText("<"), Choice(("b",)))))),
     lambda text: (text and set(text) == {"a"}) or text.partition("<")[1:] == ("<", "b")
     or (text.count("b") == 1 and text == "a" * text.index("b") + "b" + ">" * text.index("b"))),
    (Sequence((Alternatives((Choice(("a",)), Choice(("ab",)))), Alternatives((Choice(("b",)), Choice(("1",)))))),
     lambda text: text in ("ab", "a1", "abb", "ab1")),
    (Sequence((JsonSchema({"enum": [[], [1]]}), FreeText("<"), Choice(("a", "ab")))), lambda _: False),
]  # fmt: skip


@pytest.mark.parametrize(("constraint", "holds"), SMALL, ids=range(len(SMALL)))
def test_a_mask_allows_exactly_what_some_text_continues_with(
    tiny: GrammarCompiler, constraint: Constraint, holds: Any
) -> None:
    texts = {""}
    for _ in range(7):
        texts |= {text + char for text in texts if len(text) < 7 for char in "ab<>1"}
    sentences = {text for text in texts if holds(text)}
    prefixes = {text[:n] for text in sentences for n in range(len(text) + 1)}
    row = torch.zeros(tiny.n_words, dtype=torch.int32)

    def check(matcher: Any, text: str, reach: int) -> None:
        matcher.fill_mask(row)
        allowed = legal(row)
        assert (len(TOKENS) in allowed) == (text in sentences) == matcher.is_complete, text
        for i, token in enumerate(TOKENS):
            longer = text + token
            if len(longer) <= reach:
                assert (i in allowed) == (longer in prefixes), longer
                if i in allowed:
                    assert matcher.fork().advance(i)
                    assert matcher.advance(i)
                    check(matcher, longer, reach)
                    matcher.rollback(1)
                else:
                    assert not matcher.advance(i)

    if sentences:
        check(tiny.compile(constraint).matcher(), "", 4)
    else:
        with pytest.raises(ConstraintRefused):
            # No token of this vocabulary spells a bracket.
            tiny.compile(constraint)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), budget=st.integers(0, 6))
def test_a_used_up_budget_leaves_the_shortest_way_out_and_never_a_dead_end(
    tiny: GrammarCompiler, seed: int, budget: int
) -> None:
    rng = random.Random(seed)
    matcher = tiny.compile(Sequence((FreeText("<>", budget), Choice(("1",))))).matcher()
    row = torch.zeros(tiny.n_words, dtype=torch.int32)
    text, n_tokens = "", 0
    while not matcher.is_terminated:
        matcher.fill_mask(row)
        token = rng.choice(sorted(legal(row)))
        assert matcher.advance(token)
        if token == len(TOKENS):
            break
        before, text = text, text + TOKENS[token]
        if "<>" not in before:
            n_tokens += 1
            if n_tokens > budget:
                # From here on each byte is one of `<>` that is still missing.
                missing = "<>"[1 if before.endswith("<") else 0 :]
                assert (missing + "1").startswith(TOKENS[token])
    assert text.endswith("<>1")
    assert n_tokens <= budget + 2


def test_the_end_of_a_budget_finishes_a_character_first(compiler: GrammarCompiler) -> None:
    thoughts = Sequence((FreeText("</t>", 4), Choice(("yes", "no"))))
    assert takes(compiler, thoughts, "abcd</t>yes")
    assert takes(compiler, thoughts, "abcé</t>no")
    assert takes(compiler, thoughts, "abc<</t>no") is False, "`<` is a part of the end already"
    assert takes(compiler, thoughts, "abcde</t>no") is False
    assert takes(compiler, FreeText(max_tokens=4), "abcé")
    assert not takes(compiler, FreeText(max_tokens=4), "abcéd")


def test_free_text_is_well_formed_unicode_without_its_end(compiler: GrammarCompiler) -> None:
    matcher = compiler.compile(Sequence((FreeText("。"), CLOSED))).matcher()
    for seed in range(20):
        text = draw(matcher.fork(), random.Random(seed), compiler.n_words, 400)
        if text is not None:
            thoughts, _, answer = text.decode().partition("。")
            assert "。" not in thoughts
            assert validate(CLOSED, answer) is None


MANY: list[Constraint] = [
    Sequence((FreeText("</t>", 5), CLOSED)),
    Sequence((Choice(("<t>",)), FreeText("</t>", 3), ToolCalls((Tool("f"), Tool("g"))))),
    Sequence((FreeText("!", 5), JsonSchema(CLOSED.schema, layout=Layout("indented")))),
    Sequence((FreeText("!", 5), Grammar('root ::= "(" root ")" | [0-9]{1,3}'))),
    Sequence((FreeText("!", 5), Grammar('start: A+\nA: /[xy]/ | "z"', "lark"))),
    Sequence((CLOSED, Choice(("\n",)), CLOSED, FreeText(";"), JsonSchema({"type": "integer"}))),
    Sequence((CLOSED, Grammar('start: "x" rest\nrest: /[a-z]{2}/ | "(" rest ")"', "lark"))),
    Alternatives((CLOSED, Regex("[a-c]{1,4}"), Grammar('root ::= "x" root | "y"'))),
    Alternatives((FreeText("?", 3), Sequence((Regex("[0-9]+"), Choice((".",)))))),
    Sequence((FreeText("!", 3), Alternatives((CLOSED, Choice(("none",)))))),
]


@pytest.mark.parametrize("constraint", MANY, ids=range(len(MANY)))
def test_what_is_drawn_is_judged_right_and_forks_and_rollbacks_leave_no_trace(
    compiler: GrammarCompiler, constraint: Constraint
) -> None:
    compiled = compiler.compile(constraint)
    n_drawn = 0
    for seed in range(12):
        text = draw(compiled.matcher(), random.Random(seed), compiler.n_words, 300)
        if text is None:
            continue
        n_drawn += 1
        assert validate(constraint, text.decode()) is None, text
        tokens = [*text, END]
        matcher = compiled.matcher()
        rows = [_row(compiler, matcher)]
        for token in tokens:
            assert matcher.advance(token)
            rows.append(_row(compiler, matcher))
        for at in (len(tokens) - 1, len(tokens) // 2, 0):
            matcher.rollback(matcher.n_tokens - at)
            assert torch.equal(_row(compiler, matcher), rows[at])
            masks, n_valid = matcher.trial(tokens[at:])
            assert n_valid == len(tokens) - at
            assert torch.equal(masks, torch.stack(rows[at:]))
    assert n_drawn


@pytest.mark.parametrize("constraint", MANY, ids=range(len(MANY)))
def test_forced_bytes_are_what_every_continuation_begins_with(
    compiler: GrammarCompiler, constraint: Constraint
) -> None:
    text = next(
        found
        for seed in range(20)
        if (found := draw(compiler.compile(constraint).matcher(), random.Random(seed), compiler.n_words, 300))
    )
    matcher = compiler.compile(constraint).matcher()
    for byte in text:
        forced = matcher.forced_bytes()
        if forced:
            assert legal(_row(compiler, matcher)) == {forced[0]}
        assert matcher.advance(byte)


def test_strings_after_thoughts_are_copied(compiler: GrammarCompiler) -> None:
    schema = {"type": "object", "properties": {"s": {"type": "string"}}, "required": ["s"]}
    constraint = Sequence((FreeText("!"), Copied(JsonSchema(schema | {"additionalProperties": False}), "Åre")))
    assert takes(compiler, constraint, 'hm!{"s":"Åre"}')
    assert not takes(compiler, constraint, 'hm!{"s":"Oslo"}')
    assert validate(constraint, 'hm!{"s":"Oslo"}') is not None


REFUSED: list[tuple[Constraint, str, str]] = [
    (Sequence(()), "sequence", ""),
    (Alternatives((Choice(("a",)), Sequence(()))), "sequence", "/1/sequence"),
    (Sequence((FreeText(), CLOSED)), "free_text", "/0/free_text"),
    (Sequence((FreeText(""), CLOSED)), "until", "/0/free_text/until"),
    (Sequence((FreeText("a", -1), CLOSED)), "max_tokens", "/0/free_text/max_tokens"),
    (Sequence((CLOSED, FreeText("a", 3))), "max_tokens", "/1/free_text/max_tokens"),
    (Sequence((Regex("a*"), CLOSED)), "sequence", "/0/regex"),
    (Sequence((Choice(("a", "ab")), CLOSED)), "sequence", "/0/choice"),
    (Sequence((JsonSchema({"type": "integer"}), CLOSED)), "schema", "/0/json"),
    (Sequence((CLOSED, Grammar('root ::= "x"'))), "grammar", "/1/grammar"),
    (Sequence((Grammar('start: "x"', "lark"), CLOSED)), "grammar", "/0/grammar"),
    (Sequence((CLOSED, Grammar('%ignore " "\nstart: "x"', "lark"))), "grammar", "/1/grammar"),
    (Sequence((JsonObject(Layout("indented")), CLOSED)), "schema", "/0/json_object"),
    (Sequence((FreeText("!"), JsonSchema({"type": "objec"}))), "type", "/1/json"),
    (Sequence(tuple(Alternatives((Choice(("a",)), Choice(("b",)))) for _ in range(6))), "sequence", ""),
]  # fmt: skip


@pytest.mark.parametrize(("constraint", "keyword", "pointer"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_not_held_exactly_is_refused_by_name_and_place(
    compiler: GrammarCompiler, constraint: Constraint, keyword: str, pointer: str
) -> None:
    with pytest.raises(ConstraintRefused) as caught:
        compiler.compile(constraint)
    assert (caught.value.keyword, caught.value.pointer) == (keyword, pointer)


def test_an_end_that_the_vocabulary_cannot_spell_is_refused(tiny: GrammarCompiler) -> None:
    with pytest.raises(ConstraintRefused, match="cannot be spelled"):
        tiny.compile(Sequence((FreeText("z"), Choice(("1",)))))


def _row(compiler: GrammarCompiler, matcher: Any) -> torch.Tensor:
    row = torch.full((compiler.n_words,), -1, dtype=torch.int32)
    matcher.fill_mask(row)
    return row
