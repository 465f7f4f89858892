"""`unevaluatedProperties` and `unevaluatedItems`: what they bind depends on which branches of the node hold.

An instance satisfies the node exactly when, for some set of branches that all hold, everything that those branches do
not evaluate satisfies the keyword: branches that hold besides only evaluate more. So the branches are chosen, and no
branch needs to be negated (except by `if` and `oneOf`, which do it themselves).
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from grammars.conditions import absent, present
from grammars.expressions import ANYTHING, All, AnyOf, Conjunction, Expression, Not
from grammars.keywords import conjunction, read_pattern
from grammars.plain import Plain
from grammars.plain_arrays import Arrays
from grammars.plain_objects import Layer, Objects
from grammars.pointer import child

if TYPE_CHECKING:
    from grammars.json_schema import Walk

ALL: Final = frozenset({"unevaluatedProperties", "unevaluatedItems"})
_MAX_WAYS: Final = 128
_MAX_DEPTH: Final = 16


@dataclass(frozen=True, slots=True)
class Way:
    """One choice of branches: what must hold for it (`held`), and what it evaluates."""

    held: Conjunction = ()
    names: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    n_items: int = 0
    matching: Conjunction = ()  # items that satisfy one of these are evaluated, too (`contains`)
    all_names: bool = False
    all_items: bool = False

    def joined(self, other: "Way") -> "Way":
        """Both choices together."""
        return Way(
            self.held + other.held,
            tuple(dict.fromkeys(self.names + other.names)),
            tuple(dict.fromkeys(self.patterns + other.patterns)),
            max(self.n_items, other.n_items),
            self.matching + other.matching,
            self.all_names or other.all_names,
            self.all_items or other.all_items,
        )

    @property
    def evaluates(self) -> bool:
        """Whether the choice makes a difference."""
        return bool(self.names or self.patterns or self.n_items or self.matching or self.all_names or self.all_items)


def read_unevaluated(walk: "Walk", node: dict[str, Any], pointer: str) -> list[Expression]:
    """What the two keywords say at a node, beside what its other keywords say. Raises ConstraintRefused."""
    parts: list[Expression] = []
    for keyword in ("unevaluatedProperties", "unevaluatedItems"):
        if keyword not in node:
            continue
        rest = walk.visit(node[keyword], child(pointer, keyword))
        if rest is ANYTHING:
            continue
        ways = _Reader(walk, keyword, pointer).ways({k: v for k, v in node.items() if k != keyword}, pointer, 0)
        alternatives = [All((*way.held, _closed(way, keyword, rest))) for way in ways]
        parts.append(alternatives[0] if len(alternatives) == 1 else AnyOf(tuple(alternatives), keyword, pointer))
    return parts


def _closed(way: Way, keyword: str, rest: Expression) -> Expression:
    """What is not evaluated satisfies `rest`."""
    if way.all_names if keyword == "unevaluatedProperties" else way.all_items:
        return ANYTHING
    if keyword == "unevaluatedItems":
        item = AnyOf((*way.matching, rest), keyword) if way.matching else rest
        return Plain(arrays=Arrays(((),) * way.n_items, (item,)))
    layer = Layer(dict.fromkeys(way.names, ()), dict.fromkeys(way.patterns, ()), (rest,))
    return Plain(objects=Objects((layer,)))


@dataclass(slots=True)
class _Reader:
    """Lists the ways of one node for one of the two keywords."""

    walk: "Walk"
    keyword: str
    pointer: str

    def ways(self, node: Any, pointer: str, depth: int) -> list[Way]:
        """The choices of branches at `node`; each holds what it chose, the node's other keywords hold anyhow."""
        if not isinstance(node, dict):
            return [Way()]
        if depth > _MAX_DEPTH:
            self.walk.refuse(self.keyword, self.pointer, "depends on branches without end: close the branches instead")
        node = self.walk.of_draft(node, pointer)
        found = [self._own(node, pointer)]
        for i, member in enumerate(node.get("allOf") or ()):
            found = self._product(found, self.ways(member, child(pointer, "allOf", i), depth + 1))
        for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
            if keyword in node:
                target, at = self.walk.target(keyword, node[keyword], pointer)
                with self.walk.entering(at, self.walk.scope):
                    found = self._product(found, self.ways(target, self.walk.prefix + at, depth + 1))
        for keyword in ("anyOf", "oneOf"):
            members = enumerate(node.get(keyword) or ())
            branches = [self._chosen(member, child(pointer, keyword, i), depth) for i, member in members]
            if keyword == "oneOf":
                # Exactly one holds, as the node says elsewhere; the others then evaluate nothing.
                dull = [way for branch in branches for way in branch if not way.evaluates]
                chosen = [way for branch in branches for way in branch if way.evaluates]
                if chosen:
                    found = self._product(found, chosen + ([Way()] if dull else []))
            else:
                for branch in branches:
                    chosen = [way for way in branch if way.evaluates]
                    if chosen:
                        found = self._product(found, [*chosen, Way()])
        if "if" in node:
            found = self._product(found, self._conditional(node, pointer, depth))
        for keyword in ("dependentSchemas", "dependencies"):
            for name, member in (node.get(keyword) or {}).items():
                chosen = [way for way in self.ways(member, child(pointer, keyword, name), depth + 1) if way.evaluates]
                if chosen:
                    there = [replace(way, held=(present(name), *way.held)) for way in chosen]
                    found = self._product(found, [*there, Way((absent(name),))])
        return found

    def _own(self, node: dict[str, Any], pointer: str) -> Way:
        """What the node's own keywords evaluate, whatever the instance."""
        if self.keyword == "unevaluatedProperties":
            patterns = tuple(
                read_pattern(self.walk, "patternProperties", name, pointer)
                for name in node.get("patternProperties") or ()
            )
            all_names = "additionalProperties" in node or "unevaluatedProperties" in node
            return Way(names=tuple(node.get("properties") or ()), patterns=patterns, all_names=all_names)
        prefix = node.get("prefixItems") or (node["items"] if isinstance(node.get("items"), list) else [])
        all_items = isinstance(node.get("items"), dict | bool) or "unevaluatedItems" in node
        all_items = all_items or (isinstance(node.get("items"), list) and "additionalItems" in node)
        matching: Conjunction = ()
        if "contains" in node:
            matching = (self.walk.visit(node["contains"], child(pointer, "contains")),)
        return Way(n_items=len(prefix), matching=matching, all_items=all_items)

    def _chosen(self, member: Any, pointer: str, depth: int) -> list[Way]:
        """The ways of a branch, in which the branch itself holds."""
        ways = self.ways(member, pointer, depth + 1)
        if not any(way.evaluates for way in ways):
            return [Way()]
        said = conjunction(self.walk.visit(member, pointer))
        return [replace(way, held=said + way.held) for way in ways]

    def _conditional(self, node: dict[str, Any], pointer: str, depth: int) -> list[Way]:
        at = child(pointer, "if")
        met = self.ways(node["if"], at, depth + 1)
        if "then" in node:
            met = self._product(met, self.ways(node["then"], child(pointer, "then"), depth + 1))
        unmet = self.ways(node["else"], child(pointer, "else"), depth + 1) if "else" in node else [Way()]
        if not any(way.evaluates for way in (*met, *unmet)):
            return [Way()]
        condition = self.walk.visit(node["if"], at)
        opposite = Not(condition, "if", pointer)
        return [
            *(replace(way, held=(*conjunction(condition), *way.held)) for way in met),
            *(replace(way, held=(opposite, *way.held)) for way in unmet),
        ]

    def _product(self, some: list[Way], others: list[Way]) -> list[Way]:
        if len(some) * len(others) > _MAX_WAYS:
            self.walk.refuse(
                self.keyword, self.pointer, f"depends on more than {_MAX_WAYS} sets of branches: close them instead"
            )
        return [one.joined(other) for one in some for other in others]
