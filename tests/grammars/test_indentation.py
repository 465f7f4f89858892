"""Indented JSON is what `json.dumps` writes, byte for byte, and no other white space."""

import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grammars import ConstraintRefused, GrammarCompiler, JsonObject, JsonSchema, Layout, Tool, ToolCalls
from grammars.constraint import Constraint
from grammars.layouts import is_laid_out
from grammars.validation import validate
from tests.grammars.answers import draw, takes

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.sampled_from(['a{"[,: \n', "", "é", "\\"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["k", 'q"', "{", ""]), inner, max_size=3)
    ),
    max_leaves=8,
)
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "array"}, "c": {"enum": [{"x": [1]}, []]}},
    "required": ["a"],
}


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=VALUES, indent=st.integers(1, 8), data=st.data())
def test_the_layout_of_json_dumps_is_legal_and_no_other(
    compiler: GrammarCompiler, value: Any, indent: int, data: st.DataObject
) -> None:
    constraint = JsonSchema(True, layout=Layout("indented", indent))
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    assert takes(compiler, constraint, text)
    assert validate(constraint, text) is None
    at = data.draw(st.integers(0, len(text)))
    changed = text[:at] + data.draw(st.sampled_from([" ", "\n", "\t"])) + text[at:]
    if takes(compiler, constraint, changed):
        # The change fell into a string.
        assert json.dumps(json.loads(changed), indent=indent, ensure_ascii=False) == changed
    if value and isinstance(value, list | dict):
        assert not takes(compiler, constraint, json.dumps(value, ensure_ascii=False, separators=(",", ":")))


@pytest.mark.parametrize(
    "constraint", [JsonSchema(SCHEMA, layout=Layout("indented", 2)), JsonObject(Layout("indented"))]
)
def test_no_drawn_answer_ends_in_a_dead_end_or_in_another_layout(
    compiler: GrammarCompiler, constraint: Constraint
) -> None:
    drawn = 0
    for seed in range(40):
        text = draw(compiler.compile(constraint).matcher(), random.Random(seed), compiler.n_words, 160)
        if text is not None:
            drawn += 1
            assert validate(constraint, text.decode()) is None
            assert is_laid_out(text.decode(), Layout("indented", 2))
    assert drawn > 10


@pytest.mark.parametrize("dialect", ["xlam", "xlam_v1"])
def test_arguments_are_indented_and_the_calls_around_them_are_not(compiler: GrammarCompiler, dialect: str) -> None:
    constraint = ToolCalls((Tool("f", "", SCHEMA), Tool("g")), dialect=dialect, layout=Layout("indented", 4))
    arguments = json.dumps({"a": 1, "b": [{"x": 1}, []]}, indent=4)
    calls = '[{"name":"f","arguments":' + arguments + '},{"name":"g","arguments":{}}]'
    text = calls if dialect == "xlam" else '{"tool_calls":' + calls + "}"
    assert takes(compiler, constraint, text)
    assert validate(constraint, text) is None
    assert takes(compiler, constraint, "plain words, with\nany white  space")
    for place in (1, 2, text.index("},{") + 1, len(text) - 1, len(text)):
        assert not takes(compiler, constraint, f"{text[:place]} {text[place:]}")
        assert not takes(compiler, constraint, f"{text[:place]}\n{text[place:]}")


def test_another_layout_is_named_by_the_validator() -> None:
    for layout, text in [
        (Layout("compact"), '{"a": 1}'),
        (Layout("single"), '{"a":  1}'),
        (Layout("single"), '{"a" :1}'),
        (Layout("indented"), '{"a": 1}'),
        (Layout("indented", 4), '{\n  "a": 1\n}'),
    ]:
        violation = validate(JsonSchema(SCHEMA, layout=layout), text)
        assert violation is not None
        assert violation.keyword == "whitespace"
    assert validate(JsonSchema(SCHEMA, layout=Layout("single")), '{"a":1, "b": []}') is None


@pytest.mark.parametrize("indent", [0, 9, -1])
def test_an_indent_beyond_the_bounds_is_refused(compiler: GrammarCompiler, indent: int) -> None:
    with pytest.raises(ConstraintRefused) as caught:
        compiler.compile(JsonObject(Layout("indented", indent)))
    assert caught.value.keyword == "indent"
