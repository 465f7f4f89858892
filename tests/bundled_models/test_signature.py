"""The prompt format: the Jinja template and the Python definition write the same bytes."""

from pathlib import Path
from typing import Any, Literal

import pydantic
import pytest
from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

import bundled_models
from bundled_models import signature
from bundled_models.catalogue import load
from bundled_models.generator import Generator


@pytest.fixture(scope="module")
def template() -> Template:
    source = Path(bundled_models.__file__).with_name("chat_template.jinja").read_text(encoding="utf-8")
    return ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(source)


class Place(pydantic.BaseModel):
    """Where something is."""

    street: str
    number: int | None
    tags: list[Literal["old", "new"]] = []


class Person(pydantic.BaseModel):
    name: str
    home: Place
    others: list[Place] | None = None
    boss: "Person | None" = None
    score: float = 0.5
    kind: Literal["only"] = "only"


SCHEMAS: list[dict[str, Any]] = [
    Person.model_json_schema(),
    Place.model_json_schema(),
    {"type": "object", "properties": {}},
    {"properties": {"a": {}, "b": True, "c": {"type": ["integer", "null"]}, "d": {"type": ["integer", "string"]}}},
    {"type": "object", "properties": {"x": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}, "required": ["x"]},
    {"type": "object", "properties": {"e": {"enum": [1, None, "two", True, 2.5]}, "n": {"type": "null"}}},
    {"type": "array", "items": {"type": "object", "properties": {"k": {"allOf": [{"const": 3}]}}, "required": ["k"]}},
    {"type": "array"},
    {"$ref": "#/definitions/Node", "definitions": {"Node": {"properties": {"next": {"$ref": "#/definitions/Node"}}}}},
]


@pytest.mark.parametrize("split", ["train", "held"])
def test_template_and_python_agree_on_generated_prompts(template: Template, split: Any) -> None:
    generator = Generator(5, split)
    for _ in range(80):
        example = generator.example()
        system = [{"role": "system", "content": example.system}] if example.system else []
        messages = [*system, *example.messages]
        written = template.render(
            messages=messages,
            tools=list(example.tools) or None,
            response_schema=example.schema,
            response_name=example.schema_name,
            add_generation_prompt=True,
        )
        assert written == example.prompt
        assert written == signature.render(example.tools, example.schema, None, messages, example.schema_name)


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("name", [None, "", "Other"])
def test_template_and_python_agree_on_schemas(template: Template, schema: dict[str, Any], name: str | None) -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "does\nit  well", "parameters": schema}}
    given: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], "tools": [tool]}
    written = template.render(response_schema=schema, response_name=name, add_generation_prompt=True, **given)
    assert written == signature.render([tool], schema, None, given["messages"], name)


def test_template_and_python_agree_on_calls_results_and_parts(template: Template) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": 'x"\\\n', "b": [1, 2.5, None]}}}
    text = {"id": "2", "type": "function", "function": {"name": "g", "arguments": '{"c":true}'}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "One."},
        {"role": "developer", "content": [{"type": "text", "text": "Two."}]},
        {"role": "user", "content": [{"type": "text", "text": "do "}, {"type": "text", "text": "it"}]},
        {"role": "assistant", "content": None, "tool_calls": [call, text]},
        {"role": "tool", "tool_call_id": "1", "content": "fine"},
        {"role": "assistant", "content": "Done."},
    ]
    expected = (
        "<|system|>One.\nTwo.<|user|>do it"
        '<|assistant|>[{"name":"f","arguments":{"a":"x\\"\\\\\\n","b":[1,2.5,null]}},{"name":"g","arguments":{"c":true}}]'
        "<|end|><|result|>fine<|assistant|>Done.<|end|>"
    )
    assert signature.render(messages=messages, add_generation_prompt=False) == expected
    assert template.render(messages=messages, add_generation_prompt=False) == expected


def test_pydantic_models_read_as_signatures() -> None:
    assert signature.schema_line(Place.model_json_schema()) == (
        "Place(street:str,number:int,tags?:[old|new]) Where something is."
    )
    line = signature.schema_line(Person.model_json_schema())
    place = "{street:str,number:int,tags?:[old|new]}"
    assert line.startswith(f"(name:str,home:{place},others?:[{place}],boss?:") or line.startswith(
        f"Person(name:str,home:{place},others?:[{place}],boss?:"
    )


def test_descriptions_are_cut_to_fourteen_words() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "word " * 40}}
    assert signature.tool_line(tool) == "f() " + " ".join(["word"] * 14)


def test_every_catalogue_tool_has_a_one_line_signature() -> None:
    for tool in load().tools:
        properties = {p.name: p.json_schema() for p in tool.parameters}
        function = {"name": tool.name, "parameters": {"type": "object", "properties": properties}}
        assert "\n" not in signature.tool_line({"type": "function", "function": function})
