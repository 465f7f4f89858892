"""What is said of an object: layers of named, patterned and additional members, counts and names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from grammars.expressions import Conjunction
from grammars.plain_arrays import both
from grammars.plain_texts import matches

LAST: Final = (1 << 30,)
"""The place of a layer that the client did not write: its names come after all others."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """What one node says of members: `additional` is for the names that the layer neither names nor matches.

    place: where the layer stands in the schema, which orders names.
    """

    properties: Mapping[str, Conjunction] = field(default_factory=dict)
    patterns: Mapping[str, Conjunction] = field(default_factory=dict)
    additional: Conjunction = ()
    place: tuple[int, ...] = ()

    def of(self, name: str) -> Conjunction:
        """What the layer says of the member `name`."""
        found = self.properties.get(name)
        matching = [schema for pattern, schema in self.patterns.items() if matches(pattern, name)]
        if found is None and not matching:
            return self.additional
        for schema in matching:
            found = schema if found is None else both(found, schema)
        return found or ()


@dataclass(frozen=True, slots=True)
class Some:
    """Some member that is not called one of `names`, matches `pattern` (None: any) and none of `no_patterns`, and
    whose name satisfies `name`, has a value that satisfies `schema`."""

    schema: Conjunction
    pointer: str
    keyword: str
    names: frozenset[str] = frozenset()
    pattern: str | None = None
    no_patterns: tuple[str, ...] = ()
    name: Conjunction = ()

    def reaches(self, name: str) -> bool:
        """Whether a member of that name may be the one; what `name` says is left to the caller."""
        if name in self.names or (self.pattern is not None and not matches(self.pattern, name)):
            return False
        return not any(matches(pattern, name) for pattern in self.no_patterns)


@dataclass(frozen=True, slots=True)
class Objects:
    """Layers that all hold, required names, counts of names (None: no upper bound), what each name satisfies, and
    members that must exist under a name that is not known."""

    layers: tuple[Layer, ...] = ()
    required: tuple[str, ...] = ()
    fewest: int = 0
    most: int | None = None
    names: Conjunction = ()
    some: tuple[Some, ...] = ()

    def meet(self, other: "Objects") -> "Objects":
        """Both hold."""
        most = other.most if self.most is None else self.most
        if most is not None and other.most is not None:
            most = min(most, other.most)
        return Objects(
            tuple(dict.fromkeys(self.layers + other.layers)),
            tuple(dict.fromkeys(self.required + other.required)),
            max(self.fewest, other.fewest),
            most,
            both(self.names, other.names),
            tuple(dict.fromkeys(self.some + other.some)),
        )

    def of(self, name: str) -> Conjunction:
        """What is said of the member `name`."""
        found: Conjunction = ()
        for layer in self.layers:
            found = both(found, layer.of(name))
        return found
