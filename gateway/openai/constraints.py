"""Every constraint of a request becomes one Constraint, or the request is refused: nothing is dropped on the way."""

from dataclasses import dataclass, field, replace
from typing import Any

from msgspec import structs

from gateway.openai.conversation import given_text
from gateway.openai.errors import ApiError, bad_request, refused_constraint, unsupported
from gateway.openai.parts import grammar_of, holds_json, laid_out, parse_schema, read_parts
from gateway.openai.schemas import ChatRequest, FreeTextParam, ResponseFormat, StructuredOutputs
from gateway.openai.tools import ToolUse, check_name
from grammars.constraint import (
    Alternatives,
    Choice,
    Constraint,
    Copied,
    FreeText,
    JsonObject,
    JsonSchema,
    Layout,
    Regex,
    Sequence,
    ToolCalls,
)
from grammars.errors import ConstraintRefused

COPY_STRINGS = "structured_outputs.copy_strings"
REASONING = "structured_outputs.reasoning"
_SAID_OF_OTHERS = ("copy_strings", "reasoning", "whitespace", "indent", "property_order")
_SAID_BY = {
    "copy_strings": COPY_STRINGS,
    "indent": "structured_outputs.whitespace",
    "property_order": "structured_outputs.property_order",
}
"""The fields of what is said of all JSON, by the keyword of a refusal."""
_DEFAULT_INDENT = 2
_REFUSED_OPTIONS = {
    "structural_tag": "use tools, or one of json, regex, choice and grammar.",
    "whitespace_pattern": "set structured_outputs.whitespace to compact, single or indented.",
    "disable_additional_properties": "say it in the schema: additionalProperties: false.",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the answer must satisfy. param: the field that it came from, for error messages; answer_param: where calls
    may be made, the field of an answer that makes none.

    schema, name: the response schema where there is one, for templates that show it to the model. reasoning: the text
    that ends what is thought before the answer; None where nothing is.
    """

    constraint: Constraint | None = None
    param: str | None = None
    answer_param: str | None = None
    schema: dict[str, Any] | bool | None = None
    name: str | None = None
    tools: ToolUse = field(default_factory=ToolUse)
    reasoning: str | None = None

    @property
    def kind(self) -> str | None:
        """The constraint's tag (`json_schema`, `tool_calls`, ...); None for free text."""
        return None if self.constraint is None else str(self.constraint.__struct_config__.tag)

    @property
    def is_json(self) -> bool:
        """Whether the answer, where it is no tool call, is JSON."""
        answer = self.constraint
        if self.reasoning is not None and isinstance(answer, Sequence):
            answer = answer.parts[-1]
        answer = answer.inner if isinstance(answer, Copied) else answer
        answer = answer.answer if isinstance(answer, ToolCalls) else answer
        return isinstance(answer, JsonObject | JsonSchema)

    def refusal(self, refusal: ConstraintRefused) -> ApiError:
        """The refusal with the request's own field as `param`; for a tool, the pointer is to its place among all."""
        param = _SAID_BY.get(refusal.keyword, self.param)
        if self.reasoning is not None:
            # The constraint is a sequence of ours: the client wrote its two parts elsewhere.
            steps = refusal.pointer.split("/")
            param = REASONING if steps[1:2] == ["0"] or refusal.keyword == "until" else param
            refusal = ConstraintRefused(refusal.keyword, "/".join(["", *steps[3:]]).rstrip("/"), refusal.reason)
        if param == "tools":
            steps = refusal.pointer.split("/")
            if steps[1:2] != ["tools"]:
                param = self.answer_param or param
            elif len(steps) > 2:
                steps[2] = str(self.tools.indices[int(steps[2])])
                refusal = ConstraintRefused(refusal.keyword, "/".join(steps), refusal.reason)
        return refused_constraint(refusal, param)


def read_constraint(request: ChatRequest, tools: ToolUse, dialect: str) -> Asked:
    """The request's one constraint. dialect: the tool-call format of the models.

    Raises ApiError 400 for two constraints that exclude each other and for options that are not served.
    """
    found = _read(request, tools, dialect)
    given = request.structured_outputs
    if given is None:
        return found
    found = _laid_out(found, given)
    if given.copy_strings:
        if not isinstance(found.constraint, JsonSchema | ToolCalls):
            raise bad_request(
                f"'{COPY_STRINGS}' needs strings that a schema names; add tools, or a response_format of type "
                "json_schema.",
                COPY_STRINGS,
            )
        found = replace(found, constraint=Copied(found.constraint, given_text(request.messages)))
    return found if given.reasoning is None else _after_reasoning(found, given.reasoning)


def _after_reasoning(answer: Asked, given: FreeTextParam) -> Asked:
    """The answer with thoughts before it."""
    if not given.until:
        raise bad_request(
            f"'{REASONING}.until' is missing; give the text that ends the reasoning, such as </think>.",
            f"{REASONING}.until",
            "missing_required_parameter",
        )
    thoughts = FreeText(given.until, given.max_tokens)
    parts = (thoughts, FreeText() if answer.constraint is None else answer.constraint)
    return replace(answer, constraint=Sequence(parts), param=answer.param or REASONING, reasoning=given.until)


def _laid_out(found: Asked, given: StructuredOutputs) -> Asked:
    """The answer with the white space and the order of members that the request names."""
    options = [name for name in ("whitespace", "indent", "property_order") if getattr(given, name) is not None]
    if not options:
        return found
    param = f"structured_outputs.{options[0]}"
    if given.indent is not None and (given.whitespace != "indented" or not 1 <= given.indent <= 8):
        raise bad_request(
            "'structured_outputs.indent' is 1 to 8 spaces, beside whitespace: indented.", "structured_outputs.indent"
        )
    if given.disable_any_whitespace and given.whitespace in ("single", "indented"):
        raise bad_request(f"'{param}' contradicts disable_any_whitespace; send one of them.", param)
    if found.constraint is None or not holds_json(found.constraint):
        raise bad_request(f"'{param}' needs JSON: add tools, a response_format or a schema.", param)
    layout = None if given.whitespace is None else Layout(given.whitespace, given.indent or _DEFAULT_INDENT)
    return replace(found, constraint=laid_out(found.constraint, layout, given.property_order))


def _read(request: ChatRequest, tools: ToolUse, dialect: str) -> Asked:
    """The constraint without what `structured_outputs` says of constraints that stand elsewhere."""
    asked = [*_response_format(request.response_format), *_structured(request.structured_outputs), *_guided(request)]
    if len(asked) > 1:
        names = " and ".join(f"'{one.param}'" for one in asked)
        raise bad_request(f"{names} both constrain the answer; send one of them.", asked[1].param)
    answer = asked[0] if asked else Asked()
    if not tools.callable:
        return replace(answer, tools=tools)
    if not isinstance(answer.constraint, JsonSchema | JsonObject | None):
        raise bad_request(f"'{answer.param}' cannot be combined with tools; set tool_choice to none.", answer.param)
    otherwise = answer.constraint
    if tools.mode == "required":
        answer, otherwise = Asked(), None  # it is said of the content, and an answer of calls has none
    calls = ToolCalls(tools=tools.callable, mode=tools.mode, parallel=tools.parallel, dialect=dialect, answer=otherwise)
    return Asked(calls, "tools", answer.param, answer.schema, answer.name, tools)


def in_dialect(constraint: Constraint, dialect: str) -> Constraint:
    """The same constraint with its calls in another format."""
    match constraint:
        case ToolCalls():
            return constraint if constraint.dialect == dialect else structs.replace(constraint, dialect=dialect)
        case Copied(inner=ToolCalls() as inner):
            return structs.replace(constraint, inner=structs.replace(inner, dialect=dialect))
        case Sequence() | Alternatives():
            return structs.replace(constraint, parts=tuple(in_dialect(part, dialect) for part in constraint.parts))
    return constraint


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
    return [Asked(constraint, "response_format", schema=form.schema, name=form.name)]


def _structured(given: StructuredOutputs | None) -> list[Asked]:
    if given is None:
        return []
    for name, why in _REFUSED_OPTIONS.items():
        if getattr(given, name):
            raise unsupported(f"structured_outputs.{name}", why)
    found = _asked(given.json, given.regex, given.choice, given.grammar, "structured_outputs.")
    if given.json_object:
        found.append(Asked(JsonObject(), "structured_outputs.json_object"))
    if given.sequence is not None:
        param = "structured_outputs.sequence"
        found.append(Asked(Sequence(read_parts(given.sequence, param)), param))
    if given.alternatives is not None:
        param = "structured_outputs.alternatives"
        found.append(Asked(Alternatives(read_parts(given.alternatives, param)), param))
    if not found and all(getattr(given, name) is None for name in _SAID_OF_OTHERS):
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
        schema = parse_schema(json, f"{prefix}json")
        found.append(Asked(JsonSchema(schema), f"{prefix}json", schema=schema))
    if regex is not None:
        found.append(Asked(Regex(regex), f"{prefix}regex"))
    if choice is not None:
        if not choice:
            raise bad_request(f"'{prefix}choice' is empty; list the answers.", f"{prefix}choice")
        found.append(Asked(Choice(tuple(choice)), f"{prefix}choice"))
    if grammar is not None:
        found.append(Asked(grammar_of(grammar), f"{prefix}grammar"))
    return found
