"""Reads a client's JSON Schema once, decides every keyword at every node, and rewrites it into the normal form.

Every keyword ends as *enforced* (it is in the normal form), *annotation* (it constrains nothing; named in `warnings`
where a reader might think otherwise) or *refused* (`ConstraintRefused` with keyword and pointer). `keywords.py`
decides those that bind one type of value, `conditions.py` those that combine schemas.
"""

from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from grammars import conditions, draft, keywords, property_counts, unevaluated
from grammars.bounds import move_narrow_exclusions
from grammars.draft import Draft
from grammars.errors import ConstraintRefused
from grammars.limits import Limits, check_schema
from grammars.normal_form import Schema, combinations, conjunction, equal, every
from grammars.pointer import resolve
from grammars.property_counts import read_property_counts
from grammars.references import KEYWORDS, References
from grammars.unevaluated import read_unevaluated
from grammars.validators import build

ANNOTATIONS: Final = frozenset({
    "$schema", "$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$vocabulary", "$comment", "$defs",
     "definitions",
    "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "contentEncoding",
    "contentMediaType", "contentSchema",
})  # fmt: skip
"""Keywords of the standard that assert nothing, and the containers of definitions."""

ENFORCED: Final = (
    frozenset({"enum", "const", *KEYWORDS}) | keywords.ALL | conditions.ALL | unevaluated.ALL | property_counts.ALL
)


@dataclass(frozen=True, slots=True)
class Normalised:
    """A schema in the normal form.

    schema: references lie in its `$defs`. warnings: what the schema says that asserts nothing. uses: (keyword,
    pointer) of every keyword met, in document order, to name the cause when a backend refuses.
    """

    schema: Schema
    warnings: tuple[str, ...]
    uses: tuple[tuple[str, str], ...]


def normalise(schema: Any, *, strict: bool = False, pointer: str = "", limits: Limits | None = None) -> Normalised:
    """Rewrite `schema` into the normal form. `pointer` is where the schema lies in the client's request.

    strict: what would be an annotation (an unknown keyword or format) is refused instead.
    Raises ConstraintRefused for what is malformed, too large, or has no exact form.
    """
    limits = limits or Limits()
    check_schema(schema, limits, pointer)
    walk = Walk(schema, strict, pointer, limits)
    root = walk.visit(schema, pointer)
    if root is False:
        walk.refuse("schema", pointer, "no value can satisfy it: remove the contradiction")
    definitions = {name: walk.definitions[name] for name in sorted(walk.definitions)}
    for node in (root, *definitions.values()):
        for inner in every(node):
            if combinations(inner) > limits.combinations:
                keyword, at = next(
                    (use for use in walk.uses if use[0] in ("allOf", "oneOf", "anyOf")), ("schema", pointer)
                )
                walk.refuse(keyword, at, f"multiplies out to more than {limits.combinations} alternatives: simplify it")
    move_narrow_exclusions([root, *definitions.values()])
    if isinstance(root, dict) and definitions:
        root = {**root, "$defs": definitions}
    return Normalised(root, tuple(dict.fromkeys(walk.warnings)), (*walk.doubts, *walk.uses))


@dataclass(slots=True)
class Walk:
    """The state of one reading of one document."""

    document: Any
    strict: bool
    prefix: str
    limits: Limits
    draft: Draft = field(init=False)
    declared: Draft | None = field(init=False)
    definitions: dict[str, Schema] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    uses: list[tuple[str, str]] = field(default_factory=list)
    doubts: list[tuple[str, str]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    references: References = field(init=False)

    def __post_init__(self) -> None:
        self.draft, self.declared = draft.of(self.document), draft.declared(self.document)
        self.references = References(self.document, self.declared)

    def refuse(self, keyword: str, pointer: str, reason: str) -> NoReturn:
        """Raise ConstraintRefused."""
        raise ConstraintRefused(keyword, pointer, reason)

    def warn(self, keyword: str, pointer: str, what: str) -> None:
        """Note what asserts nothing; a strict schema is refused for it."""
        if self.strict:
            self.refuse(keyword, pointer, f"{what}: remove it, or do without `strict`")
        self.warnings.append(f"{keyword} at {pointer or '(root)'}: {what}")

    def visit(self, node: Any, pointer: str) -> Schema:
        """The normal form of one node."""
        if isinstance(node, bool):
            return node
        if not isinstance(node, dict):
            self.refuse(_last(pointer), pointer, f"must be a schema (an object or a boolean), not {node!r:.60}")
        if "$ref" in node and self.declared is not None and self.declared <= Draft.DRAFT7:
            for keyword in node.keys() & ENFORCED - {"$ref"}:
                self.warn(keyword, pointer, f"stands beside $ref, where {self.declared.name} ignores it")
            node = {"$ref": node["$ref"]}
        self.uses += [(keyword, pointer) for keyword in node if keyword in ENFORCED]
        for keyword in node:
            if keyword not in ENFORCED and keyword not in ANNOTATIONS and not keyword.startswith("x-"):
                self.warn(keyword, pointer, "is no keyword of JSON Schema")
        if "enum" in node or "const" in node:
            return self.finite(node, pointer)
        return _flattened(self.parts(node, pointer))

    def parts(self, node: dict[str, Any], pointer: str) -> list[Schema]:
        """The schemas that must all hold at a node, in the order of its keywords, which orders properties."""
        plain = [keyword for keyword in node if keyword in keywords.ALL]
        first_plain = "properties" if "properties" in node else next(iter(plain), None)
        parts: list[Schema] = []
        for keyword, value in node.items():
            if keyword in KEYWORDS:
                parts.append(self.reference(keyword, value, pointer))
            elif keyword in conditions.READERS:
                parts.append(conditions.READERS[keyword](self, node, pointer))
            elif keyword == first_plain:
                parts.append(keywords.read(self, node, pointer))
        return [*parts, *read_unevaluated(self, node, pointer), *read_property_counts(self, node, pointer)]

    def finite(self, node: dict[str, Any], pointer: str) -> Schema:
        """A node with `enum` or `const`: the values that satisfy everything else in the node, decided here and now."""
        values = node.get("enum", [node.get("const")])
        if not isinstance(values, list) or not values:
            self.refuse("enum", pointer, "must be a list of at least one value")
        if "const" in node:
            values = [value for value in values if equal(value, node["const"])]
        # Everything beside it is decided by a validator on the client's own node: a few values need no grammar.
        beside = {name: value for name, value in node.items() if name in ENFORCED and name not in ("enum", "const")}
        if beside:
            if "format" in beside and not keywords.is_known_format(beside["format"]):
                self.warn("format", pointer, f"`{beside.pop('format')}` is no format of the standard")
            values = [value for value in values if self.holds(beside, pointer, value)]
        return {"enum": values} if values else False

    def holds(self, node: dict[str, Any], pointer: str, value: Any) -> bool:
        """Whether `value` satisfies `node`, whose references mean the document's."""
        local: dict[str, Any] = {}
        if any(name in node for name in KEYWORDS):
            if not isinstance(self.document, dict):
                self.refuse("$ref", pointer, "has no document to point into")
            local = {name: self.document[name] for name in ("definitions", "$defs") if name in self.document}
            siblings = {name: node[name] for name in node if name not in KEYWORDS}
            references = [{name: node[name]} for name in KEYWORDS if name in node]
            node = {"allOf": [*references, siblings]}  # older drafts would ignore what stands beside a reference
        try:
            return bool(build({**local, **node}, self.draft).is_valid(value))
        except ValueError as error:
            self.refuse("enum", pointer, f"stands beside what cannot be decided ({str(error)[:120]}): simplify that")

    def reference(self, keyword: str, target: Any, pointer: str) -> Schema:
        """A `$ref` into the definitions of the normal form; each target is rewritten once, so recursion ends."""
        at = self.references.locate(keyword, target, pointer.removeprefix(self.prefix), pointer)
        if at not in self.names:
            try:
                node = resolve(self.document, at)
            except (LookupError, ValueError):
                self.refuse(
                    keyword, pointer, f"`{target}` names nothing in this schema: define it, or correct the name"
                )
            self.names[at] = f"d{len(self.names)}"
            self.definitions[self.names[at]] = self.visit(node, self.prefix + at)
        return {"$ref": f"#/$defs/{self.names[at]}"}

    def target(self, keyword: str, target: Any, pointer: str) -> tuple[Any, str]:
        """(node, pointer) that a reference leads to, unrewritten."""
        at = self.references.locate(keyword, target, pointer.removeprefix(self.prefix), pointer)
        try:
            return resolve(self.document, at), self.prefix + at
        except (LookupError, ValueError):
            self.refuse(keyword, pointer, f"`{target}` names nothing in this schema: define it, or correct the name")


_NAMING: Final = frozenset({
    "properties", "patternProperties", "additionalProperties", "required", "$ref", "anyOf", "oneOf",
})  # fmt: skip


def _flattened(parts: list[Schema]) -> Schema:
    """One node for all parts: keywords that do not meet are put side by side, the rest into `allOf`."""
    whole = conjunction(parts)
    if isinstance(whole, bool) or whole.keys() != {"allOf"}:
        return whole
    merged: dict[str, Any] = {}
    rest: list[Schema] = []
    for part in whole["allOf"]:
        if isinstance(part, bool):
            continue
        if part.keys() == {"allOf"}:
            rest += part["allOf"]
        elif (
            part.keys() & (merged.keys() | {"enum", "allOf"})
            or _splits_names(part, merged)
            or (rest and part.keys() & _NAMING)  # the order of parts is the order of names
        ):
            rest.append(part)
        else:
            merged.update(part)
    return {**merged, "allOf": rest} if rest else merged


def _splits_names(part: dict[str, Any], merged: dict[str, Any]) -> bool:
    """Whether joining the two would change which names are additional, or which items lie beyond the prefix."""
    names, items = {"properties", "patternProperties", "additionalProperties"}, {"prefixItems", "items"}
    return any(bool(part.keys() & group) and bool(merged.keys() & group) for group in (names, items))


def _last(pointer: str) -> str:
    names = [step for step in pointer.split("/") if step and not step.isdecimal()]
    return names[-1] if names else "schema"
