"""How many subschemas a validator evaluates to judge a value: references in alternatives can multiply to billions.

    d0 = anyOf(d1, d1, d1), d1 = anyOf(d2, d2, d2), …     3 ** n evaluations, written in a few lines

Counted without evaluating anything, each pair of a schema and a part of the value once, as if no branch ever succeeded.
"""

from typing import Any, Final

import msgspec

from grammars.draft import Draft
from grammars.errors import ConstraintRefused
from grammars.pointer import child
from grammars.references import KEYWORDS, References

MOST_EVALUATIONS: Final = 300_000
"""A validator takes about half a second for as many."""
_BRANCHES: Final = ("allOf", "anyOf", "oneOf")
_IN_PLACE: Final = ("not", "if", "then", "else", "extends", "disallow")
_UNEVALUATED: Final = ("unevaluatedProperties", "unevaluatedItems")


def is_affordable(schema: Any, draft: Draft, value: Any, most: int = MOST_EVALUATIONS) -> bool:
    """Whether judging `value` by `schema` takes at most `most` evaluations. Also False where that is unknown."""
    text = msgspec.json.encode(schema)
    if b'Ref":' not in text and b'$ref":' not in text and b'"unevaluated' not in text:
        # Each subschema meets each part of the value at most once.
        parts = msgspec.json.encode(value)
        n_parts = 1 + parts.count(b",") + parts.count(b"[") + parts.count(b"{")
        if (1 + text.count(b":") + text.count(b",")) * n_parts <= most:
            return True
    try:
        return _Counter(schema, draft, most).count(schema, "", value) <= most
    except (RecursionError, ConstraintRefused, _TooMany):
        return False


class _TooMany(Exception):
    """The count has passed the limit."""


class _Counter:
    """Counts for one document."""

    def __init__(self, document: Any, draft: Draft, most: int) -> None:
        self._document, self._most = document, most
        self._references = References(document, draft)
        self._known: dict[tuple[str, int], int] = {}

    def count(self, node: Any, pointer: str, value: Any) -> int:
        """Evaluations of the schema `node` at document pointer `pointer` for `value`."""
        if not isinstance(node, dict):
            return 1
        key = pointer, id(value)
        if key not in self._known:
            self._known[key] = 1  # while it is being counted: a validator notices a loop that reads nothing
            in_place = self._in_place(node, pointer, value)
            times = 1 + (len(value) if isinstance(value, dict | list) else 0)
            if any(name in node for name in _UNEVALUATED):
                in_place *= times  # asked again for each member, to know which ones were evaluated
            found = 1 + in_place + self._members(node, pointer, value)
            if found > self._most or len(self._known) > self._most:
                raise _TooMany
            self._known[key] = found
        return self._known[key]

    def _in_place(self, node: dict[str, Any], pointer: str, value: Any) -> int:
        n = 0
        for name in _BRANCHES:
            branches = node.get(name)
            if isinstance(branches, list):
                n += sum(self.count(branch, child(pointer, name, i), value) for i, branch in enumerate(branches))
        n += sum(self.count(node[name], child(pointer, name), value) for name in _IN_PLACE if name in node)
        for name in ("dependentSchemas", "dependencies"):
            if isinstance(node.get(name), dict):
                n += sum(self.count(part, child(pointer, name, key), value) for key, part in node[name].items())
        for name in KEYWORDS:
            if name in node:
                target = self._references.locate(name, node[name], pointer, pointer)
                n += self.count(_at(self._document, target), target, value)
        return n

    def _members(self, node: dict[str, Any], pointer: str, value: Any) -> int:
        n = 0
        if isinstance(value, dict):
            named = node.get("properties")
            if isinstance(named, dict):
                n += sum(
                    self.count(named[name], child(pointer, "properties", name), value[name])
                    for name in value
                    if name in named
                )
            patterns = node.get("patternProperties")
            rest = ("additionalProperties", "unevaluatedProperties")
            each = [(child(pointer, name), node[name]) for name in rest if name in node]
            if isinstance(patterns, dict):
                each += [(child(pointer, "patternProperties", name), part) for name, part in patterns.items()]
            n += sum(self.count(part, at, member) for at, part in each for member in value.values())
            if "propertyNames" in node:
                n += sum(self.count(node["propertyNames"], child(pointer, "propertyNames"), name) for name in value)
        elif isinstance(value, list):
            for name in ("items", "prefixItems", "additionalItems", "contains", "unevaluatedItems"):
                part, at = node.get(name), child(pointer, name)
                if isinstance(part, list):
                    pairs = enumerate(zip(part, value, strict=False))
                    n += sum(self.count(one, child(at, i), item) for i, (one, item) in pairs)
                elif part is not None:
                    n += sum(self.count(part, at, item) for item in value)
        return n


def _at(document: Any, pointer: str) -> Any:
    """The node at an RFC 6901 pointer; None where there is none."""
    node = document
    for step in pointer.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict):
            node = node.get(step)
        elif isinstance(node, list) and step.isdecimal() and int(step) < len(node):
            node = node[int(step)]
        else:
            return None
    return node
