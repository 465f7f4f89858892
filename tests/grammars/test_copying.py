"""Copied strings: masks against brute force, answers against a plain search in the text, and what stays untouched."""

import json
import random
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmarks.tokenizers import load_tokenizer
from grammars import (
    ConstraintRefused,
    Copied,
    GrammarCompiler,
    JsonObject,
    JsonSchema,
    Layout,
    Matcher,
    Tool,
    ToolCalls,
)
from grammars.free_strings import FreeStrings
from grammars.limits import Limits
from grammars.validation import validate
from tests.grammars.answers import legal, takes, takes_json

BUNDLED = Path(__file__).parents[2] / "bundled_models" / "large" / "tokenizer.json"
STRING = {"type": "string"}
CALL = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "where to"},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 1, "maxItems": 2},
        "unit": {"enum": ["metric", "imperial"]},
    },
    "required": ["city", "tags", "unit"],
    "additionalProperties": False,
    "$defs": {"tag": STRING},
}
TOOLS = ToolCalls((Tool("plan", parameters=CALL), Tool("note", parameters={"properties": {"it": STRING}})), "required")
TINY = [
    *'[]{}",:abxks\\n', '["', '","', '"]', "ab", 'a"', '\\"', "b\\", '":"', '"a', '"b"', '""', "bx", '"}', '{"s":"',
    '"]x',
]  # fmt: skip


def tiny_compiler() -> GrammarCompiler:
    """Tokens that begin, hold, end and cross strings, quotes and escapes."""
    vocabulary = {token: i for i, token in enumerate([*TINY, "<end>"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")  # noqa: S106
    return GrammarCompiler(tokenizer, vocab_size=50, deadline_s=60)


@pytest.fixture(scope="module")
def tiny() -> GrammarCompiler:
    return tiny_compiler()


@pytest.fixture(scope="module")
def bpe() -> GrammarCompiler:
    return GrammarCompiler(load_tokenizer(BUNDLED, "<|end|>"), deadline_s=60)


def parts(text: str) -> set[str]:
    return {text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1)}


def pairs(values: set[str]) -> list[list[str]]:
    """Every list of one or two."""
    return [*([one] for one in values), *([one, two] for one in values for two in values)]


def mask(matcher: Matcher, n_words: int) -> set[int]:
    row = torch.zeros(n_words, dtype=torch.int32)
    matcher.fill_mask(row)
    return legal(row)


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


PAIR = {"type": "array", "items": STRING, "minItems": 1, "maxItems": 2}
MEMBERS = {
    "type": "object",
    "properties": {"k": {"enum": ["b", "xx"]}, "s": STRING},
    "required": ["k", "s"],
    "additionalProperties": False,
}
BRUTE: list[tuple[str, Any, list[Any]]] = [
    ('ab"x', PAIR, pairs(parts('ab"x'))),
    ("a\\n\nb", PAIR, pairs(parts("a\\n\nb"))),
    ("abxab", MEMBERS, [{"k": k, "s": p} for k in ("b", "xx") for p in parts("abxab")]),
    ('b\\"a', STRING, list(parts('b\\"a'))),
]  # fmt: skip


@pytest.mark.parametrize(("text", "schema", "values"), BRUTE, ids=range(len(BRUTE)))
def test_a_mask_allows_exactly_the_tokens_that_some_copied_answer_continues_with(
    tiny: GrammarCompiler, text: str, schema: Any, values: list[Any]
) -> None:
    answers = [compact(value) for value in values]
    prefixes = {answer[:n] for answer in answers for n in range(len(answer) + 1)}
    seen: set[str] = set()

    def check(matcher: Matcher, said: str) -> None:
        seen.add(said)
        allowed = mask(matcher, tiny.n_words)
        assert allowed - {len(TINY)} == {i for i, token in enumerate(TINY) if said + token in prefixes}, said
        assert (len(TINY) in allowed) == (said in answers)
        for i, token in enumerate(TINY):
            takes_it = i in allowed and said + token not in seen
            assert matcher.advance(i) == (i in allowed)
            if takes_it:
                check(matcher, said + token)
            if i in allowed:
                matcher.rollback(1)

    check(tiny.compile(Copied(JsonSchema(schema), text)).matcher(), "")
    assert seen == prefixes, "every character is a token, so every beginning of an answer is met"


def walk(matcher: Matcher, n_words: int, spell: list[bytes], end: int, rng: random.Random) -> bytes:
    """A random answer: any legal token at first, later the shortest way out."""
    out, step = b"", 0
    while True:
        allowed = mask(matcher, n_words)
        assert allowed, out
        if end in allowed:
            assert matcher.advance(end)
            return out
        closing = [i for i in allowed if spell[i][:1] in (b'"', b"]", b"}")] if step > 60 else []
        token = rng.choice(sorted(closing or allowed))
        assert matcher.advance(token)
        out, step = out + spell[token], step + 1
        assert step < 1_000


def assert_copied(constraint: Copied, answer: str) -> None:
    """By hand: the calls satisfy their schemas, and what is free occurs in the text."""
    judge = jsonschema_rs.Draft202012Validator(CALL)
    for call in json.loads(answer):
        arguments = call["arguments"]
        free = [arguments["it"]] if "it" in arguments else []
        if call["name"] == "plan":
            judge.validate(arguments)
            free = [arguments["city"], *arguments["tags"]]
        assert all(value and value in constraint.text for value in free)
    assert validate(constraint, answer) is None


TEXTS = st.text(st.sampled_from("ab é😀\u3042\"\\/\n\t\r\x01\x7f'{}[],:") | st.characters(codec="utf-8"), max_size=30)
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("vocabulary", ["bytes", "bpe"])
def test_whatever_is_drawn_satisfies_the_schema_and_occurs_in_the_text(
    compiler: GrammarCompiler, bpe: GrammarCompiler, vocabulary: str
) -> None:
    used = compiler if vocabulary == "bytes" else bpe
    spell = used._backend("llguidance").spellings.by_id
    end = 256 if vocabulary == "bytes" else load_tokenizer(BUNDLED, "<|end|>").eos_token_id

    @QUICK
    @given(text=TEXTS, seed=st.integers(0, 2**32))
    @example(text='Fly from "Zürich"\nto Åre 😀', seed=1)
    def check(text: str, seed: int) -> None:
        constraint = Copied(TOOLS, text)
        if all((char < " " and char not in "\n\t\r\b\f") or char == "\x7f" for char in text):
            with pytest.raises(ConstraintRefused, match="copy_strings"):
                used.compile(constraint)
            return
        answer = walk(used.compile(constraint).matcher(), used.n_words, spell, end, random.Random(seed))
        assert_copied(constraint, answer.decode())

    check()


@QUICK
@given(text=st.text(st.sampled_from('aé😀"\\\n\t\r\b/ '), min_size=1, max_size=12), data=st.data())
def test_every_part_of_the_text_is_legal_and_nothing_else(text: str, data: Any, compiler: GrammarCompiler) -> None:
    constraint = Copied(JsonSchema(STRING), text)
    value = data.draw(st.sampled_from(sorted(parts(text))))
    assert takes(compiler, constraint, compact(value))
    other = data.draw(st.text(st.sampled_from('aé😀"\\\n\t'), max_size=4))
    assert takes(compiler, constraint, compact(other)) == (other != "" and other in text)


@QUICK
@given(text=TEXTS, seed=st.integers(0, 2**32), junk=st.lists(st.integers(0, 2047), max_size=4), cut=st.floats(0, 1))
def test_what_is_taken_back_forked_or_tried_leaves_no_trace(
    text: str, seed: int, junk: list[int], cut: float, bpe: GrammarCompiler
) -> None:
    compiled = bpe.compile(Copied(TOOLS, text + "ab"))
    rng, tokens, rows = random.Random(seed), list[int](), list[set[int]]()
    matcher = compiled.matcher()
    for _ in range(40):
        rows.append(mask(matcher, bpe.n_words))
        if matcher.is_terminated:
            break
        only = rows[-1] if len(rows[-1]) == 1 else {None}
        assert matcher.forced() in only
        tokens.append(rng.choice(sorted(rows[-1])))
        assert matcher.advance(tokens[-1])
    else:
        rows.append(mask(matcher, bpe.n_words))
    at = int(cut * len(tokens))
    matcher.rollback(len(tokens) - at)
    fork = matcher.fork()
    assert all(fork.advance(token) for token in tokens[at:])
    for tail in (tokens[at:], junk):
        masks, n_valid = matcher.trial(tail)
        taken = compiled.matcher()
        assert all(taken.advance(token) for token in tokens[:at])
        for n, token in enumerate(tail):
            assert legal(masks[n]) == mask(taken, bpe.n_words)
            assert taken.advance(token) == (n < n_valid)
            if n == n_valid:
                break
        assert mask(matcher, bpe.n_words) == rows[at]


@pytest.mark.parametrize(
    ("schema", "path", "is_free"),
    [
        (STRING, (), True),
        ({"type": ["string", "null"], "title": "T", "default": "x"}, (), True),
        ({"properties": {"a": STRING}}, ("a",), True),
        ({"properties": {"a": {"items": STRING}}}, ("a", 3), True),
        ({"properties": {"a": {"$ref": "#/$defs/s", "description": "d"}}, "$defs": {"s": STRING}}, ("a",), True),
        ({"$ref": "#/$defs/s", "$defs": {"s": {"$ref": "#s"}, "t": {"$anchor": "s", "type": "string"}}}, (), True),
        ({"properties": {"a/b": STRING}}, ("a/b",), True),
        ({"properties": {"a": STRING}}, ("b",), False),
        ({"properties": {"a": STRING}}, (), False),
        ({"type": "string", "enum": ["a"]}, (), False),
        ({"const": "a"}, (), False),
        ({"type": "string", "pattern": "a"}, (), False),
        ({"type": "string", "format": "date"}, (), False),
        ({"type": "string", "minLength": 1}, (), False),
        ({"anyOf": [STRING, {"type": "null"}]}, (), False),
        ({"properties": {"a": STRING}, "allOf": [{"properties": {"a": {"enum": ["x"]}}}]}, ("a",), False),
        ({"properties": {"a": STRING}, "patternProperties": {"a": {"maxLength": 1}}}, ("a",), False),
        ({"items": STRING, "uniqueItems": True}, (0,), False),
        ({"prefixItems": [STRING], "items": STRING}, (1,), False),
        ({"$ref": "#/$defs/s", "maxLength": 3, "$defs": {"s": STRING}}, (), False),
        ({"$ref": "#/$defs/s", "$defs": {"s": {"$ref": "#/$defs/s"}}}, (), False),
        ({"type": "integer"}, (), False),
        ({}, (), False),
        (True, (), False),
    ],
)
def test_free_is_what_a_string_type_alone_holds(schema: Any, path: tuple[str | int, ...], is_free: bool) -> None:
    assert FreeStrings(JsonSchema(schema)).is_free(path, "") == is_free
    wrapped = ToolCalls((Tool("f"), Tool("g", parameters=schema if isinstance(schema, dict) else None)))
    assert FreeStrings(wrapped).is_free((1, "arguments", *path), "g") == is_free
    assert not FreeStrings(wrapped).is_free((1, "arguments", *path), "f")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "array", "items": {"enum": ["one", "two"]}}, ["two", "one"]),
        ({"properties": {"a": {"type": "string", "pattern": "^[x-z]+$"}}}, {"a": "zyx", "b": "other"}),
        ({"properties": {"a": {"anyOf": [STRING, {"type": "null"}]}}}, {"a": 'free "by" chance'}),
        ({"type": "object", "additionalProperties": STRING}, {"said": "something"}),
        ({"type": "array"}, [{"deep": ["down", ""]}, "x", 1.5]),
    ],
)
def test_what_is_not_free_keeps_its_mask(compiler: GrammarCompiler, schema: Any, value: Any) -> None:
    assert takes_json(compiler, schema, value)
    plain = compiler.compile(JsonSchema(schema)).matcher()
    overlaid = compiler.compile(Copied(JsonSchema(schema), "q")).matcher()
    for byte in compact(value).encode():
        assert mask(overlaid, compiler.n_words) == mask(plain, compiler.n_words)
        assert plain.advance(byte)
        assert overlaid.advance(byte)
    assert overlaid.is_complete


@pytest.mark.parametrize("dialect", ["xlam", "xlam_v1"])
def test_the_name_of_a_call_says_which_arguments_are_free(compiler: GrammarCompiler, dialect: str) -> None:
    tools = (
        Tool("free", parameters={"properties": {"a": STRING}, "required": ["a"]}),
        Tool("held", parameters={"properties": {"a": {"enum": ["zz"]}}, "required": ["a"]}),
    )
    constraint = Copied(ToolCalls(tools, dialect=dialect), "some text")

    def answer(*calls: tuple[str, str]) -> str:
        listed = [{"name": name, "arguments": {"a": value}} for name, value in calls]
        return compact(listed if dialect == "xlam" else {"tool_calls": listed})

    good = answer(("free", "text"), ("held", "zz"), ("free", "some"))
    bad = answer(("held", "zz"), ("free", "zz"))
    assert takes(compiler, constraint, good)
    assert validate(constraint, good) is None
    assert not takes(compiler, constraint, bad)
    violation = validate(constraint, bad)
    assert violation is not None
    assert (violation.pointer, violation.keyword) == ("/1/arguments/a", "copy_strings")
    # an answer that calls nothing is text, whatever quotes it holds
    assert takes(compiler, constraint, 'no: {"a":"zz"}')
    assert validate(constraint, 'no: {"a":"zz"}') is None


def test_an_answer_schema_beside_tools_has_free_strings_of_its_own(compiler: GrammarCompiler) -> None:
    answer = JsonSchema({"type": "object", "properties": {"it": STRING}, "required": ["it"]})
    constraint = Copied(ToolCalls((Tool("f"),), answer=answer), "said so")
    assert takes(compiler, constraint, '{"it":"said"}')
    assert not takes(compiler, constraint, '{"it":"sung"}')
    assert takes(compiler, constraint, '[{"name":"f","arguments":{}}]')
    violation = validate(constraint, '{"it":""}')
    assert violation is not None
    assert violation.pointer == "/it"
    anything = Copied(ToolCalls((Tool("f"),), answer=JsonObject()), "said so")
    assert takes(compiler, anything, '{"it":"sung"}')


def test_a_text_that_the_vocabulary_cannot_spell_leaves_the_mask_alone(tiny: GrammarCompiler) -> None:
    plain = tiny.compile(JsonSchema(STRING)).matcher()
    constraint = Copied(JsonSchema(STRING), "zzz")
    matcher = tiny.compile(constraint).matcher()
    assert mask(matcher, tiny.n_words) == {TINY.index('"')}, "nothing that runs into the string"
    for n, spelling in enumerate(('"', "ab", '"')):
        assert n == 0 or mask(matcher, tiny.n_words) == mask(plain, tiny.n_words)
        assert matcher.advance(TINY.index(spelling))
        assert plain.advance(TINY.index(spelling))
    assert matcher.is_complete
    violation = validate(constraint, '"ab"')
    assert violation is not None
    assert violation.keyword == "copy_strings"


def test_only_the_part_without_the_text_is_compiled_and_remembered(tokenizer: Any) -> None:
    compiler = GrammarCompiler(tokenizer, limits=Limits(copied_chars=9))
    inner = JsonSchema({"properties": {"once": STRING}})
    assert compiler.cached(Copied(inner, "one")) is None
    compiler.compile(Copied(inner, "one"))
    other = compiler.cached(Copied(inner, "two"))
    assert other is not None
    assert takes(compiler, Copied(inner, "two"), '{"once":"two"}')
    assert other.matcher().advance(ord("{"))
    assert compiler.compile(inner) is compiler.cached(inner)
    with pytest.raises(ConstraintRefused, match="more than 9 characters"):
        compiler.compile(Copied(inner, "0123456789"))
    with pytest.raises(ConstraintRefused, match="no value can satisfy it"):
        compiler.compile(Copied(JsonSchema({"not": {}}), "one"))


@pytest.mark.parametrize("text", ["", "\x00\x1b", "\x7f"])
def test_a_text_with_nothing_to_copy_is_refused(compiler: GrammarCompiler, text: str) -> None:
    with pytest.raises(ConstraintRefused) as refusal:
        compiler.compile(Copied(JsonSchema(STRING), text))
    assert refusal.value.keyword == "copy_strings"


def test_copied_strings_may_stand_in_indented_json(compiler: GrammarCompiler) -> None:
    schema = {"type": "object", "properties": {"s": STRING, "n": {"type": "integer"}}, "additionalProperties": False}
    constraint = Copied(JsonSchema(schema, layout=Layout("indented")), "to Oslo, \n please")
    for value, is_copied in [
        ({"s": "Oslo", "n": 1}, True),
        ({"s": ", \n p"}, True),
        ({}, True),
        ({"s": "Rome"}, False),
    ]:
        text = json.dumps(value, indent=2)
        assert takes(compiler, constraint, text) is is_copied
        assert (validate(constraint, text) is None) is is_copied
