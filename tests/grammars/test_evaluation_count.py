"""The count of evaluations: never below what a validator does, and small for what people write."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grammars.draft import Draft
from grammars.evaluation_count import is_affordable


def fan(levels: int, width: int = 3) -> dict[str, Any]:
    level = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * width} for i in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": level | {f"d{levels}": {"type": "null"}}}


def affordable(schema: Any, value: Any, most: int = 300_000) -> bool:
    return is_affordable(schema, Draft.DRAFT2020, value, most)


@given(st.integers(1, 6), st.integers(1, 3))
def test_a_fan_of_references_is_counted_exactly(levels: int, width: int) -> None:
    definitions = sum(width**level for level in range(levels + 1))
    references = sum(width ** (level + 1) for level in range(levels))
    exact = 1 + definitions + references
    assert affordable(fan(levels, width), 1, exact)
    assert not affordable(fan(levels, width), 1, exact - 1)


def test_what_multiplies_is_not_affordable_however_it_is_written() -> None:
    assert not affordable(fan(20), 1)
    assert not affordable({"not": {"$ref": "#/$defs/d0"}, "$defs": fan(20)["$defs"]}, 1)
    anchored = {
        "anyOf": [{"$ref": "#a0"}],
        "$defs": {f"d{i}": {"$anchor": f"a{i}", "oneOf": [{"$ref": f"#a{min(i + 1, 30)}"}] * 2} for i in range(30)}
        | {"last": {"$anchor": "a30"}},
    }
    assert not affordable(anchored, 1)
    value: Any = 1
    for _ in range(25):
        value = {"a": value}
    halves = {"allOf": [{"properties": {"a": {"$ref": "#"}}}, {"additionalProperties": {"$ref": "#"}}]}
    assert not affordable(halves, value)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (True, [1]),
        ({"$ref": "#"}, 1),
        ({"properties": {"a": {"$ref": "#"}}}, {"a": {"a": {"a": 1}}}),
        ({"items": {"anyOf": [{"type": "integer"}, {"type": "string"}]}}, list(range(5_000))),
        (fan(6), [1, 2, 3]),
    ],
)
def test_ordinary_schemas_are_affordable(schema: Any, value: Any) -> None:
    assert affordable(schema, value)


def test_a_reference_that_leads_nowhere_known_is_not_trusted() -> None:
    assert not affordable({"$ref": "https://example.com/other.json"}, 1)
