"""The last word: judges a finished answer by an independent validator, which shares no code with the grammars."""

import json
import math
from dataclasses import dataclass
from typing import Any

import msgspec

from grammars import draft
from grammars.closed_arguments import closed
from grammars.constraint import (
    Alternatives,
    Choice,
    Constraint,
    Copied,
    FreeText,
    Grammar,
    JsonObject,
    JsonSchema,
    Layout,
    Regex,
    Sequence,
    Tool,
    ToolCalls,
)
from grammars.dialects import get_dialect
from grammars.draft import Draft
from grammars.evaluation_count import is_affordable
from grammars.free_strings import FreeStrings
from grammars.layouts import is_laid_out
from grammars.linear_patterns import linear_patterns
from grammars.pointer import child
from grammars.second_reader import judge, why_unread
from grammars.sequences import Cutter, TooManyEnds
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
    keyword: the keyword that does not hold, or `json`, `regex`, `choice`, `tools`, `copy_strings`, `grammar`,
    `whitespace`, `sequence`, `alternatives`. message: one sentence.
    """

    pointer: str
    keyword: str
    message: str


class Unjudged(Exception):
    """No second reader can tell whether the answer satisfies the constraint; the message says why."""


def validate(constraint: Constraint, text: str) -> Violation | None:
    """None when `text` satisfies `constraint`, else the first violation found.

    Formats of the standard are asserted, others are annotations, as in the grammars. How many tokens a free text took
    is not read from the text. Raises Unjudged where it cannot be told.
    """
    match constraint:
        case JsonSchema():
            return _validate_json(constraint.schema, text) or _validate_layout(constraint.layout, text)
        case JsonObject():
            return _validate_json({"type": "object"}, text) or _validate_layout(constraint.layout, text)
        case Choice():
            if text in constraint.choices:
                return None
            return Violation("", "choice", f"{text!r:.60} is none of the {len(constraint.choices)} choices")
        case Regex():
            if _first_error(_whole(constraint), Draft.DRAFT2020, text) is None:
                return None
            return Violation("", "regex", f"{text!r:.60} does not match the expression")
        case ToolCalls():
            return _validate_calls(constraint, text)
        case Copied():
            return validate(constraint.inner, text) or _validate_copies(constraint, text)
        case Grammar():
            return _validate_grammar(constraint, text)
        case FreeText() | Sequence() | Alternatives():
            return _validate_combined(constraint, text)


def unjudged(constraint: Constraint) -> str | None:
    """Why answers under this constraint have no second reader, known before there are any; None where they have."""
    match constraint:
        case Grammar():
            return why_unread(constraint)
        case Sequence() | Alternatives():
            return next((why for part in constraint.parts if (why := unjudged(part)) is not None), None)
        case Copied():
            return unjudged(constraint.inner)
        case Regex():
            return _unread(_whole(constraint))
        case JsonSchema():
            return _unread(constraint.schema)
        case ToolCalls():
            schemas = [tool.parameters for tool in constraint.tools if tool.parameters]
            return next((why for schema in schemas if (why := _unread(schema)) is not None), None) or (
                None if constraint.answer is None else unjudged(constraint.answer)
            )
    return None


def _unread(schema: Any) -> str | None:
    if b"attern" not in msgspec.json.encode(schema):
        return None  # what the normaliser reads apart from patterns, jsonschema-rs reads as well
    try:
        _validator(schema, draft.of(schema))
    except Unjudged as error:
        return str(error)
    return None


def _whole(constraint: Regex) -> dict[str, Any]:
    return {"allOf": [{"pattern": pattern} for pattern in linear_patterns(constraint.pattern, whole=True)]}


def _validator(schema: Any, version: Draft) -> Any:
    """The validator. Raises Unjudged."""
    try:
        return build(schema, version)
    except ValueError as error:
        raise Unjudged(f"the validator does not read it: {str(error)[:100]}".split("\n")[0]) from error


def _first_error(schema: Any, version: Draft, value: Any) -> Any:
    if not is_affordable(schema, version, value):
        raise Unjudged("its references multiply, so that a validator would take too long")
    return _first_broken(_validator(schema, version), value)


def _first_broken(validator: Any, value: Any) -> Any:
    return next(iter(validator.iter_errors(value)), None)


def _validate_grammar(constraint: Grammar, text: str) -> Violation | None:
    verdict = judge(constraint, text)
    if verdict is None:
        raise Unjudged(why_unread(constraint) or "the grammar takes quadratic time")
    return None if verdict else Violation("", "grammar", f"{text!r:.60} is no sentence of the grammar")


def _validate_combined(constraint: FreeText | Sequence | Alternatives, text: str) -> Violation | None:
    expressions: dict[str, Any] = {}

    def holds(part: Constraint, piece: str) -> bool:
        if not isinstance(part, Regex):
            return validate(part, piece) is None
        if part.pattern not in expressions:  # tried at many places
            expressions[part.pattern] = _validator(_whole(part), Draft.DRAFT2020)
        return _first_broken(expressions[part.pattern], piece) is None

    try:
        fits = Cutter(holds).fits(constraint, text)
    except TooManyEnds as error:
        raise Unjudged("its expressions can end in too many places") from error
    if fits:
        return None
    name = str(constraint.__struct_config__.tag)
    return Violation("", name, f"{text!r:.60} cannot be cut into the parts")


def _validate_layout(layout: Layout | None, text: str) -> Violation | None:
    if layout is None or is_laid_out(text, layout):
        return None
    return Violation("", "whitespace", f"the white space is not {layout.whitespace}")


def _validate_copies(constraint: Copied, text: str) -> Violation | None:
    for pointer, value in FreeStrings(constraint.inner).values(text):
        if not value or value not in constraint.text:
            return Violation(pointer, "copy_strings", f"{value!r:.60} does not occur in the text")
    return None


def _validate_calls(constraint: ToolCalls, text: str) -> Violation | None:
    dialect = get_dialect(constraint.dialect)
    may_talk = constraint.mode == "auto" and constraint.answer is None
    try:
        calls = dialect.parse(text, after_text=may_talk)
    except ValueError as error:
        return Violation("", "tools", f"the calls are malformed: {error}")
    if calls is None:
        if constraint.mode == "required":
            return Violation("", "tools", "the answer calls no tool, but must")
        if constraint.answer is not None:
            return validate(constraint.answer, text)
        return None if text else Violation("", "tools", "the answer is empty")
    if not calls and may_talk and dialect.no_calls and _is_same_json(text, dialect.write([])):
        return None
    if not calls or (len(calls) > 1 and not constraint.parallel):
        return Violation("", "tools", f"the answer makes {len(calls)} calls")
    tools = {tool.name: tool for tool in constraint.tools}
    for i, call in enumerate(calls):
        if call.name not in tools:
            return Violation(child("", i, "name"), "tools", f"{call.name!r:.70} is no tool that was offered")
        violation = _validate_json(_arguments_schema(tools[call.name]), call.arguments, needs_object=True)
        if violation is not None:
            return Violation(child("", i, "arguments") + violation.pointer, violation.keyword, violation.message)
        if _validate_layout(constraint.layout, call.arguments) is not None:
            return Violation(child("", i, "arguments"), "whitespace", "the white space is not as asked for")
    return _validate_json(True, text) if dialect.is_json and not dialect.marker else None


def _is_same_json(text: str, other: str) -> bool:
    try:
        return bool(json.loads(text) == json.loads(other))
    except (ValueError, RecursionError):
        return False


def _arguments_schema(tool: Tool) -> Any:
    return closed(tool.parameters) if tool.parameters else {"type": "object", "additionalProperties": False}


def _validate_json(schema: Any, text: str, *, needs_object: bool = False) -> Violation | None:
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        return Violation("", "json", f"the answer is no JSON: {error}")
    if needs_object and not isinstance(value, dict):
        return Violation("", "type", "the arguments are no object")
    first = _first_error(schema, draft.of(schema), value)
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
