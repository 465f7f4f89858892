"""The second opinion on combined answers: parts are found in the text by their own ends, with plain searches.

Nothing is shared with `combinators.py`: no chains, no automata, no lexer. max_tokens cannot be read from a text.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from grammars.constraint import (
    Alternatives,
    Choice,
    Constraint,
    FreeText,
    Regex,
    Sequence,
)

_MOST_TRIALS: Final = 5_000
"""Places where a part may end that are tried in one answer: expressions can end anywhere."""


class TooManyEnds(Exception):
    """The answer can be cut in too many ways to try them all."""


Holds = Callable[[Constraint, str], bool]


@dataclass(slots=True)
class Cutter:
    """holds: whether a text satisfies a constraint that is no combinator, as a whole."""

    holds: Holds
    _n_trials: int = 0

    def fits(self, constraint: Constraint, text: str) -> bool:
        """Whether the text can be cut into the parts. Raises TooManyEnds."""
        return self._fits((constraint,), text, 0)

    def _fits(self, parts: tuple[Constraint, ...], text: str, at: int) -> bool:
        """Whether `text` from `at` on is the parts, one after the other."""
        if not parts:
            return at == len(text)
        first, rest = parts[0], parts[1:]
        if isinstance(first, Sequence):
            return self._fits((*first.parts, *rest), text, at)
        if isinstance(first, Alternatives):
            return any(self._fits((part, *rest), text, at) for part in first.parts)
        if not rest and not isinstance(first, FreeText):
            return self.holds(first, text[at:])
        return any(self._fits(rest, text, end) for end in self._ends(first, text, at))

    def _ends(self, part: Constraint, text: str, at: int) -> Iterator[int]:
        """Where the part can end that begins at `at`."""
        match part:
            case FreeText(until=None):
                yield len(text)
            case FreeText(until=str(until)):
                found = text.find(until, at)
                if found >= 0:
                    yield found + len(until)
            case Choice():
                yield from (at + len(choice) for choice in part.choices if text.startswith(choice, at))
            case Regex():
                for end in range(at, len(text) + 1):
                    self._n_trials += 1
                    if self._n_trials > _MOST_TRIALS:
                        raise TooManyEnds
                    if self.holds(part, text[at:end]):
                        yield end
            case _:
                value_end = _json_end(text, at)
                if value_end is not None and self.holds(part, text[at:value_end]):
                    yield value_end


def _json_end(text: str, at: int) -> int | None:
    try:
        end: Any = json.JSONDecoder().raw_decode(text, at)[1]
    except (ValueError, RecursionError):
        return None
    return int(end)
