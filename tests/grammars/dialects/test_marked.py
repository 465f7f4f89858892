"""Formats with a marker: text, then calls; every rule of a schema holds behind the marker as it does elsewhere."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.tokenizer import Tokenizer
from grammars import (
    Call,
    ConstraintRefused,
    Copied,
    FreeText,
    GrammarCompiler,
    JsonObject,
    JsonSchema,
    Layout,
    Sequence,
    Tool,
    ToolCalls,
    get_dialect,
)
from grammars.dialects import DIALECTS, MARKERS
from grammars.validation import validate
from tests.grammars.answers import draw, legal, takes
from tests.grammars.dialects.offered import NAMES, TOOLS, as_calls, calls, streamed

MARKED = tuple(dialect.name for dialect in DIALECTS if dialect.marker)
RULED = Tool(
    "ruled",
    "",
    {
        "type": "object",
        "properties": {
            "kinds": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True},
            "code": {"type": "string", "minLength": 2, "maxLength": 3},
            "extra": {"type": "object", "minProperties": 1, "maxProperties": 2},
        },
        "additionalProperties": False,
    },
)
PIECES = st.lists(st.text("<>/_tolca[]TOLCAS_ \n{x", max_size=4) | st.sampled_from(MARKERS), max_size=6).map("".join)


@pytest.mark.parametrize("dialect", MARKED)
def test_calls_may_follow_text_and_no_text_follows_them(compiler: GrammarCompiler, dialect: str) -> None:
    format_ = get_dialect(dialect)

    @settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
    @given(text=PIECES, given_calls=calls(2), cuts=st.lists(st.integers(0, 300), max_size=5))
    def check(text: str, given_calls: Any, cuts: list[int]) -> None:
        constraint, written = ToolCalls(TOOLS, dialect=dialect), format_.write(as_calls(given_calls))
        is_text = bool(text) and format_.marker not in text
        assert takes(compiler, constraint, text) == is_text
        assert (validate(constraint, text) is None) == is_text
        if format_.marker not in text + format_.marker[:-1]:
            assert takes(compiler, constraint, text + written)
            assert not takes(compiler, constraint, text + written + text) or not text
            said, found = streamed(format_.stream(), text + written, cuts)
            assert said == text.rstrip()
            assert found == format_.parse(text + written)
        if is_text:
            assert streamed(format_.stream(), text, cuts) == (text, [])

    check()


@pytest.mark.parametrize("dialect", MARKED)
def test_whatever_is_drawn_under_the_mask_is_text_or_whole_calls(compiler: GrammarCompiler, dialect: str) -> None:
    rng, format_ = random.Random(4), get_dialect(dialect)
    constraint = ToolCalls((RULED, Tool("ping")), dialect=dialect)
    compiled, n_calls = compiler.compile(constraint), 0
    for n in range(40):
        matcher = compiled.matcher()
        begun = format_.marker.encode() if n % 2 else b""
        assert all(matcher.advance(byte) for byte in begun)
        drawn = draw(matcher, rng, compiler.n_words, 600)
        if drawn is None:
            continue
        text = (begun + drawn).decode()
        assert validate(constraint, text) is None, text
        n_calls += len(format_.parse(text) or ())
    assert n_calls > 5


@pytest.mark.parametrize("dialect", [name for name in NAMES if name != "pythonic"])
def test_rules_beside_the_grammar_hold_in_every_call(compiler: GrammarCompiler, dialect: str) -> None:
    format_ = get_dialect(dialect)
    several = dialect != "llama3_json"

    def written(arguments: str, first: str = "{}") -> str:
        last = Call("ruled", arguments)
        return format_.write([Call("ruled", first), last] if several else [last])

    constraint = ToolCalls((RULED,), dialect=dialect)
    for right in (
        '{"kinds":["a","b"]}',
        '{"code":"é☃"}',
        '{"extra":{"x":1}}',
        '{"kinds":[],"code":"abc","extra":{"":0,"y":{}}}',
    ):
        assert takes(compiler, constraint, written(right, right)), right
    for wrong in (
        '{"kinds":["a","b","a"]}',
        '{"code":"x"}',
        '{"code":"abcd"}',
        '{"extra":{}}',
        '{"extra":{"x":1,"y":1,"z":1}}',
    ):
        assert not takes(compiler, constraint, written(wrong)), wrong
        assert validate(constraint, written(wrong)) is not None
    any_order = ToolCalls((RULED,), dialect=dialect, order="any")
    assert takes(compiler, any_order, written('{"code":"ab","kinds":[]}', '{"code":"ab","kinds":[]}'))
    assert not takes(compiler, constraint, written('{"code":"ab","kinds":[]}'))
    assert not takes(compiler, any_order, written('{"code":"ab","code":"ab"}'))


@pytest.mark.parametrize("dialect", [name for name in NAMES if name != "pythonic"])
def test_copied_strings_are_held_in_every_call(compiler: GrammarCompiler, dialect: str) -> None:
    tool = Tool("go", "", {"properties": {"to": {"type": "string"}, "note": {"enum": ["n"]}}, "required": ["to"]})
    format_, source = get_dialect(dialect), "from Oslo to Rome"
    inner = ToolCalls((tool, Tool("ping")), dialect=dialect)
    several = dialect != "llama3_json"
    for constraint in (Copied(inner, source), Sequence((FreeText("</t>"), Copied(inner, source)))):
        before = "Hm</t>" if isinstance(constraint, Sequence) else ""
        for first, last, is_held in (("Oslo", "Rome", True), ("Rome", "Paris", False), ("Paris", "Rome", not several)):
            made = [Call("go", f'{{"to":"{first}"}}'), Call("ping", "{}"), Call("go", f'{{"to":"{last}","note":"n"}}')]
            text = before + format_.write(made if several else made[2:])
            assert takes(compiler, constraint, text) == is_held, text
            assert (validate(constraint, text) is None) == is_held, text


@pytest.mark.parametrize("dialect", MARKED)
def test_beside_an_answer_schema_a_marker_within_a_string_is_only_text(compiler: GrammarCompiler, dialect: str) -> None:
    format_ = get_dialect(dialect)
    schema = {"type": ["object", "array", "string"], "additionalProperties": {"type": "string"}}
    for answer in (JsonObject(), JsonSchema(schema)):
        constraint = ToolCalls(TOOLS, dialect=dialect, answer=answer)
        copied = Copied(constraint, format_.marker)
        for text in (json.dumps({format_.marker: format_.marker}, separators=(",", ":")), "{}"):
            assert takes(compiler, constraint, text)
            assert takes(compiler, copied, text)
            assert validate(copied, text) is None
            assert format_.parse(text, after_text=False) is None
            for cut in (1, 4, 100):
                assert streamed(format_.stream(after_text=False), text, [cut]) == (text, [])
        call = format_.write([Call("ping", "{}")])
        assert takes(compiler, constraint, call)
        assert streamed(format_.stream(after_text=False), call, [5])[1] == [Call("ping", "{}")]
        assert not takes(compiler, constraint, "Hello")
        assert not takes(compiler, constraint, "x " + call)
    assert takes(compiler, constraint, json.dumps([format_.marker + "x"])) is True


@pytest.mark.parametrize(
    ("constraint", "keyword"),
    [
        (ToolCalls(TOOLS, dialect="hermes", layout=Layout("indented")), "indent"),
        (ToolCalls(TOOLS, dialect="pythonic", layout=Layout("indented")), "indent"),
        (ToolCalls(TOOLS, dialect="pythonic", order="any"), "property_order"),
        (Copied(ToolCalls(TOOLS, dialect="pythonic"), "x"), "copy_strings"),
        (Sequence((ToolCalls(TOOLS, dialect="hermes"), JsonObject())), "tools"),
        (ToolCalls(TOOLS, dialect="pythonic", answer=JsonSchema({"type": "array"})), "type"),
        (ToolCalls(TOOLS, dialect="llama3_json", answer=JsonObject()), "type"),
        (Copied(ToolCalls(TOOLS, dialect="llama3_json", answer=JsonSchema({"properties": {"a": {"type": "string"}},
          "additionalProperties": False, "type": "object"})), "x"), "copy_strings"),
        (ToolCalls((Tool("f", "", {"properties": {"a-b": {}}}),), dialect="pythonic"), "properties"),
        (ToolCalls((Tool("f", "", {"anyOf": [{"required": ["a"], "properties": {"a": {"type": "null"}}},
          {"required": ["b"]}]}),), dialect="pythonic"), "anyOf"),
        (ToolCalls((RULED,), dialect="pythonic"), "minProperties"),
        (ToolCalls((Tool("f", "", {"required": ["a"]}),), dialect="pythonic"), "required"),
    ],
)  # fmt: skip
def test_what_a_format_cannot_hold_is_refused(compiler: GrammarCompiler, constraint: Any, keyword: str) -> None:
    with pytest.raises(ConstraintRefused) as caught:
        compiler.compile(constraint)
    assert caught.value.keyword == keyword


@pytest.mark.parametrize("dialect", [name for name in NAMES if name.startswith(("hermes", "mistral", "llama", "gen"))])
def test_a_space_after_commas_and_colons_may_be_left_out_or_asked_not_to_be(
    compiler: GrammarCompiler, dialect: str
) -> None:
    spaced = get_dialect(dialect).write([Call("get_weather", '{"city": "Rome", "days": 3}')])
    tight = spaced.replace('": ', '":').replace(', "', ',"')
    assert takes(compiler, ToolCalls(TOOLS, dialect=dialect), spaced)
    assert takes(compiler, ToolCalls(TOOLS, dialect=dialect), tight)
    compact = ToolCalls(TOOLS, dialect=dialect, layout=Layout("compact"))
    assert not takes(compiler, compact, spaced)
    assert takes(compiler, compact, tight)


@pytest.fixture(scope="module")
def words(data: Path) -> Tokenizer:
    """Qwen's tokenizer, in which both tags are words, with Mistral's markers as special tokens."""
    document = json.loads(gzip.decompress((data / "tokenizers" / "qwen2_tokenizer.json.gz").read_bytes()))
    last = max(entry["id"] for entry in document["added_tokens"])
    for i, marker in enumerate(("[TOOL_CALLS]", "[ARGS]"), start=1):
        entry = document["added_tokens"][0] | {"id": last + i, "content": marker, "special": True}
        document["added_tokens"].append(entry)
    return Tokenizer(document, {"eos_token": "<|im_end|>"}, None)


@pytest.fixture(scope="module")
def real(words: Tokenizer) -> GrammarCompiler:
    """A compiler for it."""
    return GrammarCompiler(words, deadline_s=60, probe=None)


def test_markers_are_single_tokens_that_are_text(words: Tokenizer) -> None:
    for marker in MARKERS:
        (token,) = words.encode(marker)
        assert words.token_bytes(token) == marker.encode()
        assert token not in words.encode_plain(marker)


@pytest.mark.parametrize("dialect", NAMES)
@pytest.mark.parametrize("mode", ["auto", "required"])
def test_in_a_real_vocabulary_a_call_is_written_with_the_marker_as_a_token_or_spelled_out(
    words: Tokenizer, real: GrammarCompiler, dialect: str, mode: Any
) -> None:
    format_ = get_dialect(dialect)
    text = format_.write([Call("get_weather", '{"city":"Rome"}')] * (1 if dialect == "llama3_json" else 2))
    compiled = real.compile(ToolCalls(TOOLS, mode, dialect=dialect))
    row = torch.zeros(real.n_words, dtype=torch.int32)
    for ids in (words.encode(text), words.encode_plain(text)):
        assert words.decode(ids) == text
        matcher = compiled.matcher()
        for token in ids:
            matcher.fill_mask(row)
            assert token in legal(row), (words.token_bytes(token), text)
            assert matcher.advance(token)
        assert matcher.is_complete


@pytest.mark.parametrize("dialect", MARKED)
def test_behind_a_marker_only_the_beginning_of_a_known_call_is_legal(
    words: Tokenizer, real: GrammarCompiler, dialect: str
) -> None:
    matcher = real.compile(ToolCalls((Tool("ping"),), dialect=dialect)).matcher()
    (marker,) = words.encode(get_dialect(dialect).marker)
    row = torch.zeros(real.n_words, dtype=torch.int32)
    assert matcher.advance(*words.encode("So"))
    matcher.fill_mask(row)
    assert marker in legal(row)
    assert len(legal(row)) > 100_000
    assert matcher.advance(marker)
    assert not matcher.is_complete
    matcher.fill_mask(row)
    ways = {words.token_bytes(token) for token in legal(row)}
    rest = get_dialect(dialect).write([Call("ping", "{}")]).removeprefix(get_dialect(dialect).marker)
    assert all(rest.replace(": ", ":").startswith(way.decode().strip(" ")) or rest.startswith(way.decode())
               for way in ways)  # fmt: skip
