"""One schema per keyword and combination, judged on valid and invalid instances: right, or refused, never loose.

The cases follow the table of keywords that engines are known to loosen. `REFUSED` are those that no backend holds
exactly.
"""

from typing import Any

import jsonschema_rs as rs
import pytest

from grammars import ConstraintRefused, GrammarCompiler, JsonSchema
from grammars.draft import Draft, declared
from tests.grammars.answers import takes, takes_json

OBJECT = {"type": "object"}
A_INT = {"properties": {"a": {"type": "integer"}}, "required": ["a"]}
RECURSIVE = {
    "$ref": "#/$defs/n",
    "$defs": {
        "n": {
            "type": "object",
            "properties": {"v": {"type": "integer"}, "n": {"$ref": "#/$defs/n"}},
            "required": ["v"],
            "additionalProperties": False,
        }
    },
}
PROBES: list[tuple[Any, list[Any], list[Any]]] = [
    # types and values
    ({"type": "null"}, [None], [0, "null"]),
    ({"type": "boolean"}, [True, False], [1, "true"]),
    ({"type": "integer"}, [0, -5, 10**20], [1.5, "1"]),
    ({"type": "number"}, [0, -1.5, 1e-07, 1e300], ["1", None]),
    ({"type": "string"}, ["", "é😀", 'q"\\\n\u0001'], [1]),
    ({"type": ["integer", "null"]}, [1, None], ["a"]),
    ({"enum": [1, "a", None, [1, {"b": 2}]]}, [1, "a", None, [1, {"b": 2}]], [2, "b", [1], True]),
    ({"enum": [1, "a", None], "type": ["string", "null"]}, ["a", None], [1]),
    ({"const": {"a": 1, "b": [True]}}, [{"a": 1, "b": [True]}], [{}, {"a": 1}]),
    ({"const": "a", "maxLength": 3}, ["a"], ["b"]),
    ({"enum": ["ab", "abc", 5], "pattern": "c"}, ["abc", 5], ["ab"]),
    ({}, [None, {"a": [1]}, "x"], []),
    (True, [1, {}], []),
    # numbers
    ({"type": "integer", "minimum": 0, "maximum": 32767}, [0, 32767, 99], [-1, 32768]),
    ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, [0.5, 0.001], [0, 1, 1.5]),
    ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, [0.5, 0.1], [0, 0.51, -0.1]),
    ({"type": "number", "minimum": -0.5, "exclusiveMaximum": 0}, [-0.5, -0.1], [0, 0.1]),
    ({"minimum": 5}, [5, "a", None, {}], [4, 4.9]),
    ({"type": "integer", "multipleOf": 3}, [0, 9, -3], [1, 10]),
    ({"type": "integer", "multipleOf": 3, "minimum": 4}, [6], [3, 7]),
    ({"type": "number", "multipleOf": 0.01}, [0.01, 19.99, 1], [0.001]),
    ({"allOf": [{"multipleOf": 2}, {"multipleOf": 3}], "type": "integer"}, [6, 0], [2, 3]),
    ({"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 3, "exclusiveMinimum": True}, [4], [3]),
    ({"minimum": 3, "exclusiveMinimum": True, "type": "integer"}, [4], [3]),
    # strings
    ({"type": "string", "minLength": 2, "maxLength": 3}, ["éé", "a\n😀"], ["", "a", "abcd"]),
    ({"type": "string", "pattern": "foo"}, ["foo", "xfoox"], ["bar", "fo"]),
    ({"pattern": "^(a|b)$|^c$"}, ["a", "b", "c", 1], ["ab", "d"]),
    ({"type": "string", "pattern": "^[a-z]+$", "maxLength": 3}, ["abc"], ["abcd", "A"]),
    ({"type": "string", "format": "date", "maxLength": 10}, ["2024-02-29"], ["2023-02-29", "x"]),
    ({"type": "string", "format": "date", "pattern": "^2024"}, ["2024-01-01"], ["2023-01-01", "2024"]),
    ({"type": "string", "format": "uuid"}, ["2eb8aa08-aa98-11ea-b4aa-73b441d16380"], ["2eb8"]),
    ({"type": "string", "format": "ipv4"}, ["127.0.0.1"], ["256.0.0.1"]),
    ({"type": "string", "format": "json-pointer"}, ["/a~0"], ["a", "/~"]),
    ({"type": "string", "format": "uri-reference"}, ["/a?b"], ["\\"]),
    ({"type": "string", "pattern": "^\\p{L}+$"}, ["é"], ["1"]),
    ({"type": "string", "pattern": "^\\d\\w\\s$"}, ["1a "], ["é a", "1é "]),
    # arrays
    ({"type": "array", "items": {"type": "integer"}}, [[], [1, 2]], [["a"], {}]),
    ({"type": "array", "minItems": 1, "maxItems": 2}, [[1], [1, "a"]], [[], [1, 2, 3]]),
    ({"prefixItems": [{"type": "string"}], "items": False}, [[], ["a"]], [[1], ["a", 1]]),
    ({"prefixItems": [{"type": "string"}]}, [["a", 1, None], []], [[1]]),
    ({"type": "array", "items": [{"type": "integer"}], "additionalItems": {"type": "string"}}, [[1, "a"]], [[1, 1]]),
    ({"items": {"type": "integer"}, "additionalItems": False, "type": "array"}, [[1, 2]], [["a"]]),
    ({"type": "array", "uniqueItems": True, "maxItems": 1}, [[], [1]], [[1, 1]]),
    ({"type": "array", "contains": {"type": "string"}, "maxItems": 3}, [["a"], [1, "a", 2]], [[], [1, 2]]),
    ({"type": "array", "contains": {"const": 1}, "maxContains": 0, "minContains": 0}, [[], [2]], [[1]]),
    # objects
    ({**OBJECT, **A_INT}, [{"a": 1}, {"a": 1, "b": "x"}], [{}, {"a": "x"}]),
    ({**OBJECT, "properties": {"a": {}, "b": {}}, "additionalProperties": False}, [{}, {"b": 1}], [{"c": 1}]),
    ({**OBJECT, "additionalProperties": {"type": "integer"}}, [{}, {"x": 1}], [{"x": "a"}]),
    ({**OBJECT, "required": ["a"]}, [{"a": 1}], [{}, {"b": 1}]),
    ({"required": ["a"]}, [{"a": 1}, 5, []], [{}]),
    ({**OBJECT, **A_INT, "required": ["a", "z"]}, [{"a": 1, "z": 2}], [{"a": 1}]),
    ({**OBJECT, "patternProperties": {"^x": {"type": "integer"}}}, [{"x1": 1, "y": "a"}], [{"x1": "a"}]),
    ({**OBJECT, "patternProperties": {"x": {"type": "integer"}}, "additionalProperties": False}, [{"ax": 1}],
     [{"a": 1}]),
    ({"properties": {"xa": {"maximum": 3}}, "patternProperties": {"^x": {"type": "integer"}}}, [{"xa": 3}],
     [{"xa": 4}, {"xa": 1.5}]),
    ({**OBJECT, "propertyNames": {"pattern": "^a"}}, [{"ab": 1}], [{"b": 1}]),
    ({**OBJECT, "propertyNames": {"maxLength": 1}, "properties": {"a": {}, "bb": {}}}, [{"a": 1}], [{"bb": 1}]),
    ({**OBJECT, "propertyNames": {"enum": ["a", "b"]}}, [{"a": 1}, {}], [{"c": 1}]),
    ({**OBJECT, "minProperties": 1}, [{"a": 1}], [{}]),
    ({**OBJECT, "properties": {"a": {}, "b": {}}, "minProperties": 1}, [{"a": 1}, {"c": 1}], [{}]),
    ({**OBJECT, "properties": {"a": {}, "b": {}}, "minProperties": 2, "additionalProperties": False}, [{"a": 1,
     "b": 1}], [{"a": 1}]),
    ({**OBJECT, "properties": {"a": {}, "b": {}}, "maxProperties": 1, "additionalProperties": False}, [{}, {"b": 1}],
     [{"a": 1, "b": 1}]),
    ({**OBJECT, "maxProperties": 1}, [{}, {"b": 1}], [{"a": 1, "b": 1}]),
    ({**OBJECT, "properties": {"a": True, "b": False}}, [{"a": 1}], [{"b": 1}]),
    ({"unevaluatedProperties": False, "properties": {"a": {}}}, [{"a": 1}], [{"b": 1}]),
    ({"allOf": [{"properties": {"a": {}}}], "properties": {"b": {}}, "unevaluatedProperties": False}, [{"a": 1,
     "b": 1}], [{"c": 1}]),
    ({"prefixItems": [{}], "unevaluatedItems": False}, [[1]], [[1, 2]]),
    # references
    (RECURSIVE, [{"v": 1, "n": {"v": 2, "n": {"v": 3}}}], [{"v": 1, "n": {"n": {"v": 1}}}]),
    ({"$ref": "#/$defs/x", "maxLength": 2, "$defs": {"x": {"type": "string"}}}, ["ab"], ["abc", 1]),
    ({"$ref": "#x", "$defs": {"y": {"$anchor": "x", "type": "null"}}}, [None], [1]),
    ({"properties": {"a": {"type": "null"}, "b": {"$ref": "#/properties/a"}}}, [{"b": None}], [{"b": 1}]),
    (
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"x": {"type": "string"}},
         "properties": {"a": {"$ref": "#/definitions/x", "maxLength": 1}}},
        [{"a": "abc"}], [{"a": 1}],
    ),
    # combinations
    ({"anyOf": [{"type": "string"}, {"type": "integer"}], "maxLength": 2}, ["ab", 1], ["abc", None]),
    ({"allOf": [{**OBJECT, **A_INT}, {"properties": {"b": {"type": "string"}}, "required": ["b"]}]}, [{"a": 1,
     "b": "x"}], [{"a": 1}, {"a": 1, "b": 2}]),
    ({"allOf": [{"minimum": 3}, {"maximum": 5}], "type": "integer"}, [3, 5], [2, 6, "a"]),
    ({"allOf": [{"type": "string"}]}, ["a"], [1]),
    ({"allOf": [{"pattern": "^a"}, {"pattern": "b$"}], "type": "string"}, ["ab", "axb"], ["a", "b"]),
    ({"oneOf": [{"type": "string"}, {"type": "null"}]}, ["a", None], [1]),
    ({"oneOf": [{"type": "integer", "maximum": 8}, {"type": "integer", "minimum": 5}]}, [2, 9], [5, 8]),
    ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}], **OBJECT}, [{"a": 1}, {"b": 1}], [{}, {"a": 1, "b": 1}]),
    ({"oneOf": [{"$ref": "#/$defs/p"}, {"$ref": "#/$defs/q"}], "$defs": {
        "p": {"properties": {"k": {"const": "p"}}, "required": ["k"]}, "q": {"properties": {"k": {"const": "q"}},
        "required": ["k"]}}},
     [{"k": "p"}, {"k": "q"}], [{"k": "r"}, {}]),
    ({"not": {"type": "string"}}, [1, None], ["a"]),
    ({"not": {"enum": ["a", "bc", 3, None]}}, ["b", "abc", 4, True], ["a", "bc", 3, None]),
    ({"not": {"required": ["a"]}}, [{}, {"b": 1}], [{"a": 1}, 1]),
    ({"type": "string", "not": {"maxLength": 2}}, ["abc"], ["ab", 1]),
    ({"not": {"anyOf": [{"type": "object"}, {"minimum": 3}]}}, [2, -1.5], [3, {}, "a"]),
    ({"if": {"properties": {"k": {"const": 1}}, "required": ["k"]}, "then": {"required": ["z"]},
     "else": {"required": ["y"]}},
     [{"k": 1, "z": 0}, {"y": 0}, {"k": 2, "y": 0}], [{"k": 1}, {"k": 2}, {}]),
    ({"if": {"type": "string"}, "then": {"maxLength": 1}}, ["a", 1], ["ab"]),
    ({"dependentRequired": {"b": ["c"]}}, [{}, {"c": 1}, {"b": 1, "c": 1}], [{"b": 1}]),
    ({"dependentSchemas": {"b": {"required": ["c"]}}}, [{}, {"b": 1, "c": 1}], [{"b": 1}]),
    ({"dependencies": {"b": ["c"], "d": {"required": ["e"]}}}, [{"b": 1, "c": 1}, {"d": 1, "e": 1}], [{"b": 1},
     {"d": 1}]),
    # counts
    ({"properties": {"a": {"type": "array", "uniqueItems": True}}}, [{"a": [1, 2]}], [{"a": [1, 1]}]),
    ({"type": "array", "contains": {"type": "string"}}, [["a"], [1, "a"]], [[], [1]]),
    ({**OBJECT, "minProperties": 2}, [{"a": 1, "b": 1}], [{}, {"a": 1}]),
    # what holds together
    ({"allOf": [{"$ref": "#/$defs/n"}, {"required": ["n"]}], "$defs": {"n": {**OBJECT, "properties": {"n": {"$ref":
     "#/$defs/n", "maxProperties": 0}}}}}, [{"n": {}}], [{}, {"n": {"n": {}}}]),
    ({"allOf": [{"properties": {"a": {"minimum": 1}}}, {"properties": {"a": {"maximum": 3}}}], "required": ["a"]},
     [{"a": 2}, {"a": "x"}], [{"a": 0}, {"a": 4}, {}]),
    ({"allOf": [{"properties": {"a": {}}, "additionalProperties": {"type": "null"}}, {"properties": {"b": {}}}]},
     [{"a": 1, "b": None}, {"b": None, "c": None}], [{"a": 1, "b": 1}]),
    ({"allOf": [{"prefixItems": [{"type": "null"}]}, {"items": {"type": ["null", "integer"]}}], "type": "array"},
     [[None, 1], []], [[1], [None, "a"]]),
    ({"anyOf": [{**OBJECT, "required": ["a"], "properties": {"a": False}}, {"type": "null"}]}, [None], [{"a": 1}, {}]),
    ({"anyOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}], **OBJECT, "unevaluatedProperties": False},
     [{}, {"a": 1}, {"a": 1, "b": 1}], [{"c": 1}, {"a": 1, "c": 1}]),
    ({"if": {"properties": {"k": {"const": 1}}, "required": ["k"]}, "then": {"properties": {"a": {}}}, "else":
      {"properties": {"b": {}}}, **OBJECT, "unevaluatedProperties": False},
     [{"k": 1, "a": 2}, {"b": 1}], [{"k": 1, "b": 1}, {"a": 1}, {"k": 2}]),
    ({"properties": {"a": {}}, "dependentSchemas": {"a": {"properties": {"b": {}}}}, "unevaluatedProperties": False,
      **OBJECT}, [{"a": 1, "b": 1}, {}], [{"b": 1}]),
    ({"anyOf": [{"prefixItems": [{"type": "null"}, True]}, {"prefixItems": [{"type": "integer"}]}], "type": "array",
      "unevaluatedItems": False}, [[None, 1], [1], []], [[1, 1], [None, 1, 1]]),
    # opposites
    ({"items": {"not": {"pattern": "a"}}, "type": "array"}, [["b", ""], []], [["a"], [1], ["bab"]]),
    ({"type": "string", "not": {"pattern": "^[a-c]+$"}, "minLength": 1}, ["d", "ad", "A"], ["abc", ""]),
    ({"type": "string", "not": {"format": "date"}}, ["x", "2023-02-29"], ["2024-02-29"]),
    ({"not": {"maxItems": 1}}, [[1, 2]], [[1], "a", 1]),
    ({**OBJECT, "properties": {"a": {}, "b": {}}, "additionalProperties": False, "not": {"properties": {"a": {}},
      "additionalProperties": False}}, [{"b": 1}, {"a": 1, "b": 1}], [{}, {"a": 1}]),
    ({**OBJECT, "not": {"maxProperties": 0}}, [{"a": 1}], [{}]),
    ({"type": "number", "not": {"enum": [1, 2.5]}}, [0, 1.5, 2, 3], [1, 2.5, 1.0]),
    ({"type": "integer", "minimum": 0, "maximum": 9, "not": {"multipleOf": 3}}, [1, 2, 8], [0, 3, 9, 10]),
    ({"not": {"oneOf": [{"type": "string"}, {"maxLength": 1}]}}, ["a"], ["ab", 1]),
    ({"enum": ["a", {"b": 1}, [1]], "not": {"enum": [{"b": 1}]}}, ["a", [1]], [{"b": 1}]),
    # one of several
    ({"oneOf": [{"pattern": "a"}, {"pattern": "b"}], "type": "string"}, ["a", "b", "ca"], ["ab", "c", "ba"]),
    ({"oneOf": [{**OBJECT, "properties": {"k": {"pattern": "^a"}}, "required": ["k"]}, {**OBJECT, "properties":
      {"k": {"pattern": "^b"}}, "required": ["k"]}]}, [{"k": "a"}, {"k": "b"}, ], [{"k": "c"}, {}]),
    ({"oneOf": [{"type": "string"}, {"type": "string", "format": "ipv4"}]}, ["x"], ["127.0.0.1", 1]),
    # names
    ({"patternProperties": {"^a": {"type": "integer"}, "b$": {"maximum": 5}}, **OBJECT},
     [{"ab": 3, "a": 9, "b": "x", "c": None}], [{"ab": 6}, {"ab": "x"}, {"a": "x"}, {"xb": 6}]),
    ({"patternProperties": {"^a*$": {"type": "integer"}, "^(a)*$": {"maximum": 5}}, **OBJECT}, [{"aa": 3}],
     [{"aa": 6}, {"aa": "x"}]),
    ({"patternProperties": {"^x": {"$ref": "#"}}, "properties": {"xa": {"maxProperties": 0}}, **OBJECT},
     [{"xa": {}}, {"xb": {"xa": {}}}], [{"xa": {"xb": {}}}, {"xb": 1}]),
    ({**OBJECT, "propertyNames": {"anyOf": [{"pattern": "^a"}, {"minLength": 3}]}}, [{"a": 1, "bcd": 1}], [{"b": 1}]),
    ({**OBJECT, "propertyNames": {"not": {"enum": ["x"]}}}, [{"y": 1}, {}], [{"x": 1}]),
    ({**OBJECT, "propertyNames": {"format": "ipv4"}, "properties": {"a": {}}}, [{"127.0.0.1": 1}], [{"a": 1}]),
    # references that are decided on the way
    ({"$ref": "list", "$id": "http://x.y/strings", "$defs": {
        "item": {"$dynamicAnchor": "item", "type": "string"},
        "list": {"$id": "list", "type": "array", "items": {"$dynamicRef": "#item"},
                 "$defs": {"item": {"$dynamicAnchor": "item"}}}}}, [["a"], []], [[1], "a"]),
    # characters
    ({"const": "a\0b"}, ["a\0b"], ["ab", "a"]),
]  # fmt: skip

REFUSED: list[tuple[Any, str, str]] = [
    ({"items": {"not": {"type": "integer"}}}, "not", "/items"),
    ({"not": {"uniqueItems": True}}, "not", ""),
    ({"not": {"additionalProperties": {"type": "string"}}}, "not", ""),
    ({"properties": {"a": {"contains": {"type": "null"}, "maxContains": 2}}}, "maxContains", "/properties/a"),
    ({"allOf": [{"$ref": "#"}, {"type": "string"}]}, "$ref", "/allOf/0"),
    ({"not": {"$ref": "#", "type": "array"}}, "$ref", "/not"),
    ({"anyOf": [{"$ref": "#"}, {"type": "string"}]}, "$ref", "/anyOf/0"),
    ({"anyOf": [{"enum": ["a\x01b"]}, {"type": "object", "properties": {"a": {}}}]}, "enum", ""),
    ({"pattern": "\\d{2, 3}"}, "pattern", ""),
    ({"properties": {"x/y": {"pattern": "(?=a)b"}}}, "pattern", "/properties/x~1y"),
    ({"pattern": r"(a)\1"}, "pattern", ""),
    ({"$ref": "http://localhost:1234/x.json"}, "$ref", ""),
    ({"$ref": "#/$defs/none"}, "$ref", ""),
    ({"type": "strin"}, "type", ""),
    ({"type": "string", "minLength": -1}, "minLength", ""),
    ({"minimum": "3"}, "minimum", ""),
    ({"minimum": 2**53 + 1}, "minimum", ""),
    ({"required": "a"}, "required", ""),
    ({"allOf": []}, "allOf", ""),
    ({"properties": {"a": 5}}, "a", "/properties/a"),
    (False, "schema", ""),
    ({"enum": []}, "enum", ""),
    ({"enum": [1], "type": "string"}, "schema", ""),
    ({"$schema": "http://json-schema.org/draft-03/schema#"}, "$schema", ""),
]


@pytest.mark.parametrize(("schema", "valid", "invalid"), PROBES, ids=range(len(PROBES)))
def test_a_keyword_admits_every_valid_instance_and_no_invalid_one(
    compiler: GrammarCompiler, schema: Any, valid: list[Any], invalid: list[Any]
) -> None:
    assert [value for value in valid if not takes_json(compiler, schema, value)] == []
    assert [value for value in invalid if takes_json(compiler, schema, value)] == []


@pytest.mark.parametrize(("schema", "valid", "invalid"), PROBES, ids=range(len(PROBES)))
def test_the_instances_of_the_probes_are_what_an_independent_validator_says(
    schema: Any, valid: list[Any], invalid: list[Any]
) -> None:
    validators = {Draft.DRAFT4: rs.Draft4Validator, Draft.DRAFT7: rs.Draft7Validator, None: rs.Draft202012Validator}
    try:
        validator = validators[declared(schema)](schema, validate_formats=True)
    except rs.ValidationError:  # old spellings without `$schema`
        validator = rs.Draft4Validator(schema, validate_formats=True)
    assert all(validator.is_valid(value) for value in valid)
    assert not any(validator.is_valid(value) for value in invalid)


@pytest.mark.parametrize(("schema", "keyword", "pointer"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_held_is_refused_with_keyword_and_pointer(
    compiler: GrammarCompiler, schema: Any, keyword: str, pointer: str
) -> None:
    for _ in range(2):  # the second time from memory
        with pytest.raises(ConstraintRefused) as caught:
            compiler.compile(JsonSchema(schema))
        assert (caught.value.keyword, caught.value.pointer) == (keyword, pointer)
        assert len(caught.value.reason) > 10


@pytest.mark.parametrize("name", ["int32", "url", "path"])
def test_an_unknown_format_is_an_annotation_named_in_the_warnings_and_refused_when_strict(
    compiler: GrammarCompiler, name: str
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "format": name}}}
    assert any(name in warning for warning in compiler.compile(JsonSchema(schema)).warnings)
    with pytest.raises(ConstraintRefused) as caught:
        compiler.compile(JsonSchema(schema, strict=True))
    assert (caught.value.keyword, caught.value.pointer) == ("format", "/properties/a")


def test_an_escape_cannot_spell_a_declared_name_a_second_way(compiler: GrammarCompiler) -> None:
    schema = JsonSchema({"type": "object", "properties": {"a": {"type": "integer"}}})
    assert takes(compiler, schema, '{"b":"x"}')
    assert not takes(compiler, schema, '{"\\u0061":"x"}')
    assert not takes(compiler, schema, '{"a":1,"a":"x"}')
