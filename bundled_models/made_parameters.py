"""Made-up parameters: everyday ones, and things and measures that nobody has met together, and what sentences say."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from bundled_models.catalogue import Parameter, Split
from bundled_models.values import Values, belongs

WORDS = Path(__file__).with_name("words.json")
REAL_WORD_SHARE = 0.85
POOLS = ("title", "topic", "product", "person", "code", "city", "company", "place")
LIST_POOLS = ("city", "person", "product", "topic", "code", "tag")
COUNTERS = ("num", "number_of", "count_of", "total", "", "")
HIGHEST = (10, 30, 100, 100, 500, 2000, 20_000)


@cache
def words(path: Path = WORDS) -> dict[str, Any]:
    """Nouns, verbs, everyday parameters, frames of sentences and clauses."""
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def side(split: Split) -> str:
    """The set of frames and clauses that a split uses."""
    return "held" if split == "held" else "train"


@dataclass(frozen=True, slots=True)
class Made:
    """A parameter and the clauses that state it: (text with the parameter's slot, the value it is for or None)."""

    parameter: Parameter
    clauses: tuple[tuple[str, str | None], ...]


class ParameterMaker:
    """Makes up words and parameters of a split; equal sources of randomness give equal ones."""

    def __init__(self, source: random.Random, split: Split) -> None:
        self._random, self._split = source, split
        self._values = Values(source, split)
        data = words()
        self.nouns, self._qualities, self._adjectives, self._texts = (
            [w for w in data[kind] if belongs(w, split)] for kind in ("nouns", "qualities", "adjectives", "text_things")
        )
        self._concepts: list[list[Any]] = data["concepts"]
        self._marks: dict[str, list[str]] = data["marks"][side(split)]

    # ---- words -----------------------------------------------------------------------------------------------------

    def _noun(self) -> str:
        if self._random.random() > REAL_WORD_SHARE:
            return self._values.made_up()
        return str(self._random.choice(self.nouns))

    def thing(self) -> tuple[str, ...]:
        """What a tool is about, in one to three words."""
        draw, noun = self._random.random(), self._noun()
        if draw < 0.3:
            return (noun,)
        if draw < 0.6:
            return (self._noun(), noun)
        if draw < 0.85:
            return (self._random.choice(self._adjectives), noun)
        return (self._random.choice(self._adjectives), self._noun(), noun)

    def identifier(self, parts: list[str]) -> str:
        """The words as a name: mostly snake_case."""
        draw, cut = self._random.random(), [w for part in parts for w in part.split("_") if w]
        if draw < 0.87:
            return "_".join(cut)
        if draw < 0.97:
            return cut[0] + "".join(w.capitalize() for w in cut[1:])
        return "".join(w.capitalize() for w in cut)

    # ---- parameters ------------------------------------------------------------------------------------------------

    def parameters(self, count: int, required: float) -> list[Made]:
        """At least `count` parameters, of which about the share `required` is required."""
        made: list[Made] = []
        taken: set[str] = set()
        kinds = (self._everyday, self._measure, self._text, self._enum, self._flag, self._list)
        while len(made) < count:
            if self._random.random() < 0.02:
                made += self._group(taken)
                continue
            one = self._random.choices(kinds, (36, 26, 22, 6, 5, 5))[0](taken)
            if one is not None:
                made.append(one)
        return [replace(m, parameter=replace(m.parameter, required=self._random.random() < required)) for m in made]

    def _said(self, mark: str, name: str, spoken: str) -> tuple[tuple[str, None], ...]:
        """The clauses of a kind, about the parameter `name` that people call `spoken`."""
        return tuple((m.replace("{w}", spoken).replace("{v}", f"{{{name}}}"), None) for m in self._marks[mark])

    def _named(self, parts: list[str], taken: set[str]) -> str | None:
        """A name of these words, None if a parameter is called much like it already."""
        name = self.identifier(parts)
        if name in taken or parts[-1] in taken:
            return None
        taken |= {name, parts[-1]}
        return name

    def _everyday(self, taken: set[str]) -> Made | None:
        names, kind, source, clauses, about = self._random.choice(self._concepts)
        name = self._random.choice(names)
        if names[0] in taken or name in taken:
            return None
        taken |= {names[0], name}
        pool = source if kind == "string" else None
        bounds = (source[0], source[1]) if kind != "string" else None
        parameter = Parameter(name, kind, True, self._random.choice(about), pool, bounds, None)
        said = [c for i, c in enumerate(clauses) if self._split != "held" or i % 2] or clauses
        own = self._random.sample(self._said("text", name, name.replace("_", " ")), 2)
        return Made(parameter, (*((c.replace("{v}", f"{{{name}}}"), None) for c in said), *own))

    def _measure(self, taken: set[str]) -> Made | None:
        """A number with a name of its own."""
        draw, pick = self._random.random(), self._random.choice
        if draw < 0.3:
            noun, mark = self._noun(), "count"
            spoken = f"{noun}s"
            parts = [pick(COUNTERS), spoken]
        else:
            parts, mark = [pick(self._qualities)], "number"
            if draw < 0.65:
                parts.insert(0, self._noun())
            elif draw < 0.8:
                parts.insert(0, pick(self._adjectives))
            spoken = " ".join(parts)
        name = self._named(parts, taken)
        if name is None:
            return None
        kind = "integer" if self._random.random() < 0.65 else "number"
        high = pick(HIGHEST)
        about = pick((f"The {spoken}", f"{spoken.capitalize()} to use", f"Value of the {spoken}", ""))
        parameter = Parameter(name, kind, True, about, None, (0 if high > 10 else 1, high), None)
        return Made(parameter, self._said(mark, name, spoken))

    def _choices(self) -> tuple[str, ...]:
        """A few values in plain words."""
        pick = self._random.choice
        drawn = (self._noun() for _ in range(4))
        return tuple(f"{pick(self._adjectives)} {word}" if self._random.random() < 0.5 else word for word in drawn)

    def _text(self, taken: set[str]) -> Made | None:
        """A string with a name of its own."""
        pick = self._random.choice
        parts = [pick(self._texts)]
        if self._random.random() < 0.6:
            parts.insert(0, self._noun())
        name = self._named(parts, taken)
        if name is None:
            return None
        pool, choices = (pick(POOLS), None) if self._random.random() < 0.8 else (None, self._choices())
        spoken = " ".join(parts)
        about = pick((f"The {spoken}", f"Which {spoken}", f"{spoken.capitalize()} to use", ""))
        parameter = Parameter(name, "string", True, about, pool, None, None, choices=choices)
        return Made(parameter, self._said("text", name, spoken))

    def _enum(self, taken: set[str]) -> Made | None:
        pick = self._random.choice
        spoken = pick((*self._texts, "mode", "type", "kind", "order", "level"))
        name = self._named([spoken], taken)
        if name is None:
            return None
        values = {pick(self._adjectives) if self._random.random() < 0.6 else self._noun() for _ in range(4)}
        enum = {v: [v] for v in sorted(values)[: self._random.randint(2, 4)]}
        parameter = Parameter(name, "string", True, f"The {spoken}", None, None, enum)
        return Made(parameter, self._said("enum", name, spoken))

    def _flag(self, taken: set[str]) -> Made | None:
        """A boolean."""
        noun = self._noun()
        parts = self._random.choice(
            (["include", noun], ["with", noun], ["show", noun], ["add", noun], [noun, "enabled"])
        )
        name = self._named(parts, taken)
        if name is None:
            return None
        parameter = Parameter(name, "boolean", True, f"Whether to include the {noun}", None, None, None)
        clauses = ((m.replace("{x}", noun), value) for value in ("true", "false") for m in self._marks[value])
        return Made(parameter, tuple(clauses))

    def _list(self, taken: set[str]) -> Made | None:
        noun, pick = self._noun(), self._random.choice
        items = pick(("string", "integer", "number", "string"))
        name = self._named([f"{noun}s"] if self._random.random() < 0.6 else [noun, "list"], taken)
        if name is None:
            return None
        pool = pick(LIST_POOLS) if items == "string" else None
        bounds = (0, pick((20, 100, 1000))) if items != "string" else None
        parameter = Parameter(name, "array", True, f"List of {noun}s", pool, bounds, None, items=items)
        return Made(parameter, self._said("list", name, f"{noun}s"))

    def _group(self, taken: set[str]) -> Iterator[Made]:
        """The members of a nested object."""
        noun = self._noun()
        if noun in taken:
            return
        taken.add(noun)
        own: set[str] = set()
        for member in (self._measure(own), self._text(own) if self._random.random() < 0.5 else self._measure(own)):
            if member is not None:
                inner = member.parameter.name
                clauses = tuple((c.replace(f"{{{inner}}}", f"{{{noun}.{inner}}}"), v) for c, v in member.clauses)
                yield Made(replace(member.parameter, name=f"{noun}.{inner}"), clauses)
