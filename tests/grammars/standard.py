"""The normal form in the words of the standard, so that an independent validator can judge it."""

from typing import Any

from grammars.draft import Draft
from grammars.normal_form import Schema
from grammars.validators import build

_MAPS = ("properties", "$defs")
_LISTS = ("prefixItems", "anyOf", "oneOf", "allOf")
_SINGLE = ("items", "additionalProperties")


def standard(schema: Schema) -> Any:
    """A normal schema with anchored patterns, and each of its `contains` as one of the standard's."""
    if isinstance(schema, bool):
        return schema
    out: dict[str, Any] = dict(schema)
    if "pattern" in out:
        out["pattern"] = f"^(?:{out['pattern']})$"
    for keyword in _MAPS:
        if keyword in out:
            out[keyword] = {name: standard(member) for name, member in out[keyword].items()}
    if "patternProperties" in out:
        out["patternProperties"] = {f"^(?:{p})$": standard(member) for p, member in out["patternProperties"].items()}
    for keyword in _LISTS:
        if keyword in out:
            out[keyword] = [standard(member) for member in out[keyword]]
    for keyword in _SINGLE:
        if keyword in out:
            out[keyword] = standard(out[keyword])
    counted = [{"contains": standard(one["schema"]), "minContains": one["at_least"]} for one in out.pop("contains", [])]
    if counted:
        out["allOf"] = [*out.get("allOf", []), *counted]
    return out


def judge(schema: Schema) -> Any:
    """A validator of a normal schema."""
    return build(standard(schema), Draft.DRAFT2020)
