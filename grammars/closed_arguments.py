"""The arguments of a tool, closed: a call names no argument that its tool does not declare.

JSON Schema leaves an object open that does not say otherwise, and few who declare a function's parameters say it. To
the function an undeclared argument is an error, so none is generated; what remains is a part of what the schema allows.
"""

from typing import Any

OPENED_BY = ("additionalProperties", "unevaluatedProperties", "patternProperties", "propertyNames", "minProperties")
COMBINED_BY = ("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if", "dependentSchemas", "dependencies")


def closed(schema: Any) -> Any:
    """The schema with `additionalProperties: false` wherever an object declares properties and says nothing of others.

    Objects that other keywords take part in stay as they are: closing one branch of them would forbid the members of
    another. So does an object without properties, which is how a free mapping is declared. Nothing is changed in place.
    """
    if not isinstance(schema, dict):
        return schema
    found = dict(schema)
    if isinstance(schema.get("items"), dict):
        found["items"] = closed(schema["items"])
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties or any(name in schema for name in COMBINED_BY):
        return found
    found["properties"] = {name: closed(inner) for name, inner in properties.items()}
    if not any(name in schema for name in OPENED_BY):
        found["additionalProperties"] = False
    return found
