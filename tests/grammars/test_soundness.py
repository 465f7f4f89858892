"""The promise on schemas nobody wrote: what a grammar lets through is valid, by two validators of other making."""

import json
import random
from typing import Any

import jsonschema
import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grammars import ConstraintRefused, GrammarCompiler, JsonSchema
from tests.grammars.answers import draw, takes_json
from tests.grammars.schemas import SCHEMAS, VALUES


def _invalid_by_any(schema: Any, value: Any) -> bool:
    """Whether a validator in Rust or one in Python refuses the value; multiples of floats are left to the exact one."""
    rust = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    python = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    return not rust.is_valid(value) or ("multipleOf" not in json.dumps(schema) and not python.is_valid(value))


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=SCHEMAS, values=st.lists(VALUES, min_size=4, max_size=8), seed=st.integers(0, 2**32))
def test_nothing_invalid_passes_a_grammar_drawn_from_it_or_fed_to_it(
    compiler: GrammarCompiler, schema: Any, values: list[Any], seed: int
) -> None:
    try:
        compiled = compiler.compile(JsonSchema(schema))
    except ConstraintRefused:
        return
    passed = [value for value in values if takes_json(compiler, schema, value)]
    rng = random.Random(seed)
    for _ in range(4):
        text = draw(compiled.matcher(), rng, compiler.n_words)
        if (
            text is not None and b"e" not in text.lower()
        ):  # numbers beyond doubles have no meaning that validators share
            passed.append(json.loads(text))
    assert [value for value in passed if _invalid_by_any(schema, value)] == []


@pytest.mark.full
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=SCHEMAS, values=st.lists(VALUES, min_size=4, max_size=8))
def test_nothing_invalid_passes_many_more_grammars(compiler: GrammarCompiler, schema: Any, values: list[Any]) -> None:
    try:
        compiler.compile(JsonSchema(schema))
    except ConstraintRefused:
        return
    passed = [value for value in values if takes_json(compiler, schema, value)]
    assert [value for value in passed if _invalid_by_any(schema, value)] == []
