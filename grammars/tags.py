"""Which branches of a `oneOf` may meet at all: those that share a value of a member that tells them apart.

A union of hundreds of tagged objects would otherwise be compared each with each.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Final

from grammars.expressions import All, Conjunction, Expression, Ref, Values
from grammars.plain import Plain

_FEW: Final = 8  # branches that are compared each with each
_OBJECT: Final = frozenset({"object"})
Way = Sequence[Plain]
"""The alternatives of a branch."""


def pairs(ways: Sequence[Way], resolve: Callable[[Ref], Expression]) -> Iterable[tuple[int, int]]:
    """The pairs of branches that may meet, by position: all of them, or those that share a value of a tag."""
    if len(ways) > _FEW and (tags := _tags(ways, resolve)) is not None:
        return sorted({pair for members in tags.values() for pair in combinations(members, 2)})
    return combinations(range(len(ways)), 2)


def _tags(ways: Sequence[Way], resolve: Callable[[Ref], Expression]) -> dict[str, list[int]] | None:
    """By text of a member that every alternative requires and lists the texts of: the branches that allow it."""
    first = next((way[0].objects for way in ways if way), None)
    for name in first.required if first is not None else ():
        found: dict[str, list[int]] = {}
        for i, way in enumerate(ways):
            texts = _listed(way, name, resolve)
            if texts is None:
                break
            for text in texts:
                found.setdefault(text, []).append(i)
        else:
            return found
    return None


def _listed(way: Way, name: str, resolve: Callable[[Ref], Expression]) -> set[str] | None:
    """Texts that the member `name` must be one of in all of `way`, where it is required; None where none are listed."""
    texts: set[str] = set()
    for plain in way:
        if plain.kinds != _OBJECT or plain.objects is None or name not in plain.objects.required:
            return None
        in_sight = _in_sight(plain.objects.of(name), resolve)
        listed = next((said for said in in_sight if isinstance(said, Values)), None)
        if listed is None or not all(isinstance(value, str) for value in listed.values):
            return None
        texts.update(listed.values)
    return texts


def _in_sight(schema: Conjunction, resolve: Callable[[Ref], Expression]) -> Iterable[Expression]:
    """The members of `schema`, with `allOf` and references opened once."""
    for member in schema:
        yield member
        if isinstance(member, All):
            yield from member.members
        elif isinstance(member, Ref):
            yield resolve(member)
