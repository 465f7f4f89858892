"""Marks of code, mathematics and gaps in a text, counted without reading it once for every kind of mark.

Each count is that of an expression's matches. The expressions are slow where they begin with a word's boundary, so they
are asked only where a mark of theirs could hide another one; everywhere else the single marks are added up.
"""

import re
from collections.abc import Callable, Collection, Sequence

CODE = re.compile(r"[{};]|\(\)|=>|->|::|`|\b(?:def|return|class|import|function|SELECT|assert)\b|</?\w+>")
MATHS = re.compile(r"[=+*^√∑∫≤≥±×÷<>]|\\[a-z]+|\b(?:sqrt|log|sin|cos|mod|integral|equation|percent)\b|\$")
LOGIC_MARKS = "→∀∃¬∨∧⊃≡~•"
BLANK = re.compile(r"_{2,}|…|\.\.\.")
ALL_OF = re.compile(r"\b(?:[Aa]ll|[Nn]one|[Bb]oth|[Nn]either|[Ee]ither) (?:of the\b|of these\b|[A-D]\b|are\b)")

_CODE_MARKS = ("{", "}", ";", "()", "=>", "->", "::", "`")
_CODE_WORDS = frozenset(("def", "return", "class", "import", "function", "SELECT", "assert"))
_MATHS_MARKS = tuple("=+*^√∑∫≤≥±×÷<>$")
_MATHS_WORDS = frozenset(("sqrt", "log", "sin", "cos", "mod", "integral", "equation", "percent"))
_ALL_WORDS = frozenset(("all", "none", "both", "neither", "either"))


def code_marks(text: str, written: Sequence[str]) -> int:
    """Matches of CODE. written: the text's words (`\\w+`)."""
    if "<" in text:  # a tag may hold a word that counts by itself elsewhere
        return len(CODE.findall(text))
    return sum(map(text.count, _CODE_MARKS)) + count_words(written, _CODE_WORDS)


def maths_marks(text: str, written: Sequence[str]) -> int:
    """Matches of MATHS. written: the text's words."""
    if "\\" in text:  # as a command may
        return len(MATHS.findall(text))
    return sum(map(text.count, _MATHS_MARKS)) + count_words(written, _MATHS_WORDS)


def blanks(text: str) -> int:
    """Matches of BLANK."""
    return len(BLANK.findall(text)) if "__" in text else text.count("…") + text.count("...")


def references_to_options(text: str, words: Collection[str]) -> int:
    """Matches of ALL_OF. words: those of the text, in lower case."""
    return 0 if _ALL_WORDS.isdisjoint(words) else len(ALL_OF.findall(text))


def count_words(words: Sequence[str], kind: frozenset[str]) -> int:
    """How many of the words are of a kind."""
    return sum(map(kind.__contains__, words))


def count_characters(text: str, test: Callable[[str], bool], of_ascii: bytes) -> int:
    """How many characters pass a test. of_ascii: those of ASCII that do."""
    if not text.isascii():
        return sum(map(test, text))
    data = text.encode("ascii")
    return len(data) - len(data.translate(None, of_ascii))
