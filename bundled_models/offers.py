"""A tool or record type as one prompt defines it."""

import random
import re
from dataclasses import dataclass
from typing import Any

from bundled_models.catalogue import Entry, Parameter, nested, object_schema

NOT_NAME = re.compile(r"[^\w-]")
ANOTHER_NAME, ANOTHER_PARAMETER = 0.5, 0.4  # how often a thing goes by one of its other names
KEPT = 0.8  # this share of the optional parameters is defined


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool as one prompt defines it: some optional parameters left out, things under one of their names.

    names: what the prompt calls the parameters whose entry calls them otherwise.
    """

    entry: Entry
    parameters: tuple[Parameter, ...]
    name: str
    names: dict[str, str]

    def schema(self) -> dict[str, Any]:
        """The JSON schema of the arguments, or of the record."""
        return object_schema(self.parameters, self.names)

    def stated(self, values: dict[str, Any]) -> dict[str, Any]:
        """The values of an answer, nested and in the order of the definition."""
        ordered = {p.name: values[p.name] for p in self.parameters if p.name in values}
        return nested({self.names.get(name, name): value for name, value in ordered.items()})

    @classmethod
    def draw(cls, entry: Entry, source: random.Random) -> "Offer":
        """The entry under one of its names, some optional parameters left out."""
        kept = tuple(p for p in entry.parameters if p.required or source.random() < KEPT)
        name = source.choice(entry.others) if entry.others and source.random() < ANOTHER_NAME else entry.name
        names: dict[str, str] = {}
        for parameter in kept:
            if parameter.others and source.random() < ANOTHER_PARAMETER:
                other = source.choice(parameter.others)
                head, dot, _ = parameter.name.rpartition(".")
                names[parameter.name] = other if other.startswith(head + dot) else head + dot + other
        if len({names.get(p.name, p.name) for p in kept}) < len(kept):
            names = {}
        return cls(entry, kept, NOT_NAME.sub("_", name), names)

    @classmethod
    def plain(cls, entry: Entry) -> "Offer":
        """The entry as it stands."""
        return cls(entry, entry.parameters, entry.name, {})
