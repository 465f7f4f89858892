"""Every constraint that a request holds becomes one Constraint, or a 400 says which field is at fault."""

import json
from typing import Any

import pytest

from gateway.openai.constraints import Asked, read_constraint
from gateway.openai.errors import ApiError
from gateway.openai.reading import read_chat
from gateway.openai.tools import tool_use
from grammars.constraint import (
    Alternatives,
    Choice,
    Copied,
    FreeText,
    Grammar,
    JsonObject,
    JsonSchema,
    Layout,
    Regex,
    Sequence,
    ToolCalls,
)
from grammars.errors import ConstraintRefused
from tests.gateway.server import GatewayServer

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": SCHEMA}}


def asked(**fields: Any) -> Asked:
    request = read_chat(json.dumps({"messages": []} | fields).encode()).request
    return read_constraint(request, tool_use(request), "xlam")


def refused(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        asked(**fields)
    assert caught.value.status == 400
    return caught.value


def schema_format(**fields: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, **fields}}


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, JsonObject()),
        ({"response_format": schema_format()}, JsonSchema(SCHEMA)),
        ({"response_format": schema_format(strict=True)}, JsonSchema(SCHEMA, strict=True)),
        ({"structured_outputs": {"json": SCHEMA}}, JsonSchema(SCHEMA)),
        ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, JsonSchema(SCHEMA)),
        ({"structured_outputs": {"regex": "a+"}}, Regex("a+")),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, Choice(("yes", "no"))),
        ({"structured_outputs": {"grammar": 'root ::= "a"'}}, Grammar('root ::= "a"', "ebnf")),
        ({"structured_outputs": {"grammar": 'start: "a"'}}, Grammar('start: "a"', "lark")),
        ({"structured_outputs": {"json_object": True}}, JsonObject()),
        (
            {
                "structured_outputs": {
                    "sequence": [
                        {"choice": ["<think>"]},
                        {"free_text": {"until": "</think>", "max_tokens": 20}},
                        {"alternatives": [{"json": SCHEMA}, {"sequence": [{"regex": "a"}, {"grammar": 'start: "b"'}]}]},
                    ]
                }
            },
            Sequence(
                (
                    Choice(("<think>",)),
                    FreeText("</think>", 20),
                    Alternatives((JsonSchema(SCHEMA), Sequence((Regex("a"), Grammar('start: "b"', "lark"))))),
                )
            ),
        ),
        (
            {
                "structured_outputs": {
                    "alternatives": [{"json_object": True}, {"free_text": {}}],
                    "whitespace": "single",
                }
            },
            Alternatives((JsonObject(Layout("single")), FreeText())),
        ),
        (
            {"structured_outputs": {"whitespace": "indented", "indent": 4}, "response_format": schema_format()},
            JsonSchema(SCHEMA, layout=Layout("indented", 4)),
        ),
        (
            {"structured_outputs": {"property_order": "any"}, "guided_json": SCHEMA},
            JsonSchema(SCHEMA, order="any"),
        ),
        (
            {"structured_outputs": {"reasoning": {"until": "</think>"}}, "guided_choice": ["x"]},
            Sequence((FreeText("</think>"), Choice(("x",)))),
        ),
        ({"structured_outputs": {"reasoning": {"until": "</think>"}}}, Sequence((FreeText("</think>"), FreeText()))),
        ({"guided_json": SCHEMA}, JsonSchema(SCHEMA)),
        ({"guided_regex": "a+"}, Regex("a+")),
        ({"guided_choice": ["x"]}, Choice(("x",))),
        ({"guided_grammar": 'root ::= "a"'}, Grammar('root ::= "a"')),
        ({"tools": [tool("f")], "tool_choice": "none"}, None),
        (
            {"tools": [tool("f")], "tool_choice": "none", "response_format": {"type": "json_object"}},
            JsonObject(),
        ),
    ],
)
def test_each_field_becomes_its_constraint(fields: dict[str, Any], constraint: object) -> None:
    assert asked(**fields).constraint == constraint


@pytest.mark.parametrize(
    ("fields", "names", "mode", "parallel"),
    [
        ({}, ["f", "g"], "auto", True),
        ({"tool_choice": "required"}, ["f", "g"], "required", True),
        ({"parallel_tool_calls": False}, ["f", "g"], "auto", False),
        ({"tool_choice": {"type": "function", "function": {"name": "g"}}}, ["g"], "required", False),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {
                        "mode": "required",
                        "tools": [{"type": "function", "function": {"name": "g"}}, {"type": "function", "name": "g"}],
                    },
                }
            },
            ["g"],
            "required",
            True,
        ),
    ],
)
def test_tool_choice_says_what_may_be_called(
    fields: dict[str, Any], names: list[str], mode: str, parallel: bool
) -> None:
    found = asked(tools=[tool("f"), tool("g")], **fields)
    assert isinstance(found.constraint, ToolCalls)
    assert [t.name for t in found.constraint.tools] == names
    assert (found.constraint.mode, found.constraint.parallel) == (mode, parallel)
    assert len(found.tools.offered) == 2, "the prompt shows all tools, whatever may be called"


def test_a_schema_beside_tools_constrains_what_is_no_call() -> None:
    found = asked(tools=[tool("f")], response_format=schema_format())
    assert isinstance(found.constraint, ToolCalls)
    assert found.constraint.answer == JsonSchema(SCHEMA)
    assert (found.schema, found.name) == (SCHEMA, "answer")


MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Fly to"}, {"type": "text", "text": "Åre"}]},
    {"role": "assistant", "content": "Which day?"},
    {"role": "tool", "content": "18 degrees", "tool_call_id": "a"},
    {"role": "user", "content": ""},
]


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [tool("f")]},
        {"tools": [tool("f")], "response_format": schema_format()},
        {"response_format": schema_format()},
        {"guided_json": SCHEMA},
    ],
)
def test_copied_strings_wrap_whatever_constrains_the_answer(fields: dict[str, Any]) -> None:
    plain = asked(messages=MESSAGES, **fields)
    copied = asked(messages=MESSAGES, structured_outputs={"copy_strings": True}, **fields)
    assert isinstance(plain.constraint, JsonSchema | ToolCalls)
    assert copied.constraint == Copied(plain.constraint, "Be brief.\nFly to\nÅre\n18 degrees")
    assert (copied.is_json, copied.param, copied.tools) == (plain.is_json, plain.param, plain.tools)
    assert asked(messages=MESSAGES, structured_outputs={"copy_strings": False}, **fields) == plain


def test_the_schema_may_stand_beside_copy_strings() -> None:
    found = asked(messages=MESSAGES, structured_outputs={"json": SCHEMA, "copy_strings": True}).constraint
    assert isinstance(found, Copied)
    assert found.inner == JsonSchema(SCHEMA)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"response_format": {"type": "json_object"}},
        {"guided_regex": "a"},
        {"tools": [tool("f")], "tool_choice": "none"},
    ],
)
def test_copied_strings_need_a_schema_or_tools(fields: dict[str, Any]) -> None:
    error = refused(messages=MESSAGES, structured_outputs={"copy_strings": True}, **fields)
    assert error.detail.param == "structured_outputs.copy_strings"
    assert "add tools, or a response_format" in error.detail.message


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_answers_with_strings_of_the_conversation(server: GatewayServer, stream: bool) -> None:
    said = 'Book "Åre" for 7'
    parameters = {
        "type": "object",
        "properties": {"where": {"type": "string"}, "unit": {"enum": ["nights"]}},
        "required": ["where", "unit"],
        "additionalProperties": False,
    }
    with server.client() as client:
        fields: dict[str, Any] = {
            "model": "small",
            "messages": [{"role": "user", "content": said}],
            "tools": [{"type": "function", "function": {"name": "book", "parameters": parameters}}],
            "tool_choice": {"type": "function", "function": {"name": "book"}},
            "max_tokens": 200,
            "extra_body": {"structured_outputs": {"copy_strings": True}},
        }
        if stream:
            pieces = [c.choices[0].delta.tool_calls for c in client.chat.completions.create(stream=True, **fields)]
            text = "".join(call.function.arguments or "" for calls in pieces for call in calls or [])
        else:
            reply = client.chat.completions.create(**fields)
            text = reply.choices[0].message.tool_calls[0].function.arguments
    arguments = json.loads(text)
    assert arguments["unit"] == "nights"
    assert arguments["where"]
    assert arguments["where"] in said


def test_a_conversation_without_text_has_nothing_to_copy(server: GatewayServer) -> None:
    reply = server.chat(
        messages=[{"role": "user", "content": ""}],
        tools=[tool("f")],
        structured_outputs={"copy_strings": True},
    )
    assert reply.status == 400
    error = reply.json["error"]
    assert (error["param"], error["keyword"]) == ("structured_outputs.copy_strings", "copy_strings")


@pytest.mark.parametrize("reasons", [False, True])
def test_a_refusal_beside_tools_names_the_field_and_the_place_among_all_tools(reasons: bool) -> None:
    thoughts = {"reasoning": {"until": "</think>"}} if reasons else None
    inside = "/1/tool_calls" if reasons else ""
    named = {"type": "function", "function": {"name": "g"}}
    only = asked(tools=[tool("f"), tool("g")], tool_choice=named, structured_outputs=thoughts)
    detail = only.refusal(ConstraintRefused("not", f"{inside}/tools/0/function/parameters/not", "no")).detail
    assert (detail.param, detail.pointer) == ("tools", "/tools/1/function/parameters/not")
    assert only.refusal(ConstraintRefused("tools", f"{inside}/tools", "too many")).detail.param == "tools"
    beside = asked(tools=[tool("f")], response_format=schema_format(), structured_outputs=thoughts)
    detail = beside.refusal(ConstraintRefused("not", f"{inside}/properties/a", "no")).detail
    assert (detail.param, detail.pointer) == ("response_format", "/properties/a")
    for keyword, param in (("indent", "whitespace"), ("property_order", "property_order")):
        assert beside.refusal(ConstraintRefused(keyword, inside, "no")).detail.param == f"structured_outputs.{param}"


def test_what_is_wrong_with_the_text_names_copy_strings() -> None:
    found = asked(messages=MESSAGES, structured_outputs={"copy_strings": True}, response_format=schema_format())
    assert (
        found.refusal(ConstraintRefused("copy_strings", "", "empty")).detail.param == "structured_outputs.copy_strings"
    )
    assert found.refusal(ConstraintRefused("not", "/a", "no")).detail.param == "response_format"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs.choice"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": {}, "whitespace_pattern": " *"}}, "structured_outputs.whitespace_pattern"),
        ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs.structural_tag"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.schema"),
        ({"response_format": schema_format(name="a b")}, "response_format.json_schema.name"),
        ({"tools": [tool("f")], "structured_outputs": {"regex": "a"}}, "structured_outputs.regex"),
        ({"tools": [tool("f"), tool("f")]}, "tools"),
        ({"tools": [tool("f g")]}, "tools[0].function.name"),
        ({"tools": [{"type": "custom"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tools": [tool("f")], "tool_choice": "any"}, "tool_choice"),
        ({"tools": [tool("f")], "tool_choice": {"type": "custom", "custom": {"name": "x"}}}, "tool_choice"),
        (
            {"tools": [tool("f")], "tool_choice": {"type": "function", "function": {"name": "h"}}},
            "tool_choice.function.name",
        ),
    ],
)
def test_what_cannot_be_applied_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).detail.param == param


@pytest.mark.parametrize(
    ("structured", "param"),
    [
        ({}, ""),
        ({"whitespace": "compact"}, ".whitespace"),
        ({"choice": ["a"], "property_order": "any"}, ".property_order"),
        ({"json": SCHEMA, "indent": 2}, ".indent"),
        ({"json": SCHEMA, "whitespace": "indented", "indent": 9}, ".indent"),
        ({"json": SCHEMA, "whitespace": "single", "disable_any_whitespace": True}, ".whitespace"),
        ({"json": SCHEMA, "reasoning": {}}, ".reasoning.until"),
        ({"sequence": []}, ".sequence"),
        ({"sequence": [{}]}, ".sequence[0]"),
        ({"sequence": [{"json": SCHEMA, "regex": "a"}]}, ".sequence[0]"),
        ({"alternatives": [{"sequence": [{"json": "{"}]}]}, ".alternatives[0].sequence[0].json"),
        ({"alternatives": [{"choice": ["a"]}], "regex": "a"}, ".alternatives"),
        ({"alternatives": [{"choice": ["a"]}], "copy_strings": True}, ".copy_strings"),
    ],
)
def test_a_combination_that_says_nothing_or_too_much_is_refused_by_name(structured: dict[str, Any], param: str) -> None:
    assert refused(structured_outputs=structured).detail.param == f"structured_outputs{param}"


def test_an_unknown_member_of_a_part_is_refused() -> None:
    assert "max_token" in refused(structured_outputs={"sequence": [{"free_text": {"max_token": 1}}]}).detail.message


def test_thoughts_come_before_tools_and_copied_strings() -> None:
    plain = asked(messages=MESSAGES, tools=[tool("f")], structured_outputs={"copy_strings": True})
    found = asked(
        messages=MESSAGES,
        tools=[tool("f")],
        structured_outputs={"copy_strings": True, "reasoning": {"until": "</think>", "max_tokens": 9}},
    )
    assert plain.constraint is not None
    assert found.constraint == Sequence((FreeText("</think>", 9), plain.constraint))
    assert (found.is_json, found.param, found.tools, found.reasoning) == (False, "tools", plain.tools, "</think>")


def test_a_refusal_behind_thoughts_names_what_the_client_wrote() -> None:
    found = asked(response_format=schema_format(), structured_outputs={"reasoning": {"until": "x"}})
    assert found.is_json
    behind = found.refusal(ConstraintRefused("not", "/1/json/properties/a", "write what is allowed instead")).detail
    assert (behind.param, behind.pointer) == ("response_format", "/properties/a")
    thoughts = found.refusal(ConstraintRefused("max_tokens", "/0/free_text/max_tokens", "is below 0")).detail
    assert (thoughts.param, thoughts.pointer) == ("structured_outputs.reasoning", "/max_tokens")


def test_a_refusal_carries_keyword_pointer_and_field() -> None:
    found = asked(response_format=schema_format())
    detail = found.refusal(ConstraintRefused("not", "/properties/a", "write what is allowed instead")).detail
    assert (detail.param, detail.code) == ("response_format", "constraint_refused")
    assert (detail.keyword, detail.pointer) == ("not", "/properties/a")
    assert "'not'" in detail.message
    assert "/properties/a" in detail.message


CLOSED = {
    "type": "object",
    "properties": {"n": {"enum": [1, 2]}, "l": {"enum": [[], [1]]}},
    "required": ["n", "l"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_shows_thoughts_apart_from_the_answer(server: GatewayServer, stream: bool) -> None:
    fields: dict[str, Any] = {
        "model": "small",
        "messages": [{"role": "user", "content": "Count."}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": CLOSED}},
        "max_tokens": 300,
        "extra_body": {
            "structured_outputs": {
                "reasoning": {"until": "</think>", "max_tokens": 12},
                "whitespace": "indented",
                "indent": 3,
            }
        },
    }
    with server.client() as client:
        if stream:
            deltas = [chunk.choices[0].delta for chunk in client.chat.completions.create(stream=True, **fields)]
            content = "".join(delta.content or "" for delta in deltas)
            reasoning = "".join(getattr(delta, "reasoning", None) or "" for delta in deltas)
        else:
            reply = client.chat.completions.create(**fields)
            assert reply.choices[0].finish_reason == "stop"
            content, reasoning = reply.choices[0].message.content, reply.choices[0].message.reasoning
    assert reasoning
    assert "<" not in reasoning[-1:]
    assert "</think>" not in reasoning + content
    assert json.loads(content)["n"] in (1, 2)
    assert content == json.dumps(json.loads(content), indent=3)


def test_thoughts_that_were_cut_short_are_shown_whole(server: GatewayServer) -> None:
    reply = server.chat(max_tokens=4, structured_outputs={"json": CLOSED, "reasoning": {"until": "</think>"}}).json[
        "choices"
    ][0]
    assert reply["finish_reason"] == "length"
    assert reply["message"]["content"] == ""
    assert reply["message"]["reasoning"]


def test_a_sequence_is_answered_as_one_text(server: GatewayServer) -> None:
    parts = [{"free_text": {"until": "!", "max_tokens": 5}}, {"json": CLOSED}, {"choice": [" (sic)"]}]
    reply = server.chat(max_tokens=200, structured_outputs={"sequence": parts})
    text = reply.json["choices"][0]["message"]["content"]
    rest = text.partition("!")[2]
    assert rest.endswith(" (sic)")
    assert json.loads(rest.removesuffix(" (sic)"))["n"] in (1, 2)


def test_what_a_combination_cannot_hold_is_refused_with_keyword_and_place(server: GatewayServer) -> None:
    reply = server.chat(structured_outputs={"sequence": [{"regex": "a*"}, {"json": CLOSED}]})
    assert reply.status == 400
    error = reply.json["error"]
    assert (error["param"], error["keyword"], error["pointer"]) == (
        "structured_outputs.sequence",
        "sequence",
        "/0/regex",
    )


@pytest.mark.parametrize(
    "structured",
    [
        {"choice": ["\ud800"]},
        {"regex": "\ud800"},
        {"grammar": 'root ::= "\ud800"'},
        {"json": {"not": {"const": "\ud800"}}},
        {"json": json.dumps({"not": {"const": "\ud800"}})},
        {"sequence": [{"free_text": {"until": "\ud800"}}]},
    ],
)
def test_half_a_surrogate_pair_is_refused_wherever_it_stands(server: GatewayServer, structured: dict[str, Any]) -> None:
    reply = server.chat(structured_outputs=structured)
    assert reply.status == 400
    assert reply.json["error"]["type"] == "invalid_request_error"


def test_an_answer_without_a_second_reader_is_marked(server: GatewayServer) -> None:
    grammar = '%ignore " "\nstart: "a"'
    reply = server.chat(structured_outputs={"grammar": grammar}, max_tokens=100)
    assert "not validated a second time" in reply.headers["x-constraint-warnings"]
    assert "x-constraint-warnings" not in server.chat(structured_outputs={"grammar": 'start: "a"'}).headers
