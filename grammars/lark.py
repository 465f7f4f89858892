"""Lark text as llguidance reads it: JSON schemas as rules, and what a client's own grammar may not use."""

import json
import re
from typing import Any, Final

from grammars.constraint import Layout
from grammars.errors import ConstraintRefused
from grammars.normal_form import Schema, every
from grammars.quoted_patterns import quoted, quoted_without_u
from grammars.validators import anchored

_ESCAPES_WITHOUT_U: Final = 'nrbtf\\"'
_UNSPELLED: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u00[01]")  # in JSON: what has no shorter escape
# Comments, strings, regular expressions and JSON-free words: what must be skipped to see the directives.
_SKIPPED: Final = re.compile(
    r'//[^\n]*|"(?:\\.|[^"\\\n])*"i?|(?<![\w/])/(?![/*])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n])+/[imslux]*'
)
_FORBIDDEN: Final = {
    r"%json\b": "holds `%json`: send a JSON schema as such, so that it is checked",
    r"%(?:llguidance|lark|regex|import|override|extend|declare)\b": "holds a directive beside `%ignore`: write rules",
    r"<[^\s>]*>": "names a special token `<…>`: these never appear in an answer",
    r"~(?!\s*\d)": "takes the complement `~` of a terminal, which no UTF-8 may be: write a class such as `/[^x]/`",
    r"@\w": "refers to another grammar by `@`: write its rules here",
    r"\b(?:temperature|max_tokens|stop|suffix|capture|lazy)\b\s*[=,\]]": "sets an attribute: write rules only",
}


# Between items, and after a key: regular expressions. Indented text is held to its line breaks by an overlay.
_SEPARATORS: Final = {"compact": (",", ":"), "single": (", ?", ": ?"), "indented": (",", ":")}


def json_block(schema: Schema, layout: Layout, pointer: str = "") -> str:
    """A normal schema as the right side of a rule. White space that is `indented` may be any here.

    llguidance lets an undeclared name be spelled with `\\uXXXX`, so `"\\u0061"` would slip past what is said of `a`.
    Where a node has names and is open, strings are therefore written without `\\u`: control characters other than \\b
    \\t \\n \\f \\r are left out. Values of `enum` that hold one are refused, since llguidance 1.9 would write them
    without it. Raises ConstraintRefused. pointer: of the client's schema.
    """
    separators = _SEPARATORS[layout.whitespace]
    options: dict[str, Any] = {
        "whitespace_flexible": layout.whitespace == "indented",
        "item_separator": separators[0],
        "key_separator": separators[1],
    }
    if layout.whitespace == "indented":
        options["whitespace_pattern"] = "[ \\n]+"
    is_open = any(map(_is_open_with_names, every(schema)))
    if is_open:
        options["json_allowed_escapes"] = _ESCAPES_WITHOUT_U
        if any(_UNSPELLED.search(json.dumps(node.get("enum", ()))) for node in every(schema) if isinstance(node, dict)):
            reason = "holds a control character, which cannot be written beside open objects: close them, or remove it"
            raise ConstraintRefused("enum", pointer, reason)
    body = anchored(schema, quoted_without_u if is_open else quoted)
    return "%json " + json.dumps({**({} if body is True else body), "x-guidance": options})


def _is_open_with_names(schema: Schema) -> bool:
    if isinstance(schema, bool) or schema.get("additionalProperties") is False:
        return False
    return bool(schema.keys() & {"properties", "patternProperties", "required"})


def check_lark(text: str, pointer: str = "") -> None:
    """Raise ConstraintRefused for parts of llguidance's dialect that reach beyond a grammar of text."""
    bare = _SKIPPED.sub('""', text)
    for pattern, reason in _FORBIDDEN.items():
        if re.search(pattern, bare):
            raise ConstraintRefused("grammar", pointer, reason)
