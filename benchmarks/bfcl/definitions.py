"""The data's tools as OpenAI's: BFCL describes parameters in a Python dialect, a request in JSON Schema."""

from typing import Any, Final

from benchmarks.bfcl.rows import Function, Row, RowError
from benchmarks.bfcl.tool_names import ToolNames

_TYPES: Final = {
    "dict": "object", "object": "object", "float": "number", "number": "number", "integer": "integer",
    "string": "string", "boolean": "boolean", "array": "array", "tuple": "array", "any": None,
}  # fmt: skip
_KEPT: Final = frozenset(
    {"description", "enum", "const", "default", "format", "pattern", "minimum", "maximum", "exclusiveMinimum"}
    | {"exclusiveMaximum", "multipleOf", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems"}
)
"""Keywords that mean the same in both. The rest (`optional` above all) says nothing that `required` does not, and a
server that enforces what it is sent may refuse it."""


def request_tools(row: Row, names: ToolNames, *, is_closed: bool = False) -> list[dict[str, Any]]:
    """The row's tools for a request. is_closed: objects admit only the properties that they name.

    Raises RowError for a description that BFCL's dialect does not have.
    """
    try:
        return [_tool(function, names, is_closed) for function in row.functions]
    except _BadDefinition as error:
        raise RowError(f"row {row.id}: {error}") from error


def schema_of(described: object, *, is_closed: bool = False) -> dict[str, Any]:
    """JSON Schema of a parameter, or of all (`{"type": "dict", "properties": ...}`); `any` has no type.

    Optional parameters are those that `required` leaves out.
    """
    if not isinstance(described, dict):
        raise _BadDefinition(f"{described!r} describes no parameter.")
    schema: dict[str, Any] = {}
    if "type" in described:
        name = str(described["type"])
        if name not in _TYPES:
            raise _BadDefinition(f"type {name!r} is not one of {', '.join(_TYPES)}.")
        if (kind := _TYPES[name]) is not None:
            schema["type"] = kind
    schema |= {key: value for key, value in described.items() if key in _KEPT}
    if isinstance(properties := described.get("properties"), dict):
        schema["properties"] = {n: schema_of(each, is_closed=is_closed) for n, each in properties.items()}
        schema["required"] = list(described.get("required") or ())
        if is_closed:
            schema["additionalProperties"] = False
    if isinstance(items := described.get("items"), dict):
        schema["items"] = schema_of(items, is_closed=is_closed)
    return schema


class _BadDefinition(Exception):
    pass


def _tool(function: Function, names: ToolNames, is_closed: bool) -> dict[str, Any]:
    parameters = schema_of({"type": "dict", "properties": {}} | function.parameters, is_closed=is_closed)
    return {
        "type": "function",
        "function": {
            "name": names.sent(function.name),
            "description": function.description,
            "parameters": parameters,
        },
    }
