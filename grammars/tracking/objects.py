"""Several object branches as one shape with alternatives, or told apart by a tag."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any, Final

from grammars.automata import complement, intersection, matches
from grammars.normal_form import Schema
from grammars.regex_text import literal
from grammars.tracking.branches import Branch, branches
from grammars.tracking.rules import Alternative
from grammars.tracking.spelling import canonical

_MOST: Final = 64
_MOST_COMPARED: Final = 20_000


@dataclass(frozen=True, slots=True)
class Grouped:
    """Objects of one shape. names: declared members, in order; patterns, additional: of further ones.

    alternatives: over the bits of `names`. required: names that every alternative requires.
    """

    names: dict[str, Schema]
    patterns: dict[str, Schema]
    additional: Schema
    alternatives: tuple[Alternative, ...]
    required: tuple[str, ...] = field(default=())

    @property
    def is_choice(self) -> bool:
        """Whether the alternatives say more than which names are required."""
        return len(self.alternatives) > 1 or any(one.forbidden for one in self.alternatives)

    @property
    def counts(self) -> bool:
        """Whether the number of members matters."""
        return any(one.least > one.required.bit_count() or one.most is not None for one in self.alternatives)

    @property
    def least(self) -> int:
        """The largest lower bound of the number of members."""
        return max(one.least for one in self.alternatives)

    @property
    def is_capped(self) -> bool:
        """Whether there is a most of members."""
        return any(one.most is not None for one in self.alternatives)

    def without(self, names: Collection[str]) -> tuple[Alternative, ...]:
        """The alternatives where some of the names can have no value."""
        gone = sum(1 << i for i, name in enumerate(self.names) if name in names)
        return tuple(
            replace(one, forbidden=one.forbidden | gone) for one in self.alternatives if not one.required & gone
        )

    def without_names(self, patterns: Mapping[str, Schema]) -> dict[str, Schema]:
        """Patterns of further names, without the declared ones. Raises RegexRefused where that grows too large."""
        out: dict[str, Schema] = {}
        for pattern, member in patterns.items():
            met = [name for name in self.names if matches(pattern, name)]
            kept = intersection([pattern, complement("|".join(map(literal, met)))]) if met else pattern
            out[kept] = member
        return out


def as_patterns(members: Mapping[str, Schema]) -> dict[str, Schema]:
    """Declared members as patterns, one for all names of one schema: the backend takes those in any order."""
    by_schema: dict[str, tuple[Schema, list[str]]] = {}
    for name, member in members.items():
        if member is False:
            continue  # `impossible` says it
        by_schema.setdefault(canonical(member), (member, []))[1].append(name)
    return {"|".join(map(literal, names)): member for member, names in by_schema.values()}


def impossible(names: Iterable[str], members: Mapping[str, Schema]) -> dict[str, Any]:
    """What the backend is told of names that may not come, so that it begins none of them: they have no order."""
    never = {name: False for name in names if members.get(name, False) is False}
    return {"properties": never} if never else {}


def grouped(parts: list[Branch], definitions: Mapping[str, Schema]) -> Grouped | None:
    """Object branches as one shape; None where a name's schema depends on the branch."""
    if len(parts) > _MOST:
        return None
    names = merged_names(parts)
    if names is None:
        return None
    patterns, additional = parts[0].get("patternProperties", {}), parts[0].get("additionalProperties", True)
    for part in parts[1:]:
        others = part.get("patternProperties", {})
        if others.keys() != patterns.keys():
            return None
        pairs = [(part.get("additionalProperties", True), additional), *((others[p], patterns[p]) for p in patterns)]
        if not all(are_same(one, other, definitions) for one, other in pairs):
            return None
    members: dict[str, Schema] = {}
    for name in names:
        found = [member for member in (member_of(part, name) for part in parts) if member is not False]
        if not found and additional is False and not patterns:
            continue  # nobody may write it
        if not all(are_same(member, found[0], definitions) for member in found[1:]):
            return None
        members[name] = found[0] if found else False
    bits = {name: 1 << i for i, name in enumerate(members)}
    alternatives = dict.fromkeys(alternative for part in parts for alternative in _alternative(part, bits))
    if not alternatives:
        return None
    required = tuple(name for name, bit in bits.items() if all(bit & one.required for one in alternatives))
    return Grouped(members, patterns, additional, tuple(alternatives), required)


def tagged(parts: list[Branch], definitions: Mapping[str, Schema]) -> tuple[str, list[list[str]]] | None:
    """(a member that comes first in every branch and differs, its values by branch as canonical text), if any."""
    name = next(iter(parts[0].get("properties", {})), None)
    if name is None:
        return None
    values: list[list[str]] = []
    for part in parts:
        if next(iter(part.get("properties", {})), None) != name or name not in part.get("required", ()):
            return None
        found = branches(part["properties"][name], definitions)
        if not found or any("enum" not in branch for branch in found):
            return None
        scalars: list[Any] = [value for branch in found for value in branch["enum"]]
        if any(isinstance(value, dict | list) for value in scalars):
            return None
        values.append([canonical(value) for value in scalars])
    every = [value for one in values for value in one]
    return (name, values) if len(set(every)) == len(every) else None


def merged_names(parts: list[Branch]) -> list[str] | None:
    """One order of the names of all branches that keeps that of each; None where they contradict one another."""
    orders = [[*dict.fromkeys((*part.get("properties", {}), *part.get("required", ())))] for part in parts]
    before: dict[str, set[str]] = {name: set() for order in orders for name in order}
    for order in orders:
        for earlier, later in pairwise(order):
            before[later].add(earlier)
    try:
        return list(TopologicalSorter(before).static_order())
    except CycleError:
        return None


def are_same(a: Any, b: Any, definitions: Mapping[str, Schema]) -> bool:
    """Whether two schemas read alike once their references are followed; within a bound of work."""
    stack, assumed = [(a, b)], set()
    for _ in range(_MOST_COMPARED):
        if not stack:
            return True
        a, b = stack.pop()
        if _is_reference(a) or _is_reference(b):
            pair = (a["$ref"] if _is_reference(a) else id(a), b["$ref"] if _is_reference(b) else id(b))
            if pair in assumed or a == b:
                continue  # equal, unless a difference is found elsewhere
            assumed.add(pair)
            stack.append((_followed(a, definitions), _followed(b, definitions)))
        elif isinstance(a, dict) and isinstance(b, dict):
            if list(a) != list(b):
                return False
            stack += [(a[name], b[name]) for name in a]
        elif isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                return False
            stack += zip(a, b, strict=True)
        elif a != b or type(a) is not type(b):
            return False
    return False


def _is_reference(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.keys() == {"$ref"} and isinstance(schema["$ref"], str)


def _followed(schema: Any, definitions: Mapping[str, Schema]) -> Any:
    return definitions.get(schema["$ref"].removeprefix("#/$defs/")) if _is_reference(schema) else schema


def member_of(part: Branch, name: str) -> Schema:
    """The schema of a member of one branch."""
    properties: Mapping[str, Schema] = part.get("properties", {})
    if name in properties:
        return properties[name]
    for pattern, member in part.get("patternProperties", {}).items():
        if matches(pattern, name):
            return member if isinstance(member, bool) else dict(member)
    other: Schema = part.get("additionalProperties", True)
    return other


def _alternative(part: Branch, bits: Mapping[str, int]) -> list[Alternative]:
    """The alternative of one branch; none where it requires what it forbids."""
    required = forbidden = 0
    for name, bit in bits.items():
        if member_of(part, name) is False:
            forbidden |= bit
        if name in part.get("required", ()):
            required |= bit
    names = part.get("required", ())
    if required & forbidden or any(name not in bits for name in names):
        return []
    least, most = part.get("minProperties", 0), part.get("maxProperties")
    least = 0 if least <= required.bit_count() else least
    is_closed = part.get("additionalProperties", True) is False and not part.get("patternProperties")
    if most is not None and is_closed and most >= len(bits) - forbidden.bit_count():
        most = None
    return [Alternative(required, forbidden, least, most)]
