"""What the router may know of a request besides its text and the small model's prefill: counts, no text."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_SCHEMA_NODES = 20_000
"""Nodes of a schema that are looked at; the counts of a larger one are those of its first nodes."""

_SUBSCHEMA_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SUBSCHEMA_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SUBSCHEMAS = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """Counts of one request. Zero is "none" or "unknown": a row of text alone has the defaults.

    prompt_tokens: tokens of the rendered prompt, tools included. turns: messages of the user. n_parameters: parameters
    of all tools together. schema_depth, schema_properties, schema_enums: of the response schema, or the deepest and the
    sum over the tools' parameter schemas. max_tokens: what the client asked for.
    """

    prompt_tokens: int = 0
    turns: int = 1
    n_tools: int = 0
    n_parameters: int = 0
    n_required: int = 0
    schema_depth: int = 0
    schema_properties: int = 0
    schema_enums: int = 0
    has_response_format: bool = False
    tool_required: bool = False
    max_tokens: int = 0

    @classmethod
    def of_request(
        cls,
        *,
        prompt_tokens: int = 0,
        turns: int = 1,
        tool_schemas: Iterable[Mapping[str, Any] | bool | None] = (),
        tool_required: bool = False,
        response_schema: Mapping[str, Any] | bool | None = None,
        has_response_format: bool = False,
        max_tokens: int | None = None,
    ) -> "RequestFacts":
        """Count a request's tools and schemas.

        tool_schemas: the `parameters` of every tool offered (None: no arguments).
        """
        tools = list(tool_schemas)
        shapes = [SchemaShape.of(schema) for schema in tools if schema is not None]
        top_level = [schema for schema in tools if isinstance(schema, Mapping)]
        if response_schema is not None:
            shapes.append(SchemaShape.of(response_schema))
        return cls(
            prompt_tokens=prompt_tokens,
            turns=turns,
            n_tools=len(tools),
            n_parameters=sum(_size(schema.get("properties")) for schema in top_level),
            n_required=sum(_size(schema.get("required")) for schema in top_level),
            schema_depth=max((shape.depth for shape in shapes), default=0),
            schema_properties=sum(shape.properties for shape in shapes),
            schema_enums=sum(shape.enums for shape in shapes),
            has_response_format=has_response_format or response_schema is not None,
            tool_required=tool_required,
            max_tokens=max_tokens or 0,
        )


@dataclass(frozen=True, slots=True)
class SchemaShape:
    """How large a JSON Schema is.

    depth: nested subschemas, the root being 1; properties and enums: number of each, at any depth.
    """

    depth: int
    properties: int
    enums: int

    @classmethod
    def of(cls, schema: Mapping[str, Any] | bool) -> "SchemaShape":
        """Walk `schema` without following `$ref`, so that the walk ends; what is no schema counts as nothing."""
        depth = properties = enums = seen = 0
        stack: list[tuple[object, int]] = [(schema, 1)]
        while stack and seen < MAX_SCHEMA_NODES:
            node, level = stack.pop()
            seen += 1
            if not isinstance(node, Mapping):
                continue
            depth = max(depth, level)
            properties += _size(node.get("properties"))
            enums += "enum" in node
            stack.extend((child, level + 1) for child in _children(node))
        return cls(depth, properties, enums)


def _children(node: Mapping[str, Any]) -> Iterable[object]:
    for key in _SUBSCHEMA_MAPS:
        if isinstance(value := node.get(key), Mapping):
            yield from value.values()
    for key in _SUBSCHEMA_LISTS:
        if isinstance(value := node.get(key), list | tuple):
            yield from value
    for key in _SUBSCHEMAS:
        if key in node:
            yield node[key]


def _size(value: object) -> int:
    return len(value) if isinstance(value, Mapping | list | tuple) else 0
