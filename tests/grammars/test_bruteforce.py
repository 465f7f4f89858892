"""Masks against every answer there is: schemas with small finite languages, judged value by value by two validators."""

import json
import random
from collections import Counter
from typing import Any

import jsonschema
import jsonschema_rs
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from benchmarks.schemabench.ours import holds_any_order
from grammars import ConstraintRefused, GrammarCompiler, JsonSchema
from grammars.constraint import Order
from tests.grammars.exploration import (
    TooLarge,
    assert_masks_are_exact,
    assert_ways_back_leave_no_trace,
    explore,
    tiny_tokenizer,
)
from tests.grammars.finite_schemas import Finite, compact, finite_schemas, lists, objects, orders, texts

ORDERS: list[Order] = ["declared", *(["any"] if holds_any_order() else [])]


@pytest.fixture(scope="module")
def tiny() -> GrammarCompiler:
    """Sixty tokens of one to five characters, many of which cross the structure of JSON."""
    return GrammarCompiler(tiny_tokenizer(), vocab_size=96, deadline_s=60)


def _check(compiler: GrammarCompiler, finite: Finite, order: Order, seed: int = 0) -> None:
    """Raises ConstraintRefused and TooLarge; AssertionError for what is loose, tight, or a dead end."""
    try:
        compiled = compiler.compile(JsonSchema(finite.schema, order=order))
    except ConstraintRefused as refusal:
        if "no value can satisfy" not in refusal.reason and "no answer can satisfy" not in refusal.reason:
            raise
        rust = jsonschema_rs.Draft202012Validator(finite.schema)
        assert not any(map(rust.is_valid, finite.values)), f"refused as impossible: {finite.schema}"
        return
    found = explore(compiled, compiler.n_words)
    _assert_sound(finite.schema, found.texts)
    keeps_order = any(warning.startswith("property_order") for warning in compiled.warnings)
    _assert_complete(finite, found.texts, "declared" if keeps_order else order)
    assert_masks_are_exact(found)
    for i in range(5):
        assert_ways_back_leave_no_trace(compiled, found, random.Random(seed + i))


def _assert_sound(schema: Any, texts: set[str]) -> None:
    rust = jsonschema_rs.Draft202012Validator(schema)
    python = jsonschema.Draft202012Validator(schema)
    for text in texts:
        value = json.loads(text, object_pairs_hook=_without_repetition)
        assert rust.is_valid(value), f"{text} is let through by {json.dumps(schema)}"
        assert python.is_valid(value), f"{text} is let through by {json.dumps(schema)}"


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = Counter(name for name, _ in pairs)
    assert max(names.values(), default=0) <= 1, f"a name is written twice: {names}"
    return dict(pairs)


def _assert_complete(finite: Finite, texts: set[str], order: Order) -> None:
    rust = jsonschema_rs.Draft202012Validator(finite.schema)
    for value in finite.values:
        if rust.is_valid(value):
            spellings = {compact(other) for other in orders(value)}
            missing = spellings - texts
            assert len(missing) < len(spellings), f"{compact(value)} is refused by {json.dumps(finite.schema)}"
            if order == "any":
                assert not missing, f"{missing} are refused by {json.dumps(finite.schema)}"


def _object(properties: dict[str, Any], **keywords: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False, **keywords}


def _array(items: Any, **keywords: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **keywords}


BOTH, ONE_TWO = (True, False), {"enum": [1, 2]}
IF_TRUE = {"properties": {"a": {"const": True}}, "required": ["a"]}
FIXED: dict[str, Finite] = {
    "declared order": Finite(
        _object({"b": {"enum": [1, 12]}, "a": {"type": "boolean"}}, required=["a"]),
        objects({"b": (1, 12), "a": BOTH}),
    ),
    "integers": Finite({"type": "integer", "minimum": -12, "maximum": 107}, tuple(range(-20, 120))),
    "exclusive integers": Finite(
        {"type": "integer", "exclusiveMinimum": 9, "exclusiveMaximum": 21, "multipleOf": 5}, tuple(range(30))
    ),
    "length": Finite({"type": "string", "minLength": 2, "maxLength": 3, "pattern": "^[ab]*$"}, texts("ab", 4)),
    "counted items": Finite(_array({"enum": [0, "a"]}, minItems=1, maxItems=3), lists((0, "a"), 4)),
    "prefix": Finite(
        _array(False, prefixItems=[{"const": 1}, {"type": "boolean"}]), ([], [1], [1, True], [1, False], [True])
    ),
    # A mask remembered by position alone is wrong here once a token was taken back: `[[1` goes on with `],`.
    "prefix in a prefix": Finite(
        _array(False, prefixItems=[_array(False, prefixItems=[{"const": 1}, {"const": None}]), {"enum": [None]}]),
        lists(([], [1], [1, None], None), 2),
    ),
    "map": Finite(
        {
            "type": "object",
            "additionalProperties": ONE_TWO,
            "propertyNames": {"enum": ["a", "b"]},
            "minProperties": 1,
            "maxProperties": 1,
        },
        objects({"a": (1, 2), "b": (1, 2)}),
    ),
    "one of": Finite(
        {"oneOf": [{"type": "integer", "minimum": 0, "maximum": 2}, {"enum": ["a", None]}]}, (*range(4), "a", None)
    ),
    "all of": Finite(
        {"allOf": [{"type": "integer", "minimum": 0}, {"maximum": 12}, {"multipleOf": 3}]}, tuple(range(20))
    ),
    "not": Finite({"type": "boolean", "not": {"const": True}}, BOTH),
    "if": Finite(
        {
            **_object({"a": {"type": "boolean"}, "b": {"enum": [1]}}),
            "if": IF_TRUE,
            "then": {"required": ["b"]},
            "else": {"properties": {"b": False}},
        },
        objects({"a": BOTH, "b": (1,)}),
    ),
    "reference": Finite(
        {**_array({"$ref": "#/$defs/x"}, maxItems=2), "$defs": {"x": {"enum": ["ab", None]}}}, lists(("ab", None), 3)
    ),
    "objects in an enum": Finite(
        {"enum": [{"a": [1, "b"]}, {"b": {}}, [], "]"]}, ({"a": [1, "b"]}, {"b": {}}, [], "]", {"a": [1]})
    ),
}
# What an overlay enforces, and a compiler without it refuses.
TRACKED: dict[str, Finite] = {
    "unique items": Finite(_array({"enum": [1, 12, "a"]}, maxItems=3, uniqueItems=True), lists((1, 12, "a"), 3)),
    "contains": Finite(_array({"enum": [1, 12]}, maxItems=3, contains={"const": 12}, maxContains=2), lists((1, 12), 3)),
    "property counts": Finite(
        _object({"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 1}}, minProperties=1, maxProperties=2),
        objects({"a": (1,), "b": (2,), "c": (1,)}),
    ),
    "overlapping alternatives": Finite(
        {"oneOf": [{"type": "integer", "minimum": 0, "maximum": 5}, {"type": "integer", "minimum": 3, "maximum": 9}]},
        tuple(range(12)),
    ),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", FIXED)
def test_a_mask_allows_what_some_valid_answer_goes_on_with_and_nothing_else(
    tiny: GrammarCompiler, name: str, order: Order
) -> None:
    _check(tiny, FIXED[name], order)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", TRACKED)
def test_what_needs_memory_of_the_answer_is_exact_or_refused(tiny: GrammarCompiler, name: str, order: Order) -> None:
    try:
        _check(tiny, TRACKED[name], order)
    except ConstraintRefused as refusal:
        pytest.skip(f"refused: {refusal}")


def test_declared_properties_come_in_the_order_of_the_schema(tiny: GrammarCompiler) -> None:
    schema = FIXED["declared order"].schema
    texts = explore(tiny.compile(JsonSchema(schema)), tiny.n_words).texts
    assert '{"b":1,"a":true}' in texts
    assert '{"a":true,"b":1}' not in texts


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n", [60, pytest.param(3_000, marks=pytest.mark.full)])
def test_masks_of_schemas_nobody_wrote_are_exact(tiny: GrammarCompiler, order: Order, n: int) -> None:
    tried = Counter[str]()

    @settings(
        max_examples=n, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink]
    )
    @given(finite=finite_schemas(), seed=st.integers(0, 2**32))
    def check(finite: Finite, seed: int) -> None:
        try:
            _check(tiny, finite, order, seed)
            tried["held"] += 1
        except ConstraintRefused:
            tried["refused"] += 1
        except TooLarge:
            tried["too large"] += 1
            assume(False)

    check()
    assert tried["held"] > 0.3 * (tried["held"] + tried["refused"]), tried
