"""Reads a client's JSON Schema once, decides every keyword at every node, and rewrites it into the normal form.

Every keyword ends as *enforced* (it is in the normal form), *annotation* (it constrains nothing; named in `warnings`
where a reader might think otherwise) or *refused* (`ConstraintRefused` with keyword and pointer). `keywords.py` reads
those that bind one type of value, `conditions.py` those that combine schemas, both as expressions (`expressions.py`);
`solver.py` settles what they say together, and `writer.py` writes that down.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, NoReturn

from grammars import conditions, draft, keywords, unevaluated
from grammars.draft import Draft
from grammars.errors import ConstraintRefused
from grammars.expressions import ANYTHING, NOTHING, All, Conjunction, Expression, Ref, Unheld, Values, followed
from grammars.limits import Limits, check_schema
from grammars.normal_form import Schema, equal
from grammars.plain import BY_TYPE, Plain
from grammars.pointer import resolve
from grammars.references import KEYWORDS, References, Scope
from grammars.satisfaction import satisfies
from grammars.solver import Solver
from grammars.unevaluated import read_unevaluated
from grammars.validators import build
from grammars.writer import Writer

ANNOTATIONS: Final = frozenset({
    "$schema", "$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$vocabulary", "$comment", "$defs",
     "definitions",
    "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "contentEncoding",
    "contentMediaType", "contentSchema",
})  # fmt: skip
"""Keywords of the standard that assert nothing, and the containers of definitions."""

ENFORCED: Final = frozenset({"enum", "const", *KEYWORDS}) | keywords.ALL | conditions.ALL | unevaluated.ALL


@dataclass(frozen=True, slots=True)
class Normalised:
    """A schema in the normal form.

    schema: references lie in its `$defs`. warnings: what the schema says that asserts nothing. uses: (keyword,
    pointer) of every keyword met, in document order, to name the cause when a backend refuses.
    """

    schema: Schema
    warnings: tuple[str, ...]
    uses: tuple[tuple[str, str], ...]


def normalise(
    schema: Any, *, strict: bool = False, pointer: str = "", limits: Limits | None = None, kind: str | None = None
) -> Normalised:
    """Rewrite `schema` into the normal form. `pointer` is where the schema lies in the client's request.

    strict: what would be an annotation (an unknown keyword or format) is refused instead. kind: the only JSON type that
    the whole value may have, such as `object` for arguments. Raises ConstraintRefused for what is malformed, too large,
    or has no exact form.
    """
    limits = limits or Limits()
    check_schema(schema, limits, pointer)
    walk = Walk(schema, strict, pointer, limits)
    solver = Solver(walk.meaning, limits)
    writer = Writer(solver)
    try:
        whole: Conjunction = (walk.visit(schema, pointer),)
        if kind is not None:
            whole = (*whole, Plain(BY_TYPE[kind]))
        root = writer.document(whole)
        walk.check_circles()
    except Unheld as error:
        raise ConstraintRefused(error.keyword, error.pointer or pointer, error.reason) from error
    except RecursionError as error:
        raise ConstraintRefused("schema", pointer, "refers deeper than can be followed: flatten it") from error
    if root is False:
        walk.refuse("schema", pointer, "no value can satisfy it: remove the contradiction")
    return Normalised(root, tuple(dict.fromkeys(walk.warnings)), (*writer.doubts, *walk.uses))


@dataclass(slots=True)
class Walk:
    """The state of one reading of one document. read: what is said at each pointer that a reference leads
    to. refs: the one expression for each of these pointers
    and the resources entered before (`scope`, now). patterns: expressions of the client in the normal form."""

    document: Any
    strict: bool
    prefix: str
    limits: Limits
    draft: Draft = field(init=False)
    declared: Draft | None = field(init=False)
    warnings: list[str] = field(default_factory=list)
    uses: list[tuple[str, str]] = field(default_factory=list)
    read: dict[Ref, Expression] = field(default_factory=dict)
    refs: dict[tuple[str, Scope], Ref] = field(default_factory=dict)
    patterns: dict[str, str] = field(default_factory=dict)
    references: References = field(init=False)
    scope: Scope = ()

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

    def visit(self, node: Any, pointer: str) -> Expression:
        """What one node says."""
        if isinstance(node, bool):
            return ANYTHING if node else NOTHING
        if not isinstance(node, dict):
            self.refuse(_last(pointer), pointer, f"must be a schema (an object or a boolean), not {node!r:.60}")
        if "$ref" in node and self.declared is not None and self.declared <= Draft.DRAFT7:
            for keyword in node.keys() & ENFORCED - {"$ref"}:
                self.warn(keyword, pointer, f"stands beside $ref, where {self.declared.name} ignores it")
            node = {"$ref": node["$ref"]}
        node = self.of_draft(node, pointer)
        self.uses += [(keyword, pointer) for keyword in node if keyword in ENFORCED]
        for keyword in node:
            if keyword not in ENFORCED and keyword not in ANNOTATIONS and not keyword.startswith("x-"):
                self.warn(keyword, pointer, "is no keyword of JSON Schema")
        if "enum" in node or "const" in node:
            return self.finite(node, pointer)
        if self.references.dynamic:
            with self.entering(pointer.removeprefix(self.prefix), self.scope):
                return self.together(node, pointer)
        return self.together(node, pointer)

    def of_draft(self, node: dict[str, Any], pointer: str) -> dict[str, Any]:
        """The node without keywords that the document's draft does not know.

        A document that names no draft is read in the one that its spellings have in common; without one it is refused.
        """
        is_resource = pointer != self.prefix and not node.keys().isdisjoint(("$id", "id"))
        if is_resource and draft.declared(node) not in (None, self.draft):
            self.refuse("$schema", pointer, "names another draft than the whole schema: write it in one of them")
        unknown = [keyword for keyword in node if keyword in ENFORCED and not draft.knows(self.draft, keyword)]
        for keyword in unknown:
            if self.declared is None and keyword in draft.SINCE:
                self.refuse(keyword, pointer, "is newer than a list of `items` or `$recursiveRef`: use one of them")
            self.warn(keyword, pointer, f"is no keyword of {self.draft.name}")
        return {keyword: value for keyword, value in node.items() if keyword not in unknown} if unknown else node

    def together(self, node: dict[str, Any], pointer: str) -> Expression:
        """What all keywords of a node say."""
        return _together([*self.parts(node, pointer), *read_unevaluated(self, node, pointer)])

    def parts(self, node: dict[str, Any], pointer: str) -> list[Expression]:
        """What must all hold at a node, in the order of its keywords, which orders properties; `unevaluated*` aside."""
        plain = [keyword for keyword in node if keyword in keywords.ALL]
        first_plain = "properties" if "properties" in node else next(iter(plain), None)
        parts: list[Expression] = []
        for keyword, value in node.items():
            if keyword in KEYWORDS:
                parts.append(self.reference(keyword, value, pointer))
            elif keyword in conditions.READERS:
                parts.append(conditions.READERS[keyword](self, node, pointer))
            elif keyword == first_plain:
                parts.append(keywords.read(self, node, pointer))
        return parts

    def finite(self, node: dict[str, Any], pointer: str) -> Expression:
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
            values = self.holding(beside, pointer, values)
        return Values(tuple(values), pointer) if values else NOTHING

    def holding(self, node: dict[str, Any], pointer: str, values: list[Any]) -> list[Any]:
        """The values that satisfy `node`, whose references mean the document's."""
        if not _refers(node):
            try:
                validator = build(node, self.draft)
                return [value for value in values if validator.is_valid(value)]
            except ValueError as error:
                self.refuse("enum", pointer, f"stands beside what can't be decided ({str(error)[:120]}): simplify that")
        said = [*self.parts(node, pointer), *read_unevaluated(self, node, pointer)]
        return [value for value in values if satisfies(value, tuple(said), self.meaning)]

    def reference(self, keyword: str, target: Any, pointer: str) -> Expression:
        """A reference, whose target is read when what it says is needed."""
        at = self.located(keyword, target, pointer)
        key = (at, self.scope if self.references.dynamic else ())
        if key not in self.refs:
            self.refs[key] = Ref(at, keyword, pointer, self.scope)
        return self.refs[key]

    def meaning(self, ref: Ref) -> Expression:
        """What stands at the target of a reference; read once, so that it is the same expression each time."""
        if ref not in self.read:
            with self.entering(ref.at, ref.scope):
                self.read[ref] = self.visit(resolve(self.document, ref.at), self.prefix + ref.at)
        return self.read[ref]

    @contextmanager
    def entering(self, at: str, scope: Scope) -> Iterator[None]:
        """Read what stands at document pointer `at`, coming from `scope`."""
        before = self.scope
        base = self.references.base(at)
        self.scope = scope if base in scope else (*scope, base)
        try:
            yield
        finally:
            self.scope = before

    def located(self, keyword: str, target: Any, pointer: str) -> str:
        """The document pointer that a reference leads to; something stands there."""
        at = self.references.locate(keyword, target, pointer.removeprefix(self.prefix), pointer, self.scope)
        try:
            resolve(self.document, at)
        except (LookupError, ValueError):
            self.refuse(keyword, pointer, f"`{target}` names nothing in this schema: define it, or correct the name")
        return at

    def check_circles(self) -> None:
        """Raise ConstraintRefused where what is said of a value depends on itself, which the standard leaves open."""
        try:
            TopologicalSorter({ref: followed(said) for ref, said in self.read.items()}).prepare()
        except CycleError as error:
            ref: Ref = error.args[1][0]
            self.refuse(ref.keyword, ref.pointer, "leads back to itself without an end: break the circle")

    def target(self, keyword: str, target: Any, pointer: str) -> tuple[Any, str]:
        """(node, document pointer) that a reference leads to, unread."""
        at = self.located(keyword, target, pointer)
        return resolve(self.document, at), at


def _together(parts: list[Expression]) -> Expression:
    kept = [part for part in parts if part is not ANYTHING]
    if NOTHING in kept:
        return NOTHING
    return ANYTHING if not kept else kept[0] if len(kept) == 1 else All(tuple(kept))


def _refers(node: Any) -> bool:
    """Whether a reference, or what looks like one, lies anywhere in `node`."""
    if isinstance(node, dict):
        return any(name in KEYWORDS or _refers(member) for name, member in node.items())
    return isinstance(node, list) and any(map(_refers, node))


def _last(pointer: str) -> str:
    names = [step for step in pointer.split("/") if step and not step.isdecimal()]
    return names[-1] if names else "schema"
