"""What is said of a text: its length, expressions that it matches or not, and texts that it is not."""

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from grammars import automata
from grammars.draft import Draft
from grammars.expressions import Unheld
from grammars.regex import all_but
from grammars.regex_syntax import RegexRefused
from grammars.validators import build

_MAX_LISTED: Final = 32  # characters of the texts that are compared one by one
_ANY: Final = r"[\s\S]*"


@dataclass(frozen=True, slots=True)
class Texts:
    """Bounds of the length in characters (None: none), and expressions in the normal dialect (`regex.py`).

    no_patterns: (expression, pointer) that must not match. holes: texts that are excluded.
    """

    shortest: int = 0
    longest: int | None = None
    patterns: tuple[str, ...] = ()
    no_patterns: tuple[tuple[str, str], ...] = ()
    holes: frozenset[str] = frozenset()

    def meet(self, other: "Texts") -> "Texts":
        """Both hold."""
        longest = other.longest if self.longest is None else self.longest
        if longest is not None and other.longest is not None:
            longest = min(longest, other.longest)
        return Texts(
            max(self.shortest, other.shortest),
            longest,
            tuple(dict.fromkeys(self.patterns + other.patterns)),
            tuple(dict.fromkeys(self.no_patterns + other.no_patterns)),
            self.holes | other.holes,
        )

    def holds(self, text: str) -> bool:
        """Whether `text` satisfies it."""
        if len(text) < self.shortest or (self.longest is not None and len(text) > self.longest) or text in self.holes:
            return False
        return all(matches(pattern, text) for pattern in self.patterns) and not any(
            matches(pattern, text) for pattern, _ in self.no_patterns
        )

    def is_empty(self) -> bool:
        """True only when no text satisfies it; False also means "not proved"."""
        if self.longest is not None and self.longest < self.shortest:
            return True
        if not self.no_patterns and (not self.patterns or self._is_one_pattern):
            return False
        try:
            return _has_no_text(self)
        except RegexRefused:
            return False

    @property
    def _is_one_pattern(self) -> bool:
        return len(self.patterns) == 1 and not (self.shortest or self.longest is not None or self.holes)

    def written(self) -> list[dict[str, Any]]:
        """At most one node that holds these texts, without `type`. Raises Unheld."""
        if self.is_empty():
            return []
        parts = list(self.patterns)
        for pattern, pointer in self.no_patterns:
            try:
                if not any(_are_apart(pattern, other) for other in self.patterns):
                    parts.append(_complement(pattern))
            except RegexRefused as error:
                raise Unheld("not", pointer, f"the opposite of `pattern` {error}") from error
        bare = Texts(self.shortest, self.longest, self.patterns, self.no_patterns)
        holes = sorted(hole for hole in self.holes if bare.holds(hole))
        if holes:
            parts.append(all_but(holes))
        if len(parts) > 2 or (parts[1:] and self.no_patterns):  # more than the backend's own, lazy intersection bears
            with suppress(RegexRefused):
                parts = [_intersection(tuple(parts))]
        node: dict[str, Any] = {}
        if parts:
            node["pattern"] = parts[0]
        if self.shortest:
            node["minLength"] = self.shortest
        if self.longest is not None:
            node["maxLength"] = self.longest
        if parts[1:]:
            node["allOf"] = [{"pattern": pattern} for pattern in parts[1:]]
        return [node]

    def pattern(self) -> str | None:
        """One expression for all of it; None: no text. Raises Unheld and RegexRefused."""
        nodes = self.written()
        if not nodes:
            return None
        node = nodes[0]
        parts = [node["pattern"]] if "pattern" in node else []
        parts += [member["pattern"] for member in node.get("allOf", ())]
        if not any(_keeps_within(part, self.shortest, self.longest) for part in parts):
            parts.append(f"[\\s\\S]{{{self.shortest},{'' if self.longest is None else self.longest}}}")
        return parts[0] if len(parts) == 1 else automata.intersection(parts)


def _keeps_within(pattern: str, shortest: int, longest: int | None) -> bool:
    """Whether every text of `pattern` has a length between the two."""
    least, most = automata.lengths(pattern)
    return least >= shortest and (longest is None or (most is not None and most <= longest))


_MAX_COUNTED: Final = 64


@lru_cache(maxsize=1024)
def _has_no_text(texts: Texts) -> bool:
    for pattern in texts.patterns:
        least, most = automata.lengths(pattern)
        if (most is not None and most < texts.shortest) or (texts.longest is not None and least > texts.longest):
            return True
    if len(texts.patterns) > 1 and automata.are_disjoint(*texts.patterns):
        return True
    ends = (texts.shortest, texts.longest or 0)
    if texts.patterns and any(ends) and max(ends) <= _MAX_COUNTED:
        length = f"[\\s\\S]{{{texts.shortest},{'' if texts.longest is None else texts.longest}}}"
        if automata.are_disjoint(*texts.patterns, length):
            return True
    if any(automata.includes(pattern, own) for pattern, _ in texts.no_patterns for own in texts.patterns or (_ANY,)):
        return True
    if not texts.holes or len(texts.patterns) != 1:
        return False
    longest = automata.lengths(texts.patterns[0])[1]
    if longest is None or longest > _MAX_LISTED:
        return False
    found = automata.texts(texts.patterns[0], len(texts.holes))
    return found is not None and texts.holes >= set(found)


@lru_cache(maxsize=1024)
def _are_apart(a: str, b: str) -> bool:
    return automata.are_disjoint(a, b)


@lru_cache(maxsize=256)
def _intersection(patterns: tuple[str, ...]) -> str:
    return automata.intersection(patterns)


@lru_cache(maxsize=256)
def _complement(pattern: str) -> str:
    return automata.complement(pattern)


@lru_cache(maxsize=256)
def _matcher(pattern: str) -> Any:
    return build({"pattern": f"^(?:{pattern})$"}, Draft.DRAFT2020)


def matches(pattern: str, text: str) -> bool:
    """Whether `pattern`, an expression in the normal dialect, matches the whole of `text`."""
    return bool(_matcher(pattern).is_valid(text))
