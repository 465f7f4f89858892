"""A schema is read in its draft: what the draft does not know asserts nothing, and the final validator agrees."""

import json
from typing import Any

import pytest

from grammars import ConstraintRefused, GrammarCompiler, JsonSchema
from grammars.draft import Draft, of
from grammars.validation import validate
from tests.grammars.answers import takes_json

URI = {
    Draft.DRAFT4: "http://json-schema.org/draft-04/schema#",
    Draft.DRAFT6: "http://json-schema.org/draft-06/schema#",
    Draft.DRAFT7: "http://json-schema.org/draft-07/schema#",
    Draft.DRAFT2019: "https://json-schema.org/draft/2019-09/schema",
    Draft.DRAFT2020: "https://json-schema.org/draft/2020-12/schema",
}
# A schema that uses a keyword, a value that breaks it, and the draft that brought it.
NEWER: list[tuple[dict[str, Any], Any, Draft]] = [
    ({"const": 1}, 2, Draft.DRAFT6),
    ({"contains": {"type": "string"}, "maxItems": 2}, [1], Draft.DRAFT6),
    ({"propertyNames": {"maxLength": 1}}, {"ab": 1}, Draft.DRAFT6),
    ({"if": {"type": "integer"}, "then": {"minimum": 3}}, 1, Draft.DRAFT7),
    ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, Draft.DRAFT2019),
    ({"dependentSchemas": {"a": {"required": ["b"]}}}, {"a": 1}, Draft.DRAFT2019),
    ({"unevaluatedProperties": {"type": "null"}}, {"a": 1}, Draft.DRAFT2019),
    ({"unevaluatedItems": {"type": "null"}}, [1], Draft.DRAFT2019),
    ({"prefixItems": [{"type": "null"}]}, [1], Draft.DRAFT2020),
]


@pytest.mark.parametrize("draft", list(Draft), ids=lambda draft: draft.name)
@pytest.mark.parametrize(("schema", "wrong", "since"), NEWER, ids=lambda value: str(value)[:30])
def test_a_keyword_asserts_something_from_its_draft_on(
    compiler: GrammarCompiler, schema: dict[str, Any], wrong: Any, since: Draft, draft: Draft
) -> None:
    # Side by side with another branch, so that what is ignored is not merely enforced more than asked for.
    whole = {"$schema": URI[draft], "oneOf": [{"type": type_of(wrong), **schema}, {"enum": [wrong]}]}
    compiled = compiler.compile(JsonSchema(whole))
    assert takes_json(compiler, whole, wrong) is (draft >= since)
    assert any(next(iter(schema)) in warning for warning in compiled.warnings) is (draft < since)
    if draft < since:
        with pytest.raises(ConstraintRefused):
            compiler.compile(JsonSchema(whole, strict=True))


def type_of(value: Any) -> str:
    """The JSON type of a value in NEWER."""
    return {int: "integer", list: "array", dict: "object"}[type(value)]


@pytest.mark.parametrize("draft", list(Draft), ids=lambda draft: draft.name)
def test_a_format_is_asserted_in_every_draft(compiler: GrammarCompiler, draft: Draft) -> None:
    schema = {"$schema": URI[draft], "type": "string", "not": {"format": "uuid"}, "maxLength": 36}
    uuid = "2eb8aa08-aa98-11ea-b4aa-73b441d16380"
    for text, is_right in (("x", True), (uuid, False)):
        assert takes_json(compiler, schema, text) is is_right
        assert (validate(JsonSchema(schema), f'"{text}"') is None) is is_right


# Old spellings without `$schema`, a right value and a wrong one.
OLD: list[tuple[dict[str, Any], Any, Any]] = [
    ({"type": "integer", "not": {"minimum": 3, "exclusiveMinimum": True}}, 3, 4),
    ({"type": "integer", "not": {"maximum": 3, "exclusiveMaximum": False}}, 4, 3),
    ({"items": [{"$ref": "#/$defs/n", "minimum": 3}], "$defs": {"n": {"type": "integer"}}}, [3], [2]),
    ({"items": [True], "unevaluatedItems": False, "type": "array"}, [1], [1, 2]),
    ({"items": [{"type": "null"}], "dependentRequired": {"a": ["b"]}}, {"b": 1}, {"a": 1}),
    ({"dependencies": {"a": ["b"]}, "not": {"dependentRequired": {"c": ["d"]}}}, {"c": 1}, {"a": 1, "c": 1}),
]


@pytest.mark.parametrize(("schema", "right", "wrong"), OLD, ids=range(len(OLD)))
def test_old_spellings_without_a_draft_are_read_beside_new_keywords(
    compiler: GrammarCompiler, schema: dict[str, Any], right: Any, wrong: Any
) -> None:
    for value, is_right in ((right, True), (wrong, False)):
        assert takes_json(compiler, schema, value) is is_right
        assert (validate(JsonSchema(schema), json.dumps(value)) is None) is is_right


def test_lists_of_items_and_prefix_items_have_no_draft_in_common(compiler: GrammarCompiler) -> None:
    schema = {"properties": {"a": {"items": [True]}, "b": {"prefixItems": [True]}}}
    assert of(schema) is Draft.DRAFT2019
    with pytest.raises(ConstraintRefused) as caught:
        compiler.compile(JsonSchema(schema))
    assert (caught.value.keyword, caught.value.pointer) == ("prefixItems", "/properties/b")


def test_a_part_of_another_draft_is_refused(compiler: GrammarCompiler) -> None:
    part = {"$id": "https://example.org/a", "$schema": URI[Draft.DRAFT7], "type": "object"}
    with pytest.raises(ConstraintRefused) as caught:
        compiler.compile(JsonSchema({"$ref": "#/$defs/a", "$defs": {"a": part}}))
    assert (caught.value.keyword, caught.value.pointer) == ("$schema", "/$defs/a")
