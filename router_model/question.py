"""A text taken apart as a question: its stem and its lettered answer options, where it has any."""

import re
from dataclasses import dataclass

MAX_OPTIONS = 10
"""Options beyond this many are left in the text but not looked at."""

_OPTION = re.compile(r"^[ \t]*\(?([A-J])[.):][ \t]+(\S.*)$", re.M)


@dataclass(frozen=True, slots=True)
class Question:
    """stem: everything before the first option, the whole text where there is none. options: their texts, in order."""

    stem: str
    options: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str) -> "Question":
        """Find options: lines that begin with `A.`, `B)`, `(C)` and so on. One such line alone is no choice."""
        found = list(_OPTION.finditer(text)) if "\n" in text else []
        if len(found) < 2:
            return cls(text)
        return cls(text[: found[0].start()], tuple(match[2].rstrip() for match in found[:MAX_OPTIONS]))
