"""Choosing drilled: tools of random words, and requests that say some of one tool's words in any order.

Choosing a tool is one token of some thirty in an answer, so ordinary examples teach it last. Here nothing else is
asked, nothing can be remembered, and the words may stand anywhere in a definition, as they do in real ones.
"""

import random
import re
from functools import cache
from typing import Any

from bundled_models import library
from bundled_models.made_parameters import words

WORD = re.compile(r"(?<![a-z])[a-z]{3,12}(?![a-z])")
TYPES = ("string", "integer", "number", "boolean")


@cache
def vocabulary() -> tuple[str, ...]:
    """The words of the library's definitions and of the inventions, each once."""
    found = {w for kind in ("nouns", "adjectives", "qualities", "text_things") for w in words()[kind]}
    for entries in library.load("train"):
        for entry in entries:
            said = [entry.name, *entry.descriptions["train"], *(p.name for p in entry.parameters)]
            found.update(w for text in said for w in WORD.findall(text.lower()))
    return tuple(sorted(found))


def random_tools(source: random.Random, count: int) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """(definitions of tools without required parameters, the words of each); no two tools share a word."""
    drawn = iter(source.sample(vocabulary(), 12 * count))
    tools, said = [], []
    for _ in range(count):
        name = [next(drawn) for _ in range(source.choice((1, 2, 2, 3)))]
        parameters = [next(drawn) for _ in range(source.choice((0, 1, 1, 2)))]
        about = [next(drawn) for _ in range(source.choice((2, 3, 4, 5)))]
        properties = {p: {"type": source.choice(TYPES)} for p in parameters}
        schema = {"type": "object", "properties": properties, "required": []}
        function = {"name": "_".join(name), "description": " ".join(about), "parameters": schema}
        tools.append({"type": "function", "function": function})
        said.append([*name, *parameters, *about])
    return tools, said


def request(source: random.Random, own: list[str]) -> str:
    """One to four of the words, among others."""
    count = min(len(own), source.choice((1, 2, 2, 3, 4)))
    chosen = source.sample(own, count) + source.sample(vocabulary(), source.choice((0, 1, 2, 3)))
    source.shuffle(chosen)
    return " ".join(chosen)
