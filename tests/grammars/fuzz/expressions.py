"""Regular expressions by chance, and changed ones."""

import random
from typing import Final

_ATOMS: Final = (
    "a", "b", "c", "0", "-", "_", " ", "é", "ß", "日", ".", r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", "[ab]", "[^a]",
    "[a-z]", "[A-Z0-9_]", r"[\w-]", r"[^\s]", r"\.", r"\/", '\\\\', r'\"', r"\n", r"\t", r"\x41", r"\u00e9", r"\p{L}",
    r"\p{Lu}", '[^"]', r"[\d.]", r"\-", "/", "@", "(?:ab)", r"[\]a]", r"[a\-z]", r"\$", r"\^", r"\u{1F389}", r"\cA",
    r"\0",
)  # fmt: skip
_ODD: Final = (
    r"\b", r"\B", "(?=a)", "(?!a)", "(?<=a)", r"\1", "(?i)", "(?i:a)", "(?<n>a)", r"\A", r"\Z", "[[:alpha:]]", "[]",
    "[^]", r"\Q", "(*", "a**", "{", "}", "]", "x{,3}", "(?P<n>a)", "[b-a]", "[a-z&&b]", "#", "(?#c)", "(?x)",
)  # fmt: skip
_COUNTS: Final = ("*", "+", "?", "{2}", "{0,3}", "{1,}", "{3,40}", "*?", "+?", "{0}", "{1,128}", "{2,129}", "{0,300}")


def random_pattern(rng: random.Random, depth: int = 2) -> str:
    """An expression of a few atoms; one in twelve holds something odd, one in two is anchored somewhere."""
    body = _sequence(rng, depth)
    if rng.random() < 0.08:
        at = rng.randint(0, len(body))
        body = body[:at] + rng.choice(_ODD) + body[at:]
    chance = rng.random()
    return "^" + body + "$" if chance < 0.3 else "^" + body if chance < 0.45 else body + "$" if chance < 0.55 else body


def mutated_pattern(rng: random.Random, pattern: str, others: list[str]) -> str:
    """`pattern` after one to three changes to its characters; a splice takes the tail of one of `others`."""
    for _ in range(rng.randint(1, 3)):
        i, j = sorted((rng.randint(0, len(pattern)), rng.randint(0, len(pattern))))
        match rng.randrange(6):
            case 0:
                pattern = pattern[:i] + pattern[j:]
            case 1:
                pattern = pattern[:j] + pattern[i:]
            case 2:
                pattern = pattern[:i] + rng.choice((*_ATOMS, *_ODD, *_COUNTS)) + pattern[i:]
            case 3:
                pattern = pattern[:i] + rng.choice("()[]{}|*+?^$.\\-,0129a") + pattern[i + 1 :]
            case 4:
                other = rng.choice(others)
                pattern = pattern[:i] + other[rng.randint(0, len(other)) :]
            case 5:
                pattern = pattern[:i] + "(" + pattern[i:j] + ")" + rng.choice(("", *_COUNTS)) + pattern[j:]
    return pattern


def _sequence(rng: random.Random, depth: int) -> str:
    return "".join(_piece(rng, depth) for _ in range(rng.choice((1, 1, 2, 2, 3))))


def _piece(rng: random.Random, depth: int) -> str:
    chance = rng.random()
    if depth and chance < 0.25:
        inner = "|".join(_sequence(rng, depth - 1) for _ in range(rng.choice((1, 2, 2, 3))))
        atom = rng.choice(("(", "(?:", "(")) + inner + ")"
    elif depth and chance < 0.3:
        return _sequence(rng, depth - 1) + "|" + _sequence(rng, depth - 1)
    else:
        atom = rng.choice(_ATOMS)
    return atom + (rng.choice(_COUNTS[: rng.choice((4, 4, len(_COUNTS)))]) if rng.random() < 0.35 else "")
