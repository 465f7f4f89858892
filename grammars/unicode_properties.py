"""Which code points `\\p{…}` names: general categories, from Python's own tables."""

import sys
import unicodedata
from functools import cache
from typing import Final

from grammars.regex_syntax import Ranges, RegexRefused, merge

_LONG_NAMES: Final = {
    "Any": "Any", "ASCII": "ASCII", "Letter": "L", "Cased_Letter": "LC", "Uppercase_Letter": "Lu",
    "Lowercase_Letter": "Ll", "Titlecase_Letter": "Lt", "Modifier_Letter": "Lm", "Other_Letter": "Lo", "Mark": "M",
    "Nonspacing_Mark": "Mn", "Spacing_Mark": "Mc", "Enclosing_Mark": "Me", "Number": "N", "Decimal_Number": "Nd",
    "digit": "Nd", "Letter_Number": "Nl", "Other_Number": "No", "Punctuation": "P", "punct": "P",
    "Connector_Punctuation": "Pc", "Dash_Punctuation": "Pd", "Open_Punctuation": "Ps", "Close_Punctuation": "Pe",
    "Initial_Punctuation": "Pi", "Final_Punctuation": "Pf", "Other_Punctuation": "Po", "Symbol": "S",
    "Math_Symbol": "Sm", "Currency_Symbol": "Sc", "Modifier_Symbol": "Sk", "Other_Symbol": "So", "Separator": "Z",
    "Space_Separator": "Zs", "Line_Separator": "Zl", "Paragraph_Separator": "Zp", "Control": "Cc", "cntrl": "Cc",
    "Format": "Cf", "Private_Use": "Co",
}  # fmt: skip
_UNASSIGNED: Final = "Cn"


@cache
def property_ranges(name: str, negated: bool) -> Ranges:
    """The code points that have the property `name`, or that have it not.

    Code points which Python's Unicode has not assigned yet belong to neither: a newer Unicode, which a backend or a
    validator may follow, is free to put them on either side. Raises RegexRefused for scripts and other properties
    that the standard library has no table of.
    """
    bare = name.partition("=")[2] if name.startswith(("General_Category=", "gc=")) else name
    wanted = _LONG_NAMES.get(bare, bare)
    by_category = _by_category()
    if wanted == "Any":
        taken = list(by_category)
    elif wanted == "ASCII":
        return ((0x80, sys.maxunicode),) if negated else ((0, 0x7F),)
    else:
        prefixes = ("Lu", "Ll", "Lt") if wanted == "LC" else (wanted,)
        taken = [category for category in by_category if category.startswith(prefixes)]
        if not taken or len(wanted) > 2 or wanted in ("C", _UNASSIGNED):
            raise RegexRefused(f"needs a table of `\\p{{{name}}}`, which is none of Unicode's general categories: "
                               "name the code points")  # fmt: skip
    if negated:
        taken = [category for category in by_category if category not in taken and category != _UNASSIGNED]
    return merge(tuple(pair for category in taken for pair in by_category[category]))


def unassigned() -> Ranges:
    """The code points to which Python's Unicode gives no category yet."""
    return tuple(_by_category()[_UNASSIGNED])


@cache
def _by_category() -> dict[str, list[tuple[int, int]]]:
    """All code points as ranges under the two letters of their category; about 0.1 s, once."""
    out: dict[str, list[tuple[int, int]]] = {}
    first, category = 0, unicodedata.category("\0")
    for code in range(1, sys.maxunicode + 2):
        current = unicodedata.category(chr(code)) if code <= sys.maxunicode else ""
        if current != category:
            out.setdefault(category, []).append((first, code - 1))
            first, category = code, current
    return out
