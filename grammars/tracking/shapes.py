"""Objects of several shapes whose members come in any order: told apart by their values, as these are finished.

The backend follows all shapes at once, and drops one when a value does not fit it. So must the rule, or the two would
disagree on what may come: a finished value is judged for every shape by its text. That is exact for values without an
order or a spelling of their own, and only such members may differ between shapes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from grammars.normal_form import Schema
from grammars.tracking.branches import Branch, branches, kinds
from grammars.tracking.objects import are_same, member_of, merged_names
from grammars.tracking.rules import Alternative
from grammars.tracking.spelling import parsed

_MOST: Final = 16
_MOST_DEEP: Final = 6


@dataclass(frozen=True, slots=True)
class Judge:
    """Whether the text of a finished value fits one shape. validator: of the member's schema; None for any value."""

    validator: Any
    takes_fractions: bool

    def fits(self, text: bytes) -> bool:
        """Whether the value that is spelled `text` fits."""
        if self.validator is None:
            return True
        if not self.takes_fractions and text[:1] in b"-0123456789" and any(byte in b".eE" for byte in text):
            return False  # the backend writes whole numbers without
        return bool(self.validator.is_valid(parsed(text)))


@dataclass(frozen=True, slots=True)
class Shapes:
    """names: of all shapes, with the schema of a member that is the same in all of them, and None for others.

    members: of each shape, the schemas of its names. additional: of each, whether further names may come.
    """

    names: dict[str, Schema | None]
    members: tuple[dict[str, Schema], ...]
    additional: tuple[bool, ...]
    alternatives: tuple[Alternative, ...]


def shapes(parts: list[Branch], definitions: Mapping[str, Schema]) -> Shapes | None:
    """Object branches as shapes; None where they count members or differ in more than can be judged."""
    if not 1 < len(parts) <= _MOST or any(part.keys() & {"patternProperties", "minProperties"} for part in parts):
        return None
    if any("maxProperties" in part or part.get("additionalProperties", True) not in (True, False) for part in parts):
        return None
    names = merged_names(parts) or [*dict.fromkeys(name for part in parts for name in part.get("properties", ()))]
    if any(name not in names for part in parts for name in part.get("required", ())):
        return None
    known: dict[str, Schema | None] = {}
    for name in names:
        found = [member for member in (member_of(part, name) for part in parts) if member is not False]
        if all(are_same(member, found[0], definitions) for member in found[1:]):
            known[name] = found[0] if found else False
        elif all(_is_plain(member, definitions, _MOST_DEEP) for member in found):
            known[name] = None
        else:
            return None
    bits = {name: 1 << i for i, name in enumerate(names)}
    alternatives = tuple(
        Alternative(
            required=sum(bits[name] for name in part.get("required", ())),
            forbidden=sum(bit for name, bit in bits.items() if member_of(part, name) is False),
            is_closed=part.get("additionalProperties", True) is False,
        )
        for part in parts
    )
    if any(one.required & one.forbidden for one in alternatives):
        return None
    members: list[dict[str, Schema]] = []
    for part in parts:
        schemas = {name: member_of(part, name) for name in names}
        members.append({name: member for name, member in schemas.items() if member is not False})
    return Shapes(known, tuple(members), tuple(not one.is_closed for one in alternatives), alternatives)


def judge(schema: Schema, definitions: Mapping[str, Schema], validator: Callable[[Schema], Any]) -> Judge:
    """The judge of one member. validator: makes one of a schema."""
    if schema is True or schema == {}:
        return Judge(None, True)
    found = branches(schema, definitions) or []
    numbers = [branch for branch in found if "number" in kinds(branch)]
    takes_fractions = any("number" in branch.get("type", ()) for branch in numbers)
    return Judge(validator(schema), takes_fractions)


def _is_plain(schema: Schema, definitions: Mapping[str, Schema], depth: int) -> bool:
    """Whether values have one spelling, and their members, if any, no order."""
    if schema is True or schema == {}:
        return True
    found = branches(schema, definitions)
    if found is None or not depth:
        return False
    for branch in found:
        if "enum" in branch:
            if any(isinstance(value, float | dict | list) for value in branch["enum"]):
                return False
        elif kinds(branch) & {"object"}:
            return False
        elif "array" in kinds(branch):
            inner = [*branch.get("prefixItems", ()), branch.get("items", True)]
            if branch.keys() & {"uniqueItems", "contains"}:
                return False
            if any(member is not False and not _is_scalar(member, definitions) for member in inner):
                return False
    return True


def _is_scalar(schema: Schema, definitions: Mapping[str, Schema]) -> bool:
    """Whether items are strings, booleans, nulls, or numbers that need not be whole."""
    found = branches(schema, definitions)
    if found is None or schema is True:
        return False
    for branch in found:
        if kinds(branch) & {"object", "array"} or "integer" in branch.get("type", ()):
            return False
        if any(isinstance(value, float) for value in branch.get("enum", ())):
            return False
    return True
