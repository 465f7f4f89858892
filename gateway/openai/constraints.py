"""Every constraint of a request becomes one Constraint, or the request is refused: nothing is dropped on the way."""

from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from gateway.openai.conversation import given_text
from gateway.openai.errors import ApiError, bad_request, refused_constraint, unsupported
from gateway.openai.schemas import ChatRequest, ResponseFormat, StructuredOutputs
from gateway.openai.tools import ToolUse, check_name
from grammars.constraint import Choice, Constraint, Copied, Grammar, JsonObject, JsonSchema, Regex, ToolCalls
from grammars.errors import ConstraintRefused

COPY_STRINGS = "structured_outputs.copy_strings"
_REFUSED_OPTIONS = {
    "structural_tag": "use tools, or one of json, regex, choice and grammar.",
    "whitespace_pattern": "white space between JSON tokens is always compact.",
    "disable_additional_properties": "say it in the schema: additionalProperties: false.",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the answer must satisfy. param: the field that it came from, for error messages.

    schema, name: the response schema where there is one, for templates that show it to the model.
    """

    constraint: Constraint | None = None
    param: str | None = None
    schema: dict[str, Any] | bool | None = None
    name: str | None = None
    tools: ToolUse = field(default_factory=ToolUse)

    @property
    def kind(self) -> str | None:
        """The constraint's tag (`json_schema`, `tool_calls`, ...); None for free text."""
        return None if self.constraint is None else str(self.constraint.__struct_config__.tag)

    @property
    def is_json(self) -> bool:
        """Whether the answer, where it is no tool call, is JSON."""
        answer = self.constraint.inner if isinstance(self.constraint, Copied) else self.constraint
        answer = answer.answer if isinstance(answer, ToolCalls) else answer
        return isinstance(answer, JsonObject | JsonSchema)

    def refusal(self, refusal: ConstraintRefused) -> ApiError:
        """The refusal with the request's own field as `param`; for a tool, the tool's schema."""
        return refused_constraint(refusal, COPY_STRINGS if refusal.keyword == "copy_strings" else self.param)


def read_constraint(request: ChatRequest, tools: ToolUse, dialect: str) -> Asked:
    """The request's one constraint. dialect: the tool-call format of the models.

    Raises ApiError 400 for two constraints that exclude each other and for options that are not served.
    """
    found = _read(request, tools, dialect)
    if request.structured_outputs is None or not request.structured_outputs.copy_strings:
        return found
    if not isinstance(found.constraint, JsonSchema | ToolCalls):
        raise bad_request(
            f"'{COPY_STRINGS}' needs strings that a schema names; add tools, or a response_format of type json_schema.",
            COPY_STRINGS,
        )
    return replace(found, constraint=Copied(found.constraint, given_text(request.messages)))


def _read(request: ChatRequest, tools: ToolUse, dialect: str) -> Asked:
    """The constraint without `copy_strings`."""
    asked = [*_response_format(request.response_format), *_structured(request.structured_outputs), *_guided(request)]
    if len(asked) > 1:
        names = " and ".join(f"'{one.param}'" for one in asked)
        raise bad_request(f"{names} both constrain the answer; send one of them.", asked[1].param)
    answer = asked[0] if asked else Asked()
    if not tools.callable:
        return replace(answer, tools=tools)
    if not isinstance(answer.constraint, JsonSchema | JsonObject | None):
        raise bad_request(f"'{answer.param}' cannot be combined with tools; set tool_choice to none.", answer.param)
    calls = ToolCalls(
        tools=tools.callable, mode=tools.mode, parallel=tools.parallel, dialect=dialect, answer=answer.constraint
    )
    return Asked(calls, "tools", answer.schema, answer.name, tools)


def _response_format(given: ResponseFormat | None) -> list[Asked]:
    if given is None or given.type == "text":
        return []
    if given.schema is not None or given.structural_tag is not None:
        raise unsupported("response_format", 'a schema goes into {"type": "json_schema", "json_schema": {...}}.')
    if given.type == "json_object":
        return [Asked(JsonObject(), "response_format")]
    if given.type != "json_schema":
        raise unsupported("response_format.type", "use text, json_object or json_schema.")
    form = given.json_schema
    if form is None or form.schema is None:
        param = "response_format.json_schema" + ("" if form is None else ".schema")
        raise bad_request(f"'{param}' is missing.", param, "missing_required_parameter")
    check_name(form.name, "response_format.json_schema.name")
    constraint = JsonSchema(form.schema, bool(form.strict))
    return [Asked(constraint, "response_format", form.schema, form.name)]


def _structured(given: StructuredOutputs | None) -> list[Asked]:
    if given is None:
        return []
    for name, why in _REFUSED_OPTIONS.items():
        if getattr(given, name):
            raise unsupported(f"structured_outputs.{name}", why)
    found = _asked(given.json, given.regex, given.choice, given.grammar, "structured_outputs.")
    if given.json_object:
        found.append(Asked(JsonObject(), "structured_outputs.json_object"))
    if not found and given.copy_strings is None:
        raise bad_request("'structured_outputs' is empty; set json, regex, choice or grammar.", "structured_outputs")
    return found


def _guided(request: ChatRequest) -> list[Asked]:
    return _asked(request.guided_json, request.guided_regex, request.guided_choice, request.guided_grammar, "guided_")


def _asked(
    json: dict[str, Any] | str | bool | None,
    regex: str | None,
    choice: list[str] | None,
    grammar: str | None,
    prefix: str,
) -> list[Asked]:
    """vLLM's four constraints, under their present and their former names."""
    found = []
    if json is not None:
        schema = _parse_schema(json, f"{prefix}json")
        found.append(Asked(JsonSchema(schema), f"{prefix}json", schema))
    if regex is not None:
        found.append(Asked(Regex(regex), f"{prefix}regex"))
    if choice is not None:
        if not choice:
            raise bad_request(f"'{prefix}choice' is empty; list the answers.", f"{prefix}choice")
        found.append(Asked(Choice(tuple(choice)), f"{prefix}choice"))
    if grammar is not None:
        # Lark's rules are `name: ...`, EBNF's `name ::= ...`; vLLM tells them apart in the same way.
        found.append(Asked(Grammar(grammar, "ebnf" if "::=" in grammar else "lark"), f"{prefix}grammar"))
    return found


def _parse_schema(json: dict[str, Any] | str | bool, param: str) -> dict[str, Any] | bool:
    """A schema given as an object, or as its JSON text."""
    if not isinstance(json, str):
        return json
    try:
        return msgspec.json.decode(json, type=dict[str, Any] | bool)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise bad_request(f"'{param}' is a string but not a JSON Schema: {exc}.", param) from exc
