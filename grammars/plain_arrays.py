"""What is said of an array: its places, its length, and how many items satisfy what."""

from dataclasses import dataclass

from grammars.expressions import Conjunction


@dataclass(frozen=True, slots=True)
class Contained:
    """At least `least` and at most `most` (None: any number) items satisfy `schema`."""

    schema: Conjunction
    least: int
    most: int | None
    pointer: str


@dataclass(frozen=True, slots=True)
class Beyond:
    """Some item at position `first` or later satisfies `schema`."""

    first: int
    schema: Conjunction
    pointer: str


@dataclass(frozen=True, slots=True)
class Arrays:
    """Schemas by place, the schema of all places beyond them, lengths (None: no upper bound) and counts.

    is_unique: no two items are equal. repeats: the pointer of a `not` that demands two equal items.
    """

    prefix: tuple[Conjunction, ...] = ()
    items: Conjunction = ()
    fewest: int = 0
    most: int | None = None
    is_unique: bool = False
    contained: tuple[Contained, ...] = ()
    beyond: tuple[Beyond, ...] = ()
    repeats: str | None = None

    def meet(self, other: "Arrays") -> "Arrays":
        """Both hold."""
        most = other.most if self.most is None else self.most
        if most is not None and other.most is not None:
            most = min(most, other.most)
        n_places = max(len(self.prefix), len(other.prefix))
        return Arrays(
            tuple(both(self.at(i), other.at(i)) for i in range(n_places)),
            both(self.items, other.items),
            max(self.fewest, other.fewest),
            most,
            self.is_unique or other.is_unique,
            tuple(dict.fromkeys(self.contained + other.contained)),
            tuple(dict.fromkeys(self.beyond + other.beyond)),
            self.repeats if self.repeats is not None else other.repeats,
        )

    def at(self, i: int) -> Conjunction:
        """What is said of the item at position `i`."""
        return self.prefix[i] if i < len(self.prefix) else self.items


def both(a: Conjunction, b: Conjunction) -> Conjunction:
    """The members of either, each once, in order."""
    if not a or not b:
        return a or b
    return tuple(dict.fromkeys(a + b))
