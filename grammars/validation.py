"""The last word: judges a finished answer by an independent validator, which shares no code with the grammars."""

import json
import math
from dataclasses import dataclass
from typing import Any

from grammars import draft
from grammars.constraint import Choice, Constraint, Copied, Grammar, JsonObject, JsonSchema, Regex, Tool, ToolCalls
from grammars.dialects import get_dialect
from grammars.draft import Draft
from grammars.free_strings import FreeStrings
from grammars.pointer import child
from grammars.validators import build

_CLOSING = (
    "additionalProperties",
    "unevaluatedProperties",
    "items",
    "additionalItems",
    "unevaluatedItems",
    "properties",
)


@dataclass(frozen=True, slots=True)
class Violation:
    """Where an answer breaks its constraint.

    pointer: RFC 6901 pointer into the answer (for tool calls into the list of calls, with `arguments` as parsed JSON).
    keyword: the keyword that does not hold, or `json`, `regex`, `choice`, `tools`, `copy_strings`. message: one
    sentence.
    """

    pointer: str
    keyword: str
    message: str


def validate(constraint: Constraint, text: str) -> Violation | None:
    """None when `text` satisfies `constraint`, else the first violation found.

    Formats of the standard are asserted, others are annotations, as in the grammars. A `Grammar` has no second reader
    here: None. Raises ValueError when the constraint itself cannot be read; a compiled one can.
    """
    match constraint:
        case JsonSchema():
            return _validate_json(constraint.schema, text)
        case JsonObject():
            return _validate_json({"type": "object"}, text)
        case Choice():
            if text in constraint.choices:
                return None
            return Violation("", "choice", f"{text!r:.60} is none of the {len(constraint.choices)} choices")
        case Regex():
            schema = {"pattern": f"^(?:{constraint.pattern})$"}
            matches = build(schema, Draft.DRAFT2020).is_valid(text)
            return None if matches else Violation("", "regex", f"{text!r:.60} does not match the expression")
        case ToolCalls():
            return _validate_calls(constraint, text)
        case Copied():
            return validate(constraint.inner, text) or _validate_copies(constraint, text)
        case Grammar():
            return None


def _validate_copies(constraint: Copied, text: str) -> Violation | None:
    for pointer, value in FreeStrings(constraint.inner).values(text):
        if not value or value not in constraint.text:
            return Violation(pointer, "copy_strings", f"{value!r:.60} does not occur in the text")
    return None


def _validate_calls(constraint: ToolCalls, text: str) -> Violation | None:
    calls = get_dialect(constraint.dialect).parse(text)
    if calls is None:
        if constraint.mode == "required":
            return Violation("", "tools", "the answer calls no tool, but must")
        if constraint.answer is not None:
            return validate(constraint.answer, text)
        return None if text else Violation("", "tools", "the answer is empty")
    if not calls or (len(calls) > 1 and not constraint.parallel):
        return Violation("", "tools", f"the answer makes {len(calls)} calls")
    tools = {tool.name: tool for tool in constraint.tools}
    for i, call in enumerate(calls):
        if call.name not in tools:
            return Violation(child("", i, "name"), "tools", f"{call.name!r:.70} is no tool that was offered")
        violation = _validate_json(_arguments_schema(tools[call.name]), call.arguments, needs_object=True)
        if violation is not None:
            return Violation(child("", i, "arguments") + violation.pointer, violation.keyword, violation.message)
    return _validate_json(True, text)


def _arguments_schema(tool: Tool) -> Any:
    return tool.parameters or {"type": "object", "additionalProperties": False}


def _validate_json(schema: Any, text: str, *, needs_object: bool = False) -> Violation | None:
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        return Violation("", "json", f"the answer is no JSON: {error}")
    if needs_object and not isinstance(value, dict):
        return Violation("", "type", "the arguments are no object")
    first = next(iter(build(schema, draft.of(schema)).iter_errors(value)), None)
    if first is None:
        return None
    keyword = first.kind.name
    if keyword == "falseSchema":  # the keyword whose schema is `false`, where that is no name of the client's
        keyword = next((step for step in reversed(first.schema_path) if step in _CLOSING), keyword)
    return Violation(child("", *first.instance_path), keyword, str(first.message)[:300])


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    """A number beyond the range of doubles is still a number: the largest double stands for it."""
    value = float(text)
    return value if math.isfinite(value) else math.copysign(1.7976931348623157e308, value)
