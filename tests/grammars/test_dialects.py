"""Tool calls: what may be written, how it is read back, and that a stream says the same wherever it is cut."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grammars import (
    ArgumentsDelta,
    CallStarted,
    ConstraintRefused,
    GrammarCompiler,
    JsonObject,
    JsonSchema,
    TextDelta,
    Tool,
    ToolCalls,
    get_dialect,
)
from grammars.validation import validate
from tests.grammars.answers import takes

WEATHER = Tool(
    "get_weather",
    "The weather",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
        "required": ["city"],
        "additionalProperties": False,
    },
)
NOTHING = Tool("ping")
ODD = Tool("v1.odd-name", "", {"properties": {"name": {"type": "string"}, "arguments": {"type": "object"}}})
TOOLS = (WEATHER, NOTHING, ODD)

ONE = [{"name": "get_weather", "arguments": {"city": "Rome", "days": 3}}]
TWO = [*ONE, {"name": "ping", "arguments": {}}]
TRICKY = [
    {"name": "v1.odd-name", "arguments": {"name": 'a]},{"name":"ping"', "arguments": {"name": 1, "arguments": [{}]}}}
]
WRONG = [
    [{"name": "get_weather", "arguments": {}}],
    [{"name": "get_weather", "arguments": {"city": "Rome", "days": 8}}],
    [{"name": "get_weather", "arguments": {"city": "Rome", "other": 1}}],
    [{"name": "unknown", "arguments": {}}],
    [{"name": "ping", "arguments": {"a": 1}}],
    [{"name": "ping"}],
    [{"name": "ping", "arguments": []}],
    [{"arguments": {}, "name": "ping"}],
]


def _written(dialect: str, calls: Any) -> str:
    """Calls as the dialect spells them."""
    return json.dumps(calls if dialect == "xlam" else {"tool_calls": calls}, separators=(",", ":"))


@pytest.mark.parametrize("dialect", ["xlam", "xlam_v1"])
@pytest.mark.parametrize("mode", ["auto", "required"])
@pytest.mark.parametrize("parallel", [True, False])
def test_only_offered_tools_with_their_own_arguments_may_be_called(
    compiler: GrammarCompiler, dialect: str, mode: Any, parallel: bool
) -> None:
    constraint = ToolCalls(TOOLS, mode, parallel, dialect)
    for calls, is_legal in [(ONE, True), (TWO, parallel), (TRICKY, True), *((wrong, False) for wrong in WRONG)]:
        text = _written(dialect, calls)
        assert takes(compiler, constraint, text) == is_legal, text
        assert (validate(constraint, text) is None) == (is_legal or calls == WRONG[-1]), text
    none, is_taught = _written(dialect, []), dialect == "xlam_v1" and mode == "auto"
    assert takes(compiler, constraint, none) == is_taught
    assert (validate(constraint, none) is None) == is_taught
    for text in ("Hello [world] {x}", " [1]", "é"):
        assert takes(compiler, constraint, text) == (mode == "auto")
        assert (validate(constraint, text) is None) == (mode == "auto")
    assert not takes(compiler, constraint, "")


@pytest.mark.parametrize(
    "answer", [JsonObject(), JsonSchema({"type": "object", "properties": {"z": {"type": "null"}}})]
)
def test_an_answer_schema_holds_for_whatever_is_no_call(compiler: GrammarCompiler, answer: Any) -> None:
    constraint = ToolCalls(TOOLS, answer=answer)
    assert takes(compiler, constraint, '{"z":null}')
    assert takes(compiler, constraint, _written("xlam", TWO))
    for text in ("Hello", "[1]", '"a"'):
        assert not takes(compiler, constraint, text)
        assert validate(constraint, text) is not None
    assert validate(constraint, '{"z":null}') is None


@pytest.mark.parametrize(
    ("constraint", "keyword", "pointer"),
    [
        (ToolCalls(()), "tools", "/tools"),
        (ToolCalls((NOTHING, NOTHING)), "name", "/tools"),
        (ToolCalls((Tool("a b"),)), "name", "/tools/0/function/name"),
        (ToolCalls((NOTHING,), dialect="none"), "tools", "/tools"),
        (ToolCalls((NOTHING, Tool("f", "", {"type": "array"}))), "type", "/tools/1/function/parameters"),
        (ToolCalls((Tool("f", "", {"properties": {"a": {"uniqueItems": True, "items": {"pattern": "^a"}}}}),)),
        "uniqueItems",
        "/tools/0/function/parameters/properties/a"),
        (ToolCalls((Tool("f", "", {"properties": {"a": {"format": "odd"}}}, True),)), "format",
        "/tools/0/function/parameters/properties/a"),
        (ToolCalls((NOTHING,), answer=JsonSchema({"type": ["object", "array"]})), "type", ""),
        (ToolCalls((NOTHING,), dialect="xlam_v1", answer=JsonObject()), "type", ""),
        (ToolCalls((NOTHING,), "required", answer=JsonObject()), "tools", "/tools"),
    ],
)  # fmt: skip
def test_tools_that_cannot_be_held_are_refused_with_their_place(
    compiler: GrammarCompiler, constraint: ToolCalls, keyword: str, pointer: str
) -> None:
    with pytest.raises(ConstraintRefused) as caught:
        compiler.compile(constraint)
    assert (caught.value.keyword, caught.value.pointer) == (keyword, pointer)


ARGUMENTS = st.dictionaries(
    st.text(max_size=4),
    st.recursive(st.none() | st.integers() | st.text(max_size=6), lambda v: st.lists(v,
     max_size=2) | st.dictionaries(st.text(max_size=2), v, max_size=2), max_leaves=4),
    max_size=3,
)  # fmt: skip
CALLS = st.lists(
    st.fixed_dictionaries({"name": st.text("abc_", min_size=1, max_size=5), "arguments": ARGUMENTS}),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("dialect", ["xlam", "xlam_v1"])
def test_a_stream_says_what_the_whole_says_wherever_it_is_cut(dialect: str) -> None:
    @settings(deadline=None, suppress_health_check=list(HealthCheck))
    @given(calls=CALLS, compact=st.booleans(), ascii_only=st.booleans(), cuts=st.lists(st.integers(0, 200)))
    def check(calls: Any, compact: bool, ascii_only: bool, cuts: list[int]) -> None:
        written = calls if dialect == "xlam" else {"tool_calls": calls}
        text = json.dumps(written, ensure_ascii=ascii_only, separators=(",", ":") if compact else None)
        whole = get_dialect(dialect).parse(text)
        assert whole is not None
        assert [(call.name, json.loads(call.arguments)) for call in whole] == [
            (c["name"], c["arguments"]) for c in calls
        ]
        assert all(call.arguments in text for call in whole)
        edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
        parser = get_dialect(dialect).stream()
        names: dict[int, str] = {}
        fragments: dict[int, str] = {}
        for start, end in pairwise(edges):
            for event in parser.feed(text[start:end]):
                match event:
                    case CallStarted():
                        assert event.index == len(names)
                        names[event.index] = event.name
                    case ArgumentsDelta():
                        assert event.index in names
                        fragments[event.index] = fragments.get(event.index, "") + event.fragment
                    case TextDelta():
                        pytest.fail("calls were read as text")
        assert [(names[i], fragments[i]) for i in range(len(names))] == [(call.name, call.arguments) for call in whole]

    check()


@given(text=st.text(min_size=1), cut=st.integers(0, 20))
def test_text_streams_as_text(text: str, cut: int) -> None:
    if text.startswith("["):
        text = " " + text
    parser = get_dialect("xlam").stream()
    events = [*parser.feed(text[:cut]), *parser.feed(text[cut:])]
    assert "".join(event.fragment for event in events if isinstance(event, TextDelta)) == text
    assert get_dialect("xlam").parse(text) is None


def test_tools_are_shown_with_name_description_and_parameters() -> None:
    shown = json.loads(get_dialect("xlam").render(TOOLS))
    assert [tool["name"] for tool in shown] == ["get_weather", "ping", "v1.odd-name"]
    assert shown[0]["parameters"] == WEATHER.parameters
