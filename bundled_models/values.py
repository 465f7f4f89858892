"""Values for slots: drawn from combinational pools, disjoint between the splits by a hash of the value."""

import json
import random
import re
import zlib
from functools import cache
from pathlib import Path
from typing import Any

from bundled_models.catalogue import FOLDER, Parameter, Split

PART = re.compile(r"\{(\w+)(?::(\d+)-(\d+)(?::(\d))?)?\}")
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
SHARES: dict[Split, range] = {"train": range(7), "router": range(7, 8), "held": range(8, 10)}
MADE_UP = re.compile(r"\{[mMU]\}")
REAL_SHARE = 0.6  # this share of the draws takes a pattern without made-up words, where a pool has one
DISJOINT_FROM = 200  # a range with fewer values than this is shared by the splits: it would leave too few


def belongs(value: str, split: Split) -> bool:
    """True if `value` is one of the split's own. Enums, booleans, weekdays, currencies and small numbers are exempt."""
    return zlib.crc32(value.lower().encode()) % 10 in SHARES[split]


@cache
def _pools(path: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    data = json.loads(path.read_text(encoding="utf-8"))
    return data["lists"], data["pools"]


class Values:
    """Draws values and the way people say them."""

    SHARED = frozenset({"weekday", "currency"})  # closed sets, too small to divide

    def __init__(self, random_source: random.Random, split: Split, path: Path = FOLDER / "pools.json") -> None:
        self._random, self._split = random_source, split
        self._lists, self._pools = _pools(path)

    def made_up(self) -> str:
        """A pronounceable word that nobody has seen."""
        draw, lists = self._random.choice, self._lists
        count = self._random.choice((1, 2, 2, 2, 3))
        word = "".join(draw(lists["onset"]) + draw(lists["vowel"]) for _ in range(count))
        return word + draw(lists["coda"]).strip("_")

    def _part(self, found: re.Match[str]) -> str:
        name, low, high, width = found.groups()
        if low is not None:
            return str(self._random.randint(int(low), int(high))).zfill(int(width or 1))
        if name == "m":
            return self.made_up()
        if name == "M":
            return self.made_up().capitalize()
        if name == "U":
            return self.made_up()[:3].upper()
        if name[:2] in ("M_", "l_"):
            word = self._random.choice(self._lists[name[2:]])
            return word.capitalize() if name[0] == "M" else word.lower()
        return self._random.choice(self._lists[name])

    def from_pool(self, pool: str) -> str:
        """A value of the split out of `pool`."""
        patterns = self._pools[pool]
        real = [p for p in patterns if not MADE_UP.search(p)]
        for _ in range(200):
            chosen = real if real and self._random.random() < REAL_SHARE else patterns
            value = PART.sub(self._part, self._random.choice(chosen))
            if pool in self.SHARED or belongs(value, self._split):
                return value
        raise ValueError(f"Pool {pool!r} has no value for the split {self._split!r}: give it more patterns.")

    def _number(self, parameter: Parameter) -> float:
        low, high = parameter.range or (0, 100)
        whole = (parameter.items if parameter.type == "array" else parameter.type) == "integer"
        for _ in range(200):
            if whole and high - low > 20 and self._random.random() < 0.3:
                value: float = self._random.randint(int(low), int(min(high, low + 20)))
            elif whole:
                value = self._random.randint(int(low), int(high))
            else:
                value = round(self._random.uniform(low, high), self._random.choice((0, 1, 2)))
                value = int(value) if value == int(value) else value
                if not low <= value <= high:
                    continue
            if high - low < DISJOINT_FROM or abs(value) <= 20 or belongs(str(value), self._split):
                return value
        return value

    def draw(self, parameter: Parameter, only: set[str] | None = None) -> tuple[Any, str]:
        """(JSON value, its spoken form); `only`: the values that the phrasing can express."""
        if parameter.type == "boolean":
            value = self._random.choice(sorted(only)) == "true" if only else self._random.random() < 0.5
            return value, ""
        if parameter.enum:
            chosen = self._random.choice(sorted(only) if only else list(parameter.enum))
            said = self._random.choice(parameter.enum[chosen] or [chosen])
            return ([chosen], said) if parameter.type == "array" else (chosen, said)
        if parameter.type in ("integer", "number"):
            number = self._number(parameter)
            if number in range(1, 13) and self._random.random() < 0.25:
                return number, WORDS[int(number) - 1]
            return number, json.dumps(number)
        pool = parameter.pool or "topic"
        if parameter.type == "array":
            count = self._random.choice((1, 2, 2, 3) if parameter.items == "string" else (2, 3, 4, 5))
            draw = self._number if parameter.items in ("integer", "number") else self._text
            items = list(dict.fromkeys(draw(parameter) for _ in range(count)))
            return items, self._listed([i if isinstance(i, str) else json.dumps(i) for i in items])
        text = self._text(parameter)
        return text, f"'{text}'" if pool == "message" else text

    def _text(self, parameter: Parameter) -> str:
        """A string of the pool, or of the parameter's own choices with something new now and then."""
        if parameter.choices is None:
            return self.from_pool(parameter.pool or "topic")
        if self._random.random() < 0.2:
            return self.from_pool(self._random.choice(("topic", "product", "title")))
        return self._random.choice(parameter.choices)

    def _listed(self, items: list[str]) -> str:
        """`a, b and c`, now and then as code would write it."""
        if len(items) > 1 and self._random.random() < 0.2:
            return "[" + ", ".join(items) + "]"
        last = self._random.choice((" and ", " and ", ", ", ", and "))
        return ", ".join(items[:-1]) + last * (len(items) > 1) + items[-1]
