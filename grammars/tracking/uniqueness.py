"""Whether items can be kept different without ever leaving an answer that cannot be finished."""

import math
from collections.abc import Mapping
from typing import Any, Final

from grammars.normal_form import Schema
from grammars.tracking.branches import Branch, branches, kinds, only
from grammars.tracking.rules import Unique
from grammars.tracking.spelling import canonical, spelled

_MOST: Final = 1_000


class NotUnique(ValueError):
    """Why not, as the reason of a refusal."""


def read_unique(part: Branch, definitions: Mapping[str, Schema]) -> tuple[Unique, ...]:
    """The rule of an array branch with `uniqueItems`, for each of `prefixItems` and for the rest. Raises NotUnique.

    An item goes on being written only while it can still become another value than each item before it. That can be
    told for values of which there are finitely many, for whole numbers, for strings that may take any further
    character, and for objects and arrays that may take any further member.
    """
    rest: Schema = part.get("items", True)
    schemas = [*part.get("prefixItems", ()), *(() if rest is False else (rest,))]
    found = [_read(schema, definitions) for schema in schemas]
    least = part.get("minItems", 0)
    if (
        len(found) > 1
        and least > 1
        and any(not one.has_more for one in found)
        and any(s != schemas[0] for s in schemas)
    ):
        raise NotUnique("may leave no value for an item that must come: lower `minItems`, or treat all items alike")
    for one in found:
        n = sum(map(len, one.finite.values()))
        if not one.has_more and n < least:
            raise NotUnique(f"asks for {least} different items of {n} values: lower `minItems`")
    return tuple(found)


def _read(schema: Schema, definitions: Mapping[str, Schema]) -> Unique:
    found = branches(schema, definitions)
    if found is None:
        raise NotUnique("holds items whose alternatives overlap: describe each kind of item once")
    finite: dict[str, dict[bytes, str]] = {}
    has_more, integers, longest = False, None, None
    for kind in ("string", "number", "boolean", "null", "object", "array"):
        of_kind = [only(branch, frozenset({kind})) for branch in found if kind in kinds(branch)]
        if not of_kind:
            continue
        values = _finite(kind, of_kind)
        if values is not None:
            finite[kind] = {spelled(value): canonical(value) for value in values}
            continue
        has_more = True
        match kind:
            case "string":
                longest = _longest(of_kind)
            case "number":
                integers = _integers(of_kind)
            case "object":
                _require_open(of_kind, "additionalProperties", "maxProperties")
            case _:
                _require_open(of_kind, "items", "maxItems")
    return Unique(finite, has_more, integers, longest)


def _finite(kind: str, found: list[Branch]) -> list[Any] | None:
    """All values of a kind where they are few; None where they are many. Raises NotUnique for a mixture."""
    values: list[Any] = []
    more = 0
    for branch in found:
        if "enum" in branch:
            values += branch["enum"]
        elif kind == "boolean":
            values += [False, True]
        elif kind == "null":
            values.append(None)
        elif kind == "number" and (whole := _few_integers(branch)) is not None:
            values += whole
        elif kind == "string" and (listed := _few_texts(branch)) is not None:
            values += listed
        else:
            more += 1
    if kind in ("object", "array") and values:
        raise NotUnique(f"holds items out of listed {kind}s: list strings or numbers instead")
    if more and values and not any(_is_unbounded(kind, branch) for branch in found):
        raise NotUnique(f"mixes listed and other {kind}s: use one of them")
    return None if more else values


def _few_texts(branch: Branch) -> list[str] | None:
    if branch.get("maxLength") == 0:
        return [""]
    if "pattern" not in branch:
        return None
    from grammars.automata import intersection, texts

    patterns = [branch["pattern"], *(member["pattern"] for member in branch.get("allOf", ()) if "pattern" in member)]
    low, high = branch.get("minLength", 0), branch.get("maxLength")
    if low or high is not None:
        patterns.append(f"[\\s\\S]{{{low},{'' if high is None else high}}}")
    found = texts(intersection(patterns) if len(patterns) > 1 else patterns[0], _MOST)
    if found is None:
        raise NotUnique("holds strings with a `pattern` that many texts match: drop the pattern, or list them")
    return found


def _few_integers(branch: Branch) -> list[int] | None:
    bounds = _integer_bounds(branch)
    if bounds is None or bounds[0] is None or bounds[1] is None or bounds[1] - bounds[0] >= _MOST:
        return None
    if "multipleOf" in branch or "allOf" in branch:
        return None
    return list(range(bounds[0], bounds[1] + 1))


def _integers(found: list[Branch]) -> tuple[int | None, int | None] | None:
    """Bounds of whole numbers; None where fractions may come and any number may go on."""
    for branch in found:
        if branch.keys() & {"multipleOf", "allOf"}:
            raise NotUnique("holds numbers with `multipleOf`: list them")
    if any(_is_unbounded("number", branch) and branch["type"] == ["number"] for branch in found):
        return None
    if len(found) == 1 and (bounds := _integer_bounds(found[0])) is not None:
        return bounds
    raise NotUnique("holds numbers between bounds: make them integers, or drop the bounds")


def _integer_bounds(branch: Branch) -> tuple[int | None, int | None] | None:
    if branch.get("type") != ["integer"]:
        return None
    lows = [math.ceil(branch["minimum"])] if "minimum" in branch else []
    lows += [math.floor(branch["exclusiveMinimum"]) + 1] if "exclusiveMinimum" in branch else []
    highs = [math.floor(branch["maximum"])] if "maximum" in branch else []
    highs += [math.ceil(branch["exclusiveMaximum"]) - 1] if "exclusiveMaximum" in branch else []
    return max(lows, default=None), min(highs, default=None)


def _longest(found: list[Branch]) -> int | None:
    """Characters of the longest string; None for no end."""
    if any("maxLength" not in branch and "enum" not in branch for branch in found):
        return None
    return max(int(branch["maxLength"]) for branch in found if "maxLength" in branch)


def _is_unbounded(kind: str, branch: Branch) -> bool:
    return "enum" not in branch and branch.keys() <= {"type", "minLength" if kind == "string" else "type"}


def _require_open(found: list[Branch], rest: str, most: str) -> None:
    if any(branch.get(rest, True) is False or most in branch or "uniqueItems" in branch for branch in found):
        raise NotUnique(f"holds values that cannot be extended (`{rest}`, `{most}`): open them, or drop it")
