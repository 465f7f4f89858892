"""Context-free grammars by chance, written as EBNF and as Lark, with a recogniser that no backend has a part in."""

import random
from dataclasses import dataclass
from typing import Final

_WORDS: Final = ("a", "b", "ab", "c", "0", "{", "}", ",", "é", "::", " ", "true")
_CLASSES: Final = ("ab", "abc", "0123", "xyz_")
_JUNK: Final = (
    '"', "(", ")", "|", "*", "{2,}", "{3,1}", "::=", ":", "\n", "root", "start", "#", "/", "[", "%", "~2..3", "?",
    "~", "\\", "EOF", "%json {}", "[^a]", "%ignore /a/",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Word:
    """A literal text."""

    text: str


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of some characters."""

    chars: str


@dataclass(frozen=True, slots=True)
class Name:
    """A rule, by its position."""

    rule: int


@dataclass(frozen=True, slots=True)
class Chain:
    """One after the other."""

    parts: "tuple[Part, ...]"


@dataclass(frozen=True, slots=True)
class Either:
    """Alternatives."""

    parts: "tuple[Part, ...]"


@dataclass(frozen=True, slots=True)
class Times:
    """`low` to `high` times (None: without end)."""

    part: "Part"
    low: int
    high: int | None


Part = Word | OneOf | Name | Chain | Either | Times
Rules = tuple[Part, ...]


def random_rules(rng: random.Random) -> Rules:
    """One to four rules; the first is the start."""
    n = rng.randint(1, 4)
    return tuple(_part(rng, n, 3) for _ in range(n))


def as_ebnf(rules: Rules) -> str:
    """In xgrammar's EBNF."""
    return "\n".join(f"{'root' if i == 0 else f'r{i}'} ::= {_written(rule, 'ebnf')}" for i, rule in enumerate(rules))


def as_lark(rules: Rules) -> str:
    """In llguidance's Lark."""
    return "\n".join(f"{'start' if i == 0 else f'r{i}'}: {_written(rule, 'lark')}" for i, rule in enumerate(rules))


def mutated_text(rng: random.Random, text: str) -> str:
    """A grammar's text after one to three changes to its characters."""
    for _ in range(rng.randint(1, 3)):
        i, j = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        junk = rng.choice(_JUNK)
        changed = (
            text[:i] + text[j:],
            text[:j] + text[i:],
            text[:i] + junk + text[i:],
            text[:i] + junk + text[i + 1 :],
        )
        text = rng.choice(changed)
    return text


def recognises(rules: Rules, text: str) -> bool:
    """Whether `text` is a sentence: ends of every rule at every position, grown until nothing changes."""
    ends: dict[tuple[int, int], frozenset[int]] = {}

    def reach(part: Part, starts: frozenset[int]) -> frozenset[int]:
        match part:
            case Word(word):
                return frozenset(i + len(word) for i in starts if text.startswith(word, i))
            case OneOf(chars):
                return frozenset(i + 1 for i in starts if i < len(text) and text[i] in chars)
            case Name(rule):
                return frozenset(end for i in starts for end in ends.get((rule, i), ()))
            case Chain(parts):
                for member in parts:
                    starts = reach(member, starts)
                return starts
            case Either(parts):
                return frozenset(end for member in parts for end in reach(member, starts))
            case Times(member, low, high):
                for _ in range(low):
                    starts = reach(member, starts)
                seen, step = starts, 0
                while starts and (high is None or step < high - low):
                    starts = reach(member, starts) - seen
                    seen |= starts
                    step += 1
                return seen
        raise TypeError(part)

    while True:
        grown = {(r, i): reach(rule, frozenset({i})) for r, rule in enumerate(rules) for i in range(len(text) + 1)}
        if grown == ends:
            return len(text) in ends[0, 0]
        ends = grown


def _part(rng: random.Random, n_rules: int, depth: int) -> Part:
    chance = rng.random()
    if depth == 0 or chance < 0.3:
        return Word(rng.choice(_WORDS)) if rng.random() < 0.7 else OneOf(rng.choice(_CLASSES))
    if chance < 0.5:
        return Name(rng.randrange(n_rules))
    members = tuple(_part(rng, n_rules, depth - 1) for _ in range(rng.randint(2, 3)))
    if chance < 0.7:
        return Chain(members)
    if chance < 0.88:
        return Either(members)
    return Times(members[0], *rng.choice(((0, None), (1, None), (0, 1), (2, 3), (0, 40), (2, None))))


def _written(part: Part, syntax: str) -> str:
    match part:
        case Word(word):
            return '"' + word + '"'
        case OneOf(chars):
            return f"[{chars}]" if syntax == "ebnf" else f"/[{chars}]/"
        case Name(rule):
            return f"r{rule}" if rule else "root" if syntax == "ebnf" else "start"
        case Chain(parts):
            return " ".join(_written(member, syntax) for member in parts)
        case Either(parts):
            return "(" + " | ".join(_written(member, syntax) for member in parts) + ")"
        case Times(member, low, high):
            short = {(0, None): "*", (1, None): "+", (0, 1): "?"}
            count = short.get((low, high)) or f"{{{low},{'' if high is None else high}}}"
            return f"({_written(member, syntax)}){count}"
