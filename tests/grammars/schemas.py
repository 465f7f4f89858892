"""Schemas that nobody wrote, and values near what they say."""

from typing import Any

from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b", "c", "ab"])
SCALARS = (
    st.none() | st.booleans() | st.sampled_from([0, 1, 2, -1, 5, 10, 0.5, 1.5, -0.1, 100.25])
    | st.sampled_from(["", "a", "b", "ab", "aaa", "é", "0", "2020-01-01"])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=5
)
KINDS = ["null", "boolean", "integer", "number", "string", "array", "object"]
PATTERNS = st.sampled_from(["^a", "b", "a$", "^[ab]*$", "^(a|b)c?$", r"\d", r"^\S+$", "[^a]", "^a|b$", r"^\w{1,2}$"])
COUNTS = st.integers(0, 3)
BOUNDS = st.sampled_from([0, 1, -1, 5, 0.5, 10, 2.5, -3])

PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "type": st.sampled_from([*KINDS, ["string", "null"], ["integer", "object"], ["number", "string"], ["array",
     "object"]]),
    "minimum": BOUNDS, "maximum": BOUNDS, "exclusiveMinimum": BOUNDS, "exclusiveMaximum": BOUNDS,
    "multipleOf": st.sampled_from([1, 2, 3, 0.5]), "minLength": COUNTS, "maxLength": COUNTS, "pattern": PATTERNS,
    "format": st.sampled_from(["date", "ipv4", "uuid", "hostname"]), "minItems": COUNTS, "maxItems": COUNTS,
    "required": st.lists(NAMES, min_size=1, max_size=2, unique=True), "minProperties": st.integers(0, 2),
    "maxProperties": st.integers(0, 2), "uniqueItems": st.booleans(), "enum": st.lists(VALUES, min_size=1, max_size=4),
    "const": VALUES, "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, max_size=2, unique=True), max_size=1),
    "$ref": st.sampled_from(["#/$defs/x", "#/$defs/y"]),
    "propertyNames": st.sampled_from([{"pattern": "^a"}, {"maxLength": 1}, {"enum": ["a", "b"]}, {"pattern": "b"}]),
}  # fmt: skip


def _node(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(inner, min_size=1, max_size=3)
    nested = {
        "properties": st.dictionaries(NAMES, inner, min_size=1, max_size=3),
        "additionalProperties": st.just(False) | inner,
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "b", "^c$"]), inner, min_size=1, max_size=2),
        "items": inner, "prefixItems": some, "contains": inner, "allOf": some, "anyOf": some, "oneOf": some,
        "not": inner,
        "if": inner, "then": inner, "else": inner, "dependentSchemas": st.dictionaries(NAMES, inner, max_size=1),
        "unevaluatedProperties": st.just(False), "unevaluatedItems": st.just(False),
    }  # fmt: skip
    return st.fixed_dictionaries({}, optional={}) | st.lists(
        st.sampled_from(sorted(PLAIN) + sorted(nested)), min_size=1, max_size=4, unique=True
    ).flatmap(lambda chosen: st.fixed_dictionaries({keyword: {**PLAIN, **nested}[keyword] for keyword in chosen}))


LEAVES = st.booleans() | st.lists(st.sampled_from(sorted(PLAIN)), min_size=1, max_size=3, unique=True).flatmap(
    lambda chosen: st.fixed_dictionaries({keyword: PLAIN[keyword] for keyword in chosen})
)
SCHEMAS = st.tuples(st.recursive(LEAVES, _node, max_leaves=6).filter(lambda s: isinstance(s, dict)), LEAVES).map(
    lambda pair: {
        **pair[0],
        "$defs": {"x": _without_refs(pair[1]), "y": {"type": "object", "properties": {"a": {"$ref": "#/$defs/y"}}}},
    }
)


def _without_refs(schema: Any) -> Any:
    return {k: v for k, v in schema.items() if k != "$ref"} if isinstance(schema, dict) else schema
