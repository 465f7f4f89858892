"""The parts of a combined constraint, as a request writes them, and how white space and order are said of all JSON."""

from typing import Any

import msgspec

from gateway.openai.errors import bad_request
from gateway.openai.schemas import FreeTextParam, PartParam
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
    Order,
    Regex,
    Sequence,
    ToolCalls,
)


def grammar_of(text: str) -> Grammar:
    """A grammar in either syntax: Lark's rules are `name: ...`, EBNF's `name ::= ...`, as vLLM tells them apart."""
    return Grammar(text, "ebnf" if "::=" in text else "lark")


def free_text_of(given: FreeTextParam) -> FreeText:
    """Free text; its values are judged with the whole constraint."""
    return FreeText(given.until, given.max_tokens)


def read_parts(parts: list[PartParam], param: str) -> tuple[Constraint, ...]:
    """The constraints of a list of parts. Raises ApiError 400 for a part that sets no member, or several."""
    if not parts:
        raise bad_request(f"'{param}' is empty; give at least one part.", param)
    return tuple(read_part(part, f"{param}[{i}]") for i, part in enumerate(parts))


def read_part(part: PartParam, param: str) -> Constraint:
    """The constraint of one part. Raises ApiError 400 as `read_parts`."""
    names = [name for name in part.__struct_fields__ if getattr(part, name) not in (None, False)]
    if part.json is False:
        names.insert(0, "json")
    if len(names) != 1:
        allowed = ", ".join(part.__struct_fields__)
        raise bad_request(f"'{param}' sets {' and '.join(names) or 'nothing'}; set exactly one of {allowed}.", param)
    param = f"{param}.{names[0]}"
    if part.json is not None:
        return JsonSchema(parse_schema(part.json, param))
    if part.regex is not None:
        return Regex(part.regex)
    if part.choice is not None:
        return Choice(tuple(part.choice))
    if part.grammar is not None:
        return grammar_of(part.grammar)
    if part.free_text is not None:
        return free_text_of(part.free_text)
    if part.sequence is not None:
        return Sequence(read_parts(part.sequence, param))
    if part.alternatives is not None:
        return Alternatives(read_parts(part.alternatives, param))
    return JsonObject()


def parse_schema(json: dict[str, Any] | str | bool, param: str) -> dict[str, Any] | bool:
    """A schema given as an object, or as its JSON text. Raises ApiError 400 for a text that is none."""
    if not isinstance(json, str):
        return json
    try:
        return msgspec.json.decode(json, type=dict[str, Any] | bool)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise bad_request(f"'{param}' is a string but not a JSON Schema: {exc}.", param) from exc


def holds_json(constraint: Constraint | None) -> bool:
    """Whether JSON of ours is a part of the constraint."""
    match constraint:
        case Sequence() | Alternatives():
            return any(map(holds_json, constraint.parts))
        case Copied():
            return True
    return isinstance(constraint, JsonSchema | JsonObject | ToolCalls)


def laid_out(constraint: Constraint, layout: Layout | None, order: Order | None) -> Constraint:
    """The constraint with this layout and order in all its JSON; None leaves either as it is."""
    match constraint:
        case JsonObject():
            return msgspec.structs.replace(constraint, layout=layout or constraint.layout)
        case JsonSchema():
            return msgspec.structs.replace(
                constraint, layout=layout or constraint.layout, order=order or constraint.order
            )
        case ToolCalls():
            answer = None if constraint.answer is None else laid_out(constraint.answer, layout, order)
            return msgspec.structs.replace(
                constraint, layout=layout or constraint.layout, order=order or constraint.order, answer=answer
            )
        case Copied():
            return msgspec.structs.replace(constraint, inner=laid_out(constraint.inner, layout, order))
        case Sequence() | Alternatives():
            parts = tuple(laid_out(part, layout, order) for part in constraint.parts)
            return msgspec.structs.replace(constraint, parts=parts)
    return constraint
