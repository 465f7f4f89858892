"""Small schemas that lean on tracked rules, and values that nearly fit them."""

from typing import Any

from hypothesis import strategies as st

NAMES = ("a", "ab", "b", "c")
SCALARS: tuple[Any, ...] = (None, True, False, 0, 1, 2, 10, -1, "", "a", "ab", "b", "aé", "0")


def scalar_schemas() -> st.SearchStrategy[Any]:
    """Schemas of scalars."""
    return st.one_of(
        st.just(True),
        st.sampled_from(["null", "boolean", "integer", "number", "string"]).map(lambda name: {"type": name}),
        st.lists(st.sampled_from(SCALARS), min_size=1, max_size=3, unique_by=repr).map(lambda values: {"enum": values}),
        st.builds(
            lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more}, small(-2), small(0, 12)
        ),
        st.builds(lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more}, small(), small()),
        st.sampled_from(["^a", "b$", "^[ab]+$", "^a?$"]).map(lambda pattern: {"type": "string", "pattern": pattern}),
    )


def small(low: int = 0, high: int = 3) -> st.SearchStrategy[int]:
    """Small whole numbers."""
    return st.integers(low, high)


def array_schemas(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Arrays whose items may have to differ."""
    counts = st.fixed_dictionaries({}, optional={"minItems": small(), "maxItems": small(1, 4)})
    rules = st.fixed_dictionaries({}, optional={"uniqueItems": st.just(True), "contains": items})
    return st.builds(lambda item, n, rule: {"type": "array", "items": item, **n, **rule}, items, counts, rules)


def object_schemas(members: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with alternatives and counts of members."""
    names = st.lists(st.sampled_from(NAMES), unique=True, max_size=3)
    required = st.fixed_dictionaries({"required": names})
    return st.builds(
        lambda properties, required, rest: {"type": "object", "properties": properties, "required": required, **rest},
        st.dictionaries(st.sampled_from(NAMES), members, max_size=4),
        names,
        st.fixed_dictionaries(
            {},
            optional={
                "additionalProperties": st.one_of(st.just(False), members),
                "minProperties": small(),
                "maxProperties": small(0, 4),
                "anyOf": st.lists(required, min_size=1, max_size=3),
                "dependentRequired": st.dictionaries(st.sampled_from(NAMES), names, max_size=2),
            },
        ),
    )


def schemas() -> st.SearchStrategy[Any]:
    """Schemas of all kinds, two levels deep."""
    inner = st.one_of(scalar_schemas(), array_schemas(scalar_schemas()), object_schemas(scalar_schemas()))
    either = st.lists(inner, min_size=2, max_size=3).map(lambda members: {"anyOf": members})
    return st.one_of(array_schemas(inner), object_schemas(inner), object_schemas(scalar_schemas()), either)


def values() -> st.SearchStrategy[Any]:
    """Values out of the same few names and scalars."""
    scalars = st.sampled_from(SCALARS)
    names = st.sampled_from((*NAMES, "x"))
    return st.recursive(
        scalars,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)),
        max_leaves=8,
    )
