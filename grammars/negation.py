"""The complement of a normal schema, where one can be written: De Morgan over the keywords of a node."""

from collections.abc import Mapping
from typing import Any

from grammars.normal_form import ALL_TYPES, TYPES, Schema, conjunction, definition, disjunction, type_of
from grammars.regex import all_but


class NotNegatable(ValueError):
    """The complement cannot be written in the normal form; `keyword` is the one that stands in the way."""

    def __init__(self, keyword: str) -> None:
        self.keyword = keyword
        super().__init__(keyword)


def negate(
    schema: Schema, definitions: Mapping[str, Schema], within: frozenset[str] | None = None, depth: int = 8
) -> Schema:
    """A normal schema that accepts exactly what `schema` does not. Raises NotNegatable.

    within: types (`integer` apart from `number`) that every instance is known to have anyhow; what the result says of
    others is then free. It makes "no integer" expressible where no fraction can occur.
    """
    if isinstance(schema, bool):
        return not schema
    if depth == 0:
        raise NotNegatable("$ref")
    branches: list[Schema] = []
    for keyword, value in schema.items():
        match keyword:
            case "type":
                branches.append(_without_types(value, within))
            case "enum":
                branches.append(_without_values(value))
            case "$ref":
                target = definition(schema, definitions)
                if target is None:
                    raise NotNegatable("$ref")
                branches.append(negate(target, definitions, within, depth - 1))
            case "anyOf":
                branches.append(conjunction([negate(member, definitions, within, depth - 1) for member in value]))
            case "allOf":
                branches += [negate(member, definitions, within, depth - 1) for member in value]
            case "properties":
                for name, member in value.items():
                    complement = negate(member, definitions, depth=depth - 1)
                    if complement is not False:
                        branches.append({"type": ["object"], "properties": {name: complement}, "required": [name]})
            case "required":
                branches += [{"type": ["object"], "properties": {name: False}} for name in value]
            case "prefixItems":
                for i, member in enumerate(value):
                    complement = negate(member, definitions, depth=depth - 1)
                    if complement is not False:
                        branches.append(
                            {"type": ["array"], "prefixItems": [*[True] * i, complement], "minItems": i + 1}
                        )
            case "additionalProperties" | "items" if value is True or value == {}:
                continue
            case _ if keyword in _BOUNDS:
                branches.append(_beyond(keyword, value))
            case _:
                raise NotNegatable(keyword)
    return disjunction(branches)


_BOUNDS = {
    "minimum": ("number", "exclusiveMaximum", 0), "exclusiveMinimum": ("number", "maximum", 0),
    "maximum": ("number", "exclusiveMinimum", 0), "exclusiveMaximum": ("number", "minimum", 0),
    "minLength": ("string", "maxLength", -1), "maxLength": ("string", "minLength", 1),
    "minItems": ("array", "maxItems", -1), "maxItems": ("array", "minItems", 1),
    "minProperties": ("object", "maxProperties", -1), "maxProperties": ("object", "minProperties", 1),
}  # fmt: skip


def _beyond(keyword: str, value: Any) -> Schema:
    kind, opposite, step = _BOUNDS[keyword]
    if keyword == "maxProperties" and value > 0:
        raise NotNegatable(keyword)  # names may repeat, so no more than one can be demanded
    if value + step < 0 and kind != "number":
        return False
    return {"type": [kind], opposite: value + step}


def _without_types(names: list[str], within: frozenset[str] | None) -> Schema:
    if within is not None:
        covered = {*names, *(("integer",) if "number" in names else ())}
        rest = sorted(within - covered)
        if "number" not in rest or "integer" not in names:
            return {"type": rest} if rest else False
    if "integer" in names and "number" not in names:
        raise NotNegatable("type")
    rest = [name for name in TYPES if name not in names]
    return {"type": rest} if rest else False


def _without_values(values: list[Any]) -> Schema:
    by_type: dict[str, list[Any]] = {}
    for value in values:
        by_type.setdefault(type_of(value), []).append(value)
    if "array" in by_type or "object" in by_type:
        raise NotNegatable("enum")
    branches: list[Schema] = []
    untouched = [name for name in TYPES if name in ALL_TYPES - by_type.keys()]
    if untouched:
        branches.append({"type": untouched})
    if "string" in by_type:
        branches.append({"type": ["string"], "pattern": all_but(by_type["string"])})
    if "boolean" in by_type and len(set(by_type["boolean"])) == 1:
        branches.append({"enum": [not by_type["boolean"][0]]})
    if "number" in by_type:
        points = sorted(set(by_type["number"]))
        edges = [{}, *({"exclusiveMinimum": point} for point in points)]
        ends = [*({"exclusiveMaximum": point} for point in points), {}]
        branches += [{"type": ["number"], **low, **high} for low, high in zip(edges, ends, strict=True)]
    return disjunction(branches)
