"""Every combination of tool_choice, parallel_tool_calls, strict, response_format, reasoning and dialect: what may be
answered, and what may not."""

import json
from functools import partial
from itertools import product
from typing import Any

import pytest

from benchmarks.tokenizers import byte_tokenizer
from gateway.openai.answer import Answer
from gateway.openai.constraints import read_constraint
from gateway.openai.reading import read_chat
from gateway.openai.tools import tool_use
from grammars import Call, Constraint, ConstraintRefused, GrammarCompiler, get_dialect
from grammars.dialects import DIALECTS
from grammars.validation import validate
from tests.grammars.answers import takes

CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
NAMES = ("weather", "ping", "other")
CHOICES: dict[str, Any] = {
    "absent": None,
    "none": "none",
    "auto": "auto",
    "required": "required",
    "named": {"type": "function", "function": {"name": "weather"}},
    "allowed auto": {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "weather"}}]},
    },
    "allowed required": {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [{"type": "function", "name": "weather"}]},
    },
}
FORMATS: dict[str, Any] = {
    "none": None,
    "object": {"type": "json_object"},
    "schema": {
        "type": "json_schema",
        "json_schema": {
            "name": "n",
            "schema": {
                "type": "object",
                "properties": {"n": {"type": "integer"}},
                "required": ["n"],
                "additionalProperties": False,
            },
        },
    },
}
WEATHER, PING = Call("weather", '{"city":"Rome"}'), Call("ping", "{}")
NEVER = (
    [Call("weather", '{"city":"Paris"}')],
    [Call("weather", "{}")],
    [Call("weather", '{"city":"Rome","x":1}')],
    [Call("wether", '{"city":"Rome"}')],
    [Call("weatherx", '{"city":"Rome"}')],
    [Call("ping", '{"x":1}')],
)


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    """For a vocabulary of bytes."""
    return GrammarCompiler(byte_tokenizer("<|endoftext|>"), vocab_size=300, deadline_s=60, probe=None)


def constraint_of(dialect: str, **fields: Any) -> Constraint | None:
    body = {"messages": [{"role": "user", "content": "hi"}], **fields}
    request = read_chat(json.dumps(body).encode()).request
    return read_constraint(request, tool_use(request), dialect).constraint


def callable_names(choice: str) -> tuple[str, ...]:
    if choice == "none":
        return ()
    return ("weather",) if choice in ("named", "allowed auto", "allowed required") else NAMES


def _is_legal(compiler: GrammarCompiler, constraint: Constraint, thoughts: str, text: str) -> bool:
    """Whether the answer can be written; the validator must agree."""
    legal = takes(compiler, constraint, thoughts + text)
    assert (validate(constraint, thoughts + text) is None) == legal, (constraint, text)
    return legal


@pytest.mark.parametrize("dialect", [dialect.name for dialect in DIALECTS])
@pytest.mark.parametrize("choice", CHOICES)
def test_every_combination_allows_what_it_says_and_nothing_else(
    compiler: GrammarCompiler, dialect: str, choice: str
) -> None:
    format_ = get_dialect(dialect)
    for parallel, strict, form, reasons in product((None, True, False), (None, True), FORMATS, (False, True)):
        tools = [
            {"type": "function", "function": {"name": name, "parameters": CITY if name == "weather" else None}}
            for name in NAMES
        ]
        for tool in tools:
            tool["function"]["strict"] = strict  # type: ignore[index]
        constraint = constraint_of(
            dialect,
            tools=tools,
            tool_choice=CHOICES[choice],
            parallel_tool_calls=parallel,
            response_format=FORMATS[form],
            structured_outputs={"reasoning": {"until": "</think>"}} if reasons else None,
        )
        where = (dialect, choice, parallel, strict, form, reasons)
        if constraint is None:
            assert (choice, form, reasons) == ("none", "none", False)
            continue
        thoughts = "I think [{<x of weather</think>" if reasons else ""
        is_legal = partial(_is_legal, compiler, constraint, thoughts)
        is_auto = choice in ("absent", "auto", "allowed auto")
        if is_auto and form == "object" and format_.tells:
            with pytest.raises(ConstraintRefused, match="cannot be told from calls"):
                compiler.compile(constraint)
            continue
        names = callable_names(choice)
        several = parallel is not False and choice != "named" and dialect != "llama3_json"
        if choice == "none":
            # Without callable tools, the marks of a format are only text.
            assert is_legal("hello") == (form == "none"), where
        else:
            assert is_legal(format_.write([WEATHER])), where
            assert is_legal(format_.write([PING])) == ("ping" in names), where
            assert is_legal(format_.write([WEATHER, WEATHER])) == several, where
            assert is_legal(format_.write([WEATHER, PING])) == (several and "ping" in names), where
            for calls in NEVER:
                assert not is_legal(format_.write(calls)), (where, calls)
            assert not is_legal(format_.write([WEATHER])[:-1]), where
            assert is_legal("It rains.") == (is_auto and form == "none"), where
            after_text = is_auto and form == "none" and bool(format_.marker)
            assert is_legal("Let me look. " + format_.write([WEATHER])) == after_text or not format_.marker, where
        can_answer = choice == "none" or is_auto
        if form != "none" and can_answer:
            assert is_legal('{"n":1}'), where
            assert not is_legal('{"n":1'), where
            assert is_legal('{"n":"1"}') == (form == "object"), where
        elif form != "none":
            assert not is_legal('{"n":1}'), where


@pytest.mark.parametrize("dialect", [dialect.name for dialect in DIALECTS])
@pytest.mark.parametrize("cut", [1, 3, 7, 1000])
def test_what_is_answered_under_a_combination_is_read_as_that(dialect: str, cut: int) -> None:
    format_ = get_dialect(dialect)
    calls = [WEATHER] if dialect == "llama3_json" else [WEATHER, PING]
    text = f"Hm, {format_.marker or '['}?</think>\n" + format_.write(calls)
    if not format_.marker:
        text = text.replace("\n", "", 1)
    answer = Answer(get_dialect(dialect), "</think>")
    for at in range(0, len(text), cut):
        answer.feed(text[at : at + cut])
    answer.end()
    message = answer.message()
    assert message.content is None
    assert isinstance(message.tool_calls, list)
    found = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls]
    assert found == [("weather", {"city": "Rome"}), ("ping", {})][: len(calls)]


@pytest.mark.parametrize("dialect", [dialect.name for dialect in DIALECTS])
def test_where_a_call_is_required_nothing_of_one_is_shown_as_text(dialect: str) -> None:
    text = ("\n" if get_dialect(dialect).marker else "") + get_dialect(dialect).write([WEATHER])
    for end in range(len(text) + 1):
        answer = Answer(get_dialect(dialect), must_call=True)
        answer.feed(text[:end])
        answer.end()
        assert not answer.message().content


@pytest.mark.parametrize(
    ("fields", "is_right"),
    [({}, True), ({"tool_choice": "required"}, False), ({"response_format": FORMATS["schema"]}, False)],
)
def test_the_empty_list_that_a_model_was_taught_to_write_is_an_answer_without_calls(
    compiler: GrammarCompiler, fields: dict[str, Any], is_right: bool
) -> None:
    text, tools = '{"tool_calls":[]}', [{"type": "function", "function": {"name": "ping"}}]
    constraint = constraint_of("xlam_v1", tools=tools, **fields)
    assert constraint is not None
    assert _is_legal(compiler, constraint, "", text) == is_right
    for cut in (1, 9, 100):
        answer = Answer(get_dialect("xlam_v1"))
        for at in range(0, len(text), cut):
            answer.feed(text[at : at + cut])
        answer.end()
        assert (answer.message().content, answer.calls) == ("", [])


@pytest.mark.parametrize("dialect", [d.name for d in DIALECTS if d.tells])
@pytest.mark.parametrize("cut", [1, 2, 5, 100])
def test_an_object_that_begins_like_a_call_is_read_by_its_members(dialect: str, cut: int) -> None:
    for text in ('{"name":"ping","age":3}', '{"tool":1}', '{"name":"ping"}', '{"n":"{", "parameters":{}}', "{}", '"{"'):
        assert get_dialect(dialect).parse(text, after_text=False) is None
        answer = Answer(get_dialect(dialect), after_text=False)
        for at in range(0, len(text), cut):
            answer.feed(text[at : at + cut])
        answer.end()
        assert (answer.message().content, answer.calls) == (text, [])
    text = get_dialect(dialect).write([WEATHER])
    answer = Answer(get_dialect(dialect), after_text=False)
    for at in range(0, len(text), cut):
        answer.feed(text[at : at + cut])
    assert [(call.function.name, call.function.arguments) for call in answer.calls] == [("weather", WEATHER.arguments)]
