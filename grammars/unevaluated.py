"""`unevaluatedProperties` and `unevaluatedItems`, where what is evaluated does not depend on the instance."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from grammars.keywords import read_pattern
from grammars.normal_form import Schema
from grammars.pointer import child

if TYPE_CHECKING:
    from grammars.json_schema import Walk

ALL: Final = frozenset({"unevaluatedProperties", "unevaluatedItems"})
_DYNAMIC: Final = ("anyOf", "oneOf", "if", "dependentSchemas", "dependencies", "$dynamicRef", "$recursiveRef")


@dataclass(slots=True)
class _Evaluated:
    """What a node evaluates, whatever the instance."""

    names: dict[str, None] = field(default_factory=dict)
    patterns: dict[str, None] = field(default_factory=dict)
    n_items: int = 0
    all_names: bool = False
    all_items: bool = False
    dynamic: str | None = None


def read_unevaluated(walk: "Walk", node: dict[str, Any], pointer: str) -> list[Schema]:
    """The normal form of the two keywords. Raises ConstraintRefused where the evaluated set depends on the instance."""
    parts: list[Schema] = []
    for keyword in ("unevaluatedProperties", "unevaluatedItems"):
        if keyword not in node:
            continue
        rest = walk.visit(node[keyword], child(pointer, keyword))
        if rest is True or rest == {}:
            continue
        seen = _Evaluated()
        _collect(walk, {k: v for k, v in node.items() if k != keyword}, pointer, seen, 16)
        if seen.all_names if keyword == "unevaluatedProperties" else seen.all_items:
            continue
        if seen.dynamic is not None:
            walk.refuse(
                keyword, pointer, f"depends on which branch of `{seen.dynamic}` holds: close the branches instead"
            )
        if keyword == "unevaluatedItems":
            prefix: dict[str, Any] = {"prefixItems": [True] * seen.n_items} if seen.n_items else {}
            parts.append({**prefix, "items": rest})
            continue
        part: dict[str, Any] = {"additionalProperties": rest}
        if seen.names:
            part["properties"] = dict.fromkeys(seen.names, True)
        if seen.patterns:
            part["patternProperties"] = dict.fromkeys(seen.patterns, True)
        parts.append(part)
    return parts


def _collect(walk: "Walk", node: Any, pointer: str, seen: _Evaluated, depth: int) -> None:
    if not isinstance(node, dict):
        return
    if depth == 0:
        seen.dynamic = "$ref"
        return
    seen.names.update(dict.fromkeys(node.get("properties") or ()))
    seen.patterns.update(
        {read_pattern(walk, "patternProperties", name, pointer): None for name in node.get("patternProperties") or ()}
    )
    seen.all_names |= "additionalProperties" in node or "unevaluatedProperties" in node
    prefix = node.get("prefixItems") or (node["items"] if isinstance(node.get("items"), list) else [])
    seen.n_items = max(seen.n_items, len(prefix))
    seen.all_items |= (
        isinstance(node.get("items"), dict | bool) or "additionalItems" in node or "unevaluatedItems" in node
    )
    for keyword in _DYNAMIC:
        if keyword in node:
            seen.dynamic = keyword
    if "contains" in node:
        seen.dynamic = "contains"
    for i, member in enumerate(node.get("allOf") or ()):
        _collect(walk, member, child(pointer, "allOf", i), seen, depth - 1)
    if "$ref" in node:
        target, at = walk.target("$ref", node["$ref"], pointer)
        _collect(walk, target, at, seen, depth - 1)
