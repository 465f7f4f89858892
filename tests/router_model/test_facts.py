from typing import Any

from router_model.facts import MAX_SCHEMA_NODES, RequestFacts, SchemaShape


def test_tools_and_schemas_are_counted() -> None:
    tool = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
        "required": ["city"],
    }
    nested = {"type": "object", "properties": {"stops": {"type": "array", "items": tool}}}
    facts = RequestFacts.of_request(
        prompt_tokens=50, turns=2, tool_schemas=[tool, None, nested], tool_required=True, max_tokens=64
    )
    assert (facts.n_tools, facts.n_parameters, facts.n_required) == (3, 3, 1)
    assert (facts.schema_depth, facts.schema_properties, facts.schema_enums) == (4, 5, 2)
    assert (facts.prompt_tokens, facts.turns, facts.tool_required, facts.max_tokens) == (50, 2, True, 64)
    assert not facts.has_response_format


def test_a_response_schema_counts_as_a_response_format() -> None:
    facts = RequestFacts.of_request(response_schema={"type": "object", "properties": {"a": {}, "b": {}}})
    assert facts.has_response_format
    assert facts.schema_properties == 2
    assert RequestFacts.of_request(has_response_format=True).has_response_format


def test_a_schema_of_any_form_is_walked_to_an_end() -> None:
    deep: dict[str, Any] = {}
    for _ in range(MAX_SCHEMA_NODES + 5_000):
        deep = {"items": deep}
    assert 1_000 < SchemaShape.of(deep).depth <= MAX_SCHEMA_NODES
    itself: dict[str, Any] = {"properties": {}}
    itself["properties"]["again"] = itself
    assert SchemaShape.of(itself).properties > 1
    assert SchemaShape.of(True) == SchemaShape(0, 0, 0)
    assert SchemaShape.of({"properties": 3, "anyOf": "x", "required": None}) == SchemaShape(1, 0, 0)
