"""From a normal schema to what the backend is given and to the rules that are kept beside it.

A rule can be kept where the node of a value follows from its place: the names and positions that lead to it, its kind
of value, and the tag that an object begins with. Elsewhere the node is opaque: the backend rules alone, and what it
cannot hold is refused.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, Final, Literal

from grammars import item_counts, property_counts
from grammars.draft import Draft
from grammars.normal_form import Schema, every
from grammars.recogniser import Recogniser
from grammars.tracking.branches import Branch, branches, kinds, only
from grammars.tracking.names import Names
from grammars.tracking.objects import Grouped, as_patterns, grouped, impossible, tagged
from grammars.tracking.rules import ANY, OPAQUE, ArrayRule, Contained, Node, ObjectRule, Rules, StringRule, Unique
from grammars.tracking.shapes import Shapes, judge, shapes
from grammars.tracking.uniqueness import NotUnique, read_unique
from grammars.validators import anchored, build

Order = Literal["declared", "any"]
_SCALARS: Final = frozenset({"string", "number", "boolean", "null"})
_MOST_NAMES, _MOST_ORDERS = 4, 64
_BOUNDS: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "allOf"})


class CannotHold(ValueError):
    """A keyword stands where no rule can be kept, or says what none can hold."""

    def __init__(self, keyword: str, reason: str) -> None:
        self.keyword, self.reason = keyword, reason
        super().__init__(f"{keyword}: {reason}")


@dataclass(frozen=True, slots=True)
class Relaxed:
    """schema: for the backend. node: of its values, in the rules. ordered: whether some object keeps its declared order
    although any order was asked for."""

    schema: Schema
    node: int
    ordered: bool


def relax(schema: Schema, rules: Rules, order: Order = "declared") -> Relaxed:
    """Part a normal schema; what is kept beside the backend is added to `rules`. Raises CannotHold."""
    definitions = schema.get("$defs", {}) if isinstance(schema, dict) else {}
    relaxing = _Relaxing(definitions, order, rules)
    root: Schema = schema
    if isinstance(schema, dict):
        rest = {name: value for name, value in schema.items() if name != "$defs"}
        root = rest or True
    node, out = relaxing.govern(root)
    if isinstance(out, dict) and relaxing.out:
        out = {**out, "$defs": relaxing.out}
    return Relaxed(out, node, relaxing.ordered)


def unruled(schema: Schema) -> Relaxed:
    """A normal schema for a backend without any rules beside it. Raises CannotHold for what needs one."""
    if isinstance(schema, bool):
        return Relaxed(schema, ANY, False)
    relaxing = _Relaxing(schema.get("$defs", {}), "declared", Rules())
    out = relaxing.opaque({name: value for name, value in schema.items() if name != "$defs"})
    if isinstance(out, dict) and relaxing.out:
        out = {**out, "$defs": relaxing.out}
    return Relaxed(out, ANY, False)


@dataclass(slots=True)
class _Relaxing:
    definitions: Mapping[str, Schema]
    order: Order
    rules: Rules
    out: dict[str, Schema] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)
    unions: dict[int, int] = field(default_factory=dict)  # those being built: a branch may lead back to one
    recursive: set[int] = field(default_factory=set)
    ordered: bool = False

    def govern(self, schema: Schema) -> tuple[int, Schema]:
        """(the node of the values of `schema`, what the backend is told of them)."""
        if isinstance(schema, bool) or not schema:
            return ANY, schema is not False
        if schema.keys() == {"$ref"}:
            name = schema["$ref"].removeprefix("#/$defs/")
            if name not in self.nodes:
                node = self.nodes[name] = self.rules.add()
                self.rules.nodes[node], self.out[f"{name}k"] = self.build(schema)
            return self.nodes[name], {"$ref": f"#/$defs/{name}k"}
        if id(schema) in self.unions:
            self.recursive.add(id(schema))
            return self.unions[id(schema)], {"$ref": f"#/$defs/u{self.unions[id(schema)]}"}
        node = self.unions[id(schema)] = self.rules.add()
        self.rules.nodes[node], out = self.build(schema)
        del self.unions[id(schema)]
        if id(schema) not in self.recursive:
            return node, out
        self.out[f"u{node}"] = out
        return node, {"$ref": f"#/$defs/u{node}"}

    def build(self, schema: Schema) -> tuple[Node, Schema]:
        """The node of a schema, and what the backend is told."""
        found = branches(schema, self.definitions)
        if found is None:
            self.ordered |= self.order == "any"
            return Node(), self.opaque(self.target(schema))
        if not found:
            return Node(), False
        by_kind = {kind: [b for b in found if kind in kinds(b)] for kind in ("object", "array", "string", "number")}
        object_rule, objects = self.objects(by_kind["object"])
        array_rule, arrays = self.arrays(by_kind["array"])
        string_rule, scalars = self.scalars(found, by_kind["string"])
        numbers = by_kind["number"]
        plain = len(numbers) == 1 and "enum" not in numbers[0] and not numbers[0].keys() & _BOUNDS
        return Node(object_rule, array_rule, string_rule, plain), _union([*objects, *arrays, *scalars])

    def target(self, schema: Schema) -> Schema:
        """What a plain reference leads to; any other schema as it is."""
        if isinstance(schema, dict) and schema.keys() == {"$ref"}:
            return self.definitions[schema["$ref"].removeprefix("#/$defs/")]
        return schema

    def scalars(self, found: list[Branch], strings: list[Branch]) -> tuple[StringRule | None, list[Branch]]:
        """The rule of strings, and the parts of all branches that are neither objects nor arrays."""
        parts = [only(branch, _SCALARS) for branch in found if kinds(branch) & _SCALARS]
        if not strings:
            return None, parts
        if any(_is_free(branch) for branch in strings):
            return StringRule(), parts
        if len(strings) > 1 or "enum" in strings[0] or "pattern" in strings[0] or "allOf" in strings[0]:
            return _recognised(strings), parts
        low, high = strings[0].get("minLength", 0), strings[0].get("maxLength")
        if high is not None and low > high:
            return None, [part for part in (only(part, _SCALARS - {"string"}) for part in parts) if kinds(part)]
        self.rules.is_held = True
        for part in parts:
            part.pop("minLength", None)
            part.pop("maxLength", None)
        return StringRule(shortest=low, longest=high), parts

    def objects(self, found: list[Branch]) -> tuple[ObjectRule | None, list[Branch]]:
        """The rule of objects, and what the backend is told of them."""
        if not found:
            return None, []
        parts = [only(branch, frozenset({"object"})) for branch in found]
        if self.order == "any":
            parts = [one for part in parts for one in _spread(part)]
        one = None if any("enum" in part for part in parts) else grouped(parts, self.definitions)
        if one is not None and (ruled := self.object(one)) is not None:
            return (ruled[0], [ruled[1]]) if isinstance(ruled[1], dict) else (None, [])
        if self.order == "any" and (found_shapes := shapes(parts, self.definitions)) is not None:
            return self.shaped(found_shapes)
        tag = None if any("enum" in part for part in parts) else tagged(parts, self.definitions)
        if self.order == "any" and (orders := _orders(parts)) is not None:
            ordered, out = self.ordered, [self.opaque_branch(part) for part in orders]
            self.ordered = ordered or any(self.is_ordered(member) for part in parts for member in _members(part))
            return None, out
        self.ordered |= self.order == "any"
        if tag is None:
            return None, [self.opaque_branch(part) for part in parts]
        name, values = tag
        by_tag: dict[str, ObjectRule] = {}
        told: list[Branch] = []
        for part, names in zip(parts, values, strict=True):
            alone = grouped([part], self.definitions)
            ruled = None if alone is None else self.object(alone, any_order=False)
            if ruled is None:
                told.append(self.opaque_branch(part))
            elif isinstance(ruled[1], dict):
                told.append(ruled[1])
                by_tag.update(dict.fromkeys(names, ruled[0]))
        node = self.rules.add()
        self.rules.nodes[node] = Node(string=StringRule(is_free=False))
        return ObjectRule({name: node}, additional=OPAQUE, tag=name, by_tag=by_tag), told

    def shaped(self, found: Shapes) -> tuple[ObjectRule, list[Branch]]:
        """The rule of objects of several shapes, and what the backend is told of each."""
        shared = {name: self.govern(member) for name, member in found.names.items() if member is not None}
        told: list[Branch] = []
        for members, is_open in zip(found.members, found.additional, strict=True):
            outs = {
                name: shared[name][1] if name in shared else self.opaque(member) for name, member in members.items()
            }
            part: Branch = {"type": ["object"], **impossible(found.names, outs), "patternProperties": as_patterns(outs)}
            told.append(part if is_open else {**part, "additionalProperties": False})
        judges = {
            name: tuple(judge(members.get(name, True), self.definitions, self.validator) for members in found.members)
            for name, member in found.names.items()
            if member is None
        }
        nodes = {name: shared[name][0] if name in shared else OPAQUE for name in found.names}
        self.rules.is_held = True
        additional = ANY if any(found.additional) else None
        rule = ObjectRule(
            nodes,
            additional=additional,
            alternatives=found.alternatives,
            is_held=True,
            any_order=True,
            judges=judges,
        )
        return rule, told

    def object(self, one: Grouped, *, any_order: bool | None = None) -> tuple[ObjectRule, Schema] | None:
        """The rule and the part of objects of one shape, False where there are none; None where no rule can be kept."""
        is_open = one.additional is not False
        free = self.order == "any" if any_order is None else any_order
        any_order = free and bool(one.names) and (is_open or len(one.names) > 1)
        if one.patterns and not is_open and one.least > 1 and one.is_capped:
            return None  # different names would have to be demanded of a pattern
        children = {name: self.govern(member) for name, member in one.names.items()}
        patterns = [(pattern, *self.govern(member)) for pattern, member in one.patterns.items()]
        additional = self.govern(one.additional)
        alternatives = one.without({name for name, (_, out) in children.items() if out is False})
        is_held = any_order or one.is_choice or one.counts
        rule = ObjectRule(
            {name: node for name, (node, _) in children.items()},
            tuple((Recogniser([pattern]), node) for pattern, node, out in patterns if out is not False),
            tuple(Recogniser([pattern]) for pattern, _, out in patterns if out is False),
            additional[0] if is_open else None,
            alternatives,
            is_held=is_held,
            any_order=any_order,
        )
        if not Names(rule).is_completable:
            return rule, False
        self.rules.is_held |= is_held
        told: dict[str, Any] = {"type": ["object"]}
        members = {name: out for name, (_, out) in children.items()}
        others = {pattern: out for pattern, _, out in patterns}
        if any_order:
            told |= impossible(one.names, members)
            others = {**as_patterns(members), **one.without_names(others)}
        elif members:
            told["properties"] = members
        if others:
            told["patternProperties"] = others
        if additional[1] is not True:
            told["additionalProperties"] = additional[1]
        if one.required and not any_order:
            told["required"] = list(one.required)
        return rule, told

    def arrays(self, found: list[Branch]) -> tuple[ArrayRule | None, list[Branch]]:
        """The rule of arrays, and what the backend is told of them."""
        if not found:
            return None, []
        parts = [only(branch, frozenset({"array"})) for branch in found]
        if len(parts) > 1 or "enum" in parts[0]:
            self.ordered |= self.order == "any" and any("enum" not in part or "{" in str(part) for part in parts)
            return None, [self.opaque_branch(part) for part in parts]
        part = parts[0]
        if "contains" in part and part.keys() & {"maxItems", "prefixItems"}:
            return None, [self.opaque_branch(part)]
        if part.get("maxItems", math.inf) <= len(part.get("prefixItems", ())):
            part = {**part, "items": False}
        prefix = [self.govern(member) for member in part.get("prefixItems", ())]
        items = self.govern(part.get("items", True))
        is_unique = part.get("uniqueItems") is True and part.get("maxItems", 2) > 1
        unique: tuple[Unique, ...] = ()
        if is_unique:
            try:
                unique = read_unique(part, self.definitions)
            except NotUnique as error:
                raise CannotHold("uniqueItems", str(error)) from error
        contains = tuple(self.contained(part, one) for one in part.get("contains", ()))
        if contains and is_unique:
            raise CannotHold("contains", "stands beside `uniqueItems`, and the two may leave no item: drop one")
        self.rules.is_held |= is_unique or bool(contains)
        bound = max(len(prefix), part.get("minItems", 0), part.get("maxItems", 0)) + 1
        rule = ArrayRule(
            tuple(node for node, _ in prefix), None if items[1] is False else items[0], unique, contains, bound
        )
        told = {name: value for name, value in part.items() if name not in ("uniqueItems", "contains")}
        if prefix:
            told["prefixItems"] = [out for _, out in prefix]
        if "items" in told:
            told["items"] = items[1]
        return rule, [told]

    def contained(self, part: Branch, one: dict[str, Any]) -> Contained:
        """A rule that counts items."""
        wanted, every = self.validator(one["schema"]), self.validator(part.get("items", True))
        if not any(wanted.is_valid(value) and every.is_valid(value) for value in _samples(one["schema"])):
            raise CannotHold("contains", "may ask for an item that `items` forbids: say it inside `contains` alone")
        return Contained(wanted, one["at_least"])

    def validator(self, schema: Schema) -> Any:
        """A validator of a normal schema."""
        whole = {**schema, "$defs": dict(self.definitions)} if isinstance(schema, dict) else schema
        return build(anchored(whole), Draft.DRAFT2020)

    def is_ordered(self, schema: Schema) -> bool:
        """Whether objects of `schema` would come in one order if the backend alone held it."""
        found = branches(schema, self.definitions)
        return found is None or any(kinds(branch) & {"object", "array"} for branch in found)

    def opaque_branch(self, branch: Branch) -> Branch:
        """A branch for the backend alone."""
        out = self.opaque(branch)
        return out if isinstance(out, dict) else {}

    def opaque(self, schema: Schema) -> Schema:
        """A schema for the backend alone, all of it. Raises CannotHold for what only a rule could hold."""
        if isinstance(schema, bool):
            return schema
        self.ordered |= self.order == "any" and "properties" in schema
        schema = _without_counts(schema)
        if isinstance(schema, bool):
            return schema
        out: dict[str, Any] = {}
        for keyword, value in schema.items():
            if keyword in ("properties", "patternProperties"):
                out[keyword] = {name: self.opaque(member) for name, member in value.items()}
            elif keyword in ("prefixItems", "anyOf", "oneOf", "allOf"):
                out[keyword] = [self.opaque(member) for member in value]
            elif keyword in ("items", "additionalProperties"):
                out[keyword] = self.opaque(value)
            elif keyword == "$ref":
                out[keyword] = f"#/$defs/{self.opaque_definition(value.removeprefix('#/$defs/'))}"
            elif keyword == "uniqueItems" and schema.get("maxItems", 2) <= 1:
                continue
            elif keyword in ("uniqueItems", "contains"):
                raise CannotHold(
                    keyword,
                    "stands where no rule can follow the value: tell branches apart by a first member, and let it end "
                    "a sequence",
                )
            else:
                out[keyword] = value
        return out

    def opaque_definition(self, name: str) -> str:
        """The name of a definition for the backend alone."""
        if name not in self.out:
            self.out[name] = True  # a recursion ends here
            self.out[name] = self.opaque(self.definitions[name])
        return name


def _spread(part: Branch) -> list[Branch]:
    """Listed objects as closed ones whose members are listed, so that these may come in any order."""
    if "enum" not in part:
        return [part]
    return [
        {
            "type": ["object"],
            "properties": {name: {"enum": [member]} for name, member in value.items()},
            "additionalProperties": False,
            "required": list(value),
        }
        for value in part["enum"]
    ]


def _orders(parts: list[Branch]) -> list[Branch] | None:
    """Closed objects of few members, once for each order of these; None for others, and for too many orders."""
    out: list[Branch] = []
    for part in parts:
        names = list(part.get("properties", ()))
        if (
            part.get("additionalProperties", True) is not False
            or "patternProperties" in part
            or len(names) > _MOST_NAMES
        ):
            return None
        if set(part.get("required", ())) - set(names):
            return None
        members = part.get("properties", {})
        out += [{**part, "properties": {name: members[name] for name in order}} for order in permutations(names)]
        if len(out) > _MOST_ORDERS:
            return None
    return out


def _members(part: Branch) -> list[Schema]:
    return list(part.get("properties", {}).values())


def _samples(schema: Schema) -> list[Any]:
    """A few values, in the hope that some satisfies `schema`."""
    values: list[Any] = [None, True, False, "", "a", "aaaa", [], {}]
    numbers: set[float] = {0}
    for node in every(schema):
        if isinstance(node, dict):
            values += node.get("enum", ())
            numbers |= {value for keyword, value in node.items() if keyword in _BOUNDS - {"allOf"}}
            values.append(dict.fromkeys(node.get("required", ())))
    return values + [number + step for number in numbers for step in (0, 1, -1, 0.5)]


def _without_counts(schema: Branch) -> Schema:
    """A node without counts of members and items that only a rule could hold. Raises CannotHold."""
    if schema.keys() & {"minProperties", "maxProperties"}:
        try:
            return property_counts.expand(schema)
        except property_counts.CountsUnheld as error:
            raise CannotHold(error.keyword, str(error)) from error
    try:
        return item_counts.expand(schema)
    except item_counts.ItemsUnheld as error:
        raise CannotHold("contains", str(error)) from error


def _is_free(branch: Branch) -> bool:
    return "enum" not in branch and not branch.keys() & {"pattern", "minLength", "maxLength", "allOf"}


def _recognised(strings: list[Branch]) -> StringRule:
    """The rule of strings that the backend holds: how far they are known by less than their text."""
    if len(strings) > 1 or "enum" in strings[0]:
        return StringRule(is_free=False)
    branch = strings[0]
    patterns = [part["pattern"] for part in (branch, *branch.get("allOf", ())) if "pattern" in part]
    bound = max(branch.get("minLength", 0), branch.get("maxLength", -1) + 1)
    return StringRule(is_free=False, recogniser=Recogniser(patterns), bound=bound)


def _union(parts: list[Branch]) -> Schema:
    """One schema for all parts, each of which was one kind of value or several of one branch."""
    if not parts:
        return False
    if any("enum" in part or "allOf" in part or "anyOf" in part for part in parts):
        return parts[0] if len(parts) == 1 else {"anyOf": parts}
    names = [name for part in parts for name in part["type"]]
    if len(set(names)) < len(names) or {"integer", "number"} <= set(names):
        return {"anyOf": parts}
    merged: dict[str, Any] = {}
    for part in parts:
        merged |= part
    return {**merged, "type": names}
