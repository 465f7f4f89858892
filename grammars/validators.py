"""jsonschema-rs, whose patterns run in linear time: does a value satisfy a client's schema, or a normal one."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from grammars.draft import Draft
from grammars.formats import ENFORCED as FORMATS
from grammars.linear_patterns import linear
from grammars.normal_form import Schema


def build(schema: Any, draft: Draft) -> Any:
    """A jsonschema-rs validator of `schema` in `draft`, with formats asserted and remote references unreachable.

    Patterns with look-around or word boundaries are rewritten first (`linear_patterns.py`), so that all of them run in
    linear time. Formats of the standard are asserted in every draft, those that a draft does not know as in 2020-12.
    Raises ValueError (jsonschema_rs.ValidationError and ReferencingError are) when the validator refuses the schema.
    """
    import jsonschema_rs

    classes = {
        Draft.DRAFT4: jsonschema_rs.Draft4Validator,
        Draft.DRAFT6: jsonschema_rs.Draft6Validator,
        Draft.DRAFT7: jsonschema_rs.Draft7Validator,
        Draft.DRAFT2019: jsonschema_rs.Draft201909Validator,
        Draft.DRAFT2020: jsonschema_rs.Draft202012Validator,
    }
    return classes[draft](
        linear(schema, are_booleans_known=draft is Draft.DRAFT4),
        validate_formats=True,
        formats={name: partial(_is_of_format, name) for name in FORMATS} if draft < Draft.DRAFT2019 else None,
        ignore_unknown_formats=True,
        pattern_options=jsonschema_rs.RegexOptions(),
        retriever=_unreachable,
    )


def _is_of_format(name: str, text: str) -> bool:
    return bool(_validator_of_format(name).is_valid(text))


@cache
def _validator_of_format(name: str) -> Any:
    """Of one of the few formats of the standard, always the same."""
    return build({"format": name}, Draft.DRAFT2020)


def anchored(schema: Schema, written: Callable[[str], str] = str) -> Any:
    """A normal schema for a standard validator: patterns, which match the whole text, get their anchors, and each
    `contains` a keyword of its own.

    written: what becomes of an expression before.
    """
    if isinstance(schema, bool):
        return schema
    out: dict[str, Any] = dict(schema)
    if "pattern" in schema:
        out["pattern"] = f"^(?:{written(schema['pattern'])})$"
    if "contains" in schema:
        found = [
            {"contains": anchored(one["schema"], written), "minContains": one["at_least"]}
            for one in out.pop("contains")
        ]
        out["allOf"] = [*out.get("allOf", ()), *found]
    for keyword in ("properties", "$defs"):
        if keyword in schema:
            out[keyword] = {name: anchored(member, written) for name, member in schema[keyword].items()}
    if "patternProperties" in schema:
        out["patternProperties"] = {
            f"^(?:{written(pattern)})$": anchored(member, written)
            for pattern, member in schema["patternProperties"].items()
        }
    for keyword in ("prefixItems", "anyOf", "oneOf", "allOf"):
        if keyword in schema:
            known = out["allOf"][len(schema.get("allOf", ())) :] if keyword == "allOf" else []
            out[keyword] = [*(anchored(member, written) for member in schema[keyword]), *known]
    for keyword in ("additionalProperties", "items"):
        if keyword in schema:
            out[keyword] = anchored(schema[keyword], written)
    return out


def _unreachable(uri: str) -> Any:
    raise ValueError(f"{uri} lies outside the schema: remote references are not followed")
