"""Which draft of JSON Schema a document is written in: `$schema` decides, else the spellings it uses."""

import enum
from collections.abc import Iterator
from typing import Any, Final

from grammars.errors import ConstraintRefused


class Draft(enum.IntEnum):
    """The drafts we read; a later one compares greater."""

    DRAFT4 = 4
    DRAFT6 = 6
    DRAFT7 = 7
    DRAFT2019 = 2019
    DRAFT2020 = 2020


_BY_NAME = {
    "draft-03": None, "draft-04": Draft.DRAFT4, "draft-05": Draft.DRAFT4, "draft-06": Draft.DRAFT6,
    "draft-07": Draft.DRAFT7, "2019-09": Draft.DRAFT2019, "2020-12": Draft.DRAFT2020,
}  # fmt: skip


SINCE: Final = {
    "const": Draft.DRAFT6, "contains": Draft.DRAFT6, "propertyNames": Draft.DRAFT6,
    "if": Draft.DRAFT7, "then": Draft.DRAFT7, "else": Draft.DRAFT7,
    "minContains": Draft.DRAFT2019, "maxContains": Draft.DRAFT2019, "dependentRequired": Draft.DRAFT2019,
    "dependentSchemas": Draft.DRAFT2019, "unevaluatedProperties": Draft.DRAFT2019,
    "unevaluatedItems": Draft.DRAFT2019, "$recursiveRef": Draft.DRAFT2019,
    "prefixItems": Draft.DRAFT2020, "$dynamicRef": Draft.DRAFT2020,
}  # fmt: skip
"""The draft that brought a keyword; what is not named here is in all of them."""

UNTIL: Final = {"additionalItems": Draft.DRAFT2019, "$recursiveRef": Draft.DRAFT2019}
"""The last draft with a keyword. `dependencies` left the standard as well, but validators read it in every draft."""


def knows(draft: Draft, keyword: str) -> bool:
    """Whether a keyword of the standard asserts something in `draft`; in others it is an annotation."""
    return SINCE.get(keyword, draft) <= draft <= UNTIL.get(keyword, draft)


def declared(schema: Any) -> Draft | None:
    """The draft that `$schema` names; None without one or for a name we don't know (then the spellings decide).

    Raises ConstraintRefused for a `$schema` that is no text, and for draft-03, whose keywords mean other things.
    """
    name = schema.get("$schema") if isinstance(schema, dict) else None
    if name is None:
        return None
    if not isinstance(name, str):
        raise ConstraintRefused("$schema", "", "must be a URI: give the URI of a draft, or leave it out")
    for part, draft in _BY_NAME.items():
        if f"json-schema.org/{part}/" in name or f"json-schema.org/draft/{part}/" in name:
            if draft is None:
                raise ConstraintRefused("$schema", "", "draft-03 is not supported: use draft-04 or later")
            return draft
    return None


def of(schema: Any) -> Draft:
    """The draft to read `schema` in. Without `$schema`: 2020-12, or 2019-09 where it uses what only that one knows.

    That is an array of `items`, or `$recursiveRef`. Every other old spelling (a boolean `exclusiveMinimum`,
    `dependencies`) is read in both. Raises ConstraintRefused as `declared` does.
    """
    draft = declared(schema)
    if draft is not None:
        return draft
    is_older = any(isinstance(node.get("items"), list) or "$recursiveRef" in node for node in _nodes(schema))
    return Draft.DRAFT2019 if is_older else Draft.DRAFT2020


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Every object in the document, names of properties and data included: a heuristic reads more than it must."""
    stack = [schema]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            yield value
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
