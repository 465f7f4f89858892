"""Counts of names and items written as alternatives: the same values are valid before and after."""

from itertools import chain, combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grammars import item_counts, property_counts
from tests.grammars.standard import judge

NAMES = ("a", "b", "c", "d")
OBJECTS = [dict.fromkeys(names, 1) for names in chain.from_iterable(combinations(NAMES, n) for n in range(5))]
ARRAYS: list[Any] = [[], [1], ["x"], [1, "x"], ["x", 1], ["x", "x"], [1, 1, "x"], ["x", 1, "x"], [1, 1, 1, 1]]


@settings(max_examples=300, deadline=None)
@given(
    declared=st.sets(st.sampled_from(NAMES[:3])),
    required=st.sets(st.sampled_from(NAMES)),
    closed=st.booleans(),
    fewest=st.none() | st.integers(0, 4),
    most=st.none() | st.integers(0, 4),
    types=st.sampled_from([["object"], ["null", "object"]]),
)
def test_counts_of_names_become_sets_of_names(
    declared: set[str], required: set[str], closed: bool, fewest: int | None, most: int | None, types: list[str]
) -> None:
    node: dict[str, Any] = {"type": types}
    if declared:
        node["properties"] = dict.fromkeys(sorted(declared), True)
    if required:
        node["required"] = sorted(required)
    if closed:
        node["additionalProperties"] = False
    if fewest is not None:
        node["minProperties"] = fewest
    if most is not None:
        node["maxProperties"] = most
    try:
        expanded = property_counts.expand(node)
    except property_counts.CountsUnheld:
        assert not closed
        return
    before, after = judge(node), judge(expanded)
    assert [v for v in (*OBJECTS, None, 1) if before.is_valid(v) != after.is_valid(v)] == []


@pytest.mark.parametrize("most", [1, 2, 3, 4])
@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("types", [["array"], ["array", "null"]])
def test_counted_items_become_places(most: int, least: int, types: list[str]) -> None:
    node = {"type": types, "maxItems": most, "contains": [{"schema": {"type": ["string"]}, "at_least": least}]}
    before, after = judge(node), judge(item_counts.expand(node))
    assert [v for v in (*ARRAYS, None, 1) if before.is_valid(v) != after.is_valid(v)] == []


def test_counted_items_without_an_end_are_refused() -> None:
    with pytest.raises(item_counts.ItemsUnheld):
        item_counts.expand({"type": ["array"], "contains": [{"schema": {"type": ["string"]}, "at_least": 1}]})
