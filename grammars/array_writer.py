"""Writes what is said of arrays as keywords of the normal form."""

from dataclasses import replace
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, Any, Final

from grammars.expressions import Unheld
from grammars.plain_arrays import Arrays, Beyond, Contained

if TYPE_CHECKING:
    from grammars.writer import Writer

_MAX_PLACES: Final = 16
_MAX_SETS: Final = 64


class ArrayWriter:
    """Writes the arrays of one document."""

    def __init__(self, writer: "Writer") -> None:
        self._writer = writer

    def written(self, arrays: Arrays) -> list[dict[str, Any]]:
        """Nodes, without `type`, that together hold these arrays. Raises Unheld."""
        if arrays.repeats is not None:
            raise Unheld("not", arrays.repeats, "the opposite of `uniqueItems` has no exact form: leave it out")
        pieces = [replace(arrays, beyond=())]
        for beyond in arrays.beyond:
            pieces = [way for piece in pieces for way in self._reaching(piece, beyond)]
        for counted in arrays.contained:
            if counted.most is not None:
                pieces = [way for piece in pieces for way in self._limited(piece, counted)]
        return [node for piece in pieces if (node := self._node(piece)) is not None]

    def _reaching(self, arrays: Arrays, beyond: Beyond) -> list[Arrays]:
        """The ways in which some item from `beyond.first` on satisfies its schema."""
        if not beyond.schema:
            return [arrays.meet(Arrays(fewest=beyond.first + 1))]
        if arrays.most is None or arrays.most - beyond.first > _MAX_PLACES:
            raise Unheld(
                "not", beyond.pointer, f"the opposite of items after a prefix needs `maxItems` of at most {_MAX_PLACES}"
            )
        places = range(beyond.first, arrays.most)
        return [arrays.meet(Arrays(prefix=((),) * i + (beyond.schema,), fewest=i + 1)) for i in places]

    def _limited(self, arrays: Arrays, counted: Contained) -> list[Arrays]:
        """The ways in which at most `counted.most` items satisfy its schema: the places that may, all others not."""
        assert counted.most is not None
        if arrays.most is not None and arrays.most <= counted.most:
            return [arrays]
        wrong = (self._writer.solver.opposite(counted.schema, "maxContains", counted.pointer),)
        if counted.most == 0:
            return [arrays.meet(Arrays(items=wrong))]
        if arrays.most is None or comb(arrays.most, counted.most) > _MAX_SETS:
            raise Unheld("maxContains", counted.pointer, "is held only with a small `maxItems`: add one, or drop it")
        ways = []
        for free in combinations(range(arrays.most), counted.most):
            prefix = tuple(() if i in free else wrong for i in range(arrays.most))
            ways.append(arrays.meet(Arrays(prefix=prefix)))
        return ways

    def _node(self, arrays: Arrays) -> dict[str, Any] | None:
        solver, write = self._writer.solver, self._writer.write
        fewest, most = arrays.fewest, arrays.most
        prefix: list[Any] = []
        for i, schema in enumerate(arrays.prefix if most is None else arrays.prefix[:most]):
            written = False if solver.is_empty(schema) else write(schema)
            if written is False:  # no item can stand here, so the array ends before
                most = i
                break
            prefix.append(written)
        items = True if most is not None and most <= len(prefix) else write(arrays.items)
        if items is not True and items is not False and solver.is_empty(arrays.items):
            items = False
        if items is False and not prefix:
            most, items = 0, True
        node: dict[str, Any] = {}
        while prefix and prefix[-1] is True and items is True:
            prefix.pop()
        if prefix:
            node["prefixItems"] = prefix
        if items is not True:
            node["items"] = items
        contains: dict[str, dict[str, Any]] = {}
        for counted in arrays.contained:
            member = write(counted.schema)
            if member is True:
                fewest = max(fewest, counted.least)
            elif member is False and counted.least:
                return None
            elif counted.least:
                least = max(counted.least, contains.get(repr(member), {}).get("at_least", 0))
                contains[repr(member)] = {"schema": member, "at_least": least}
        last = len(prefix) if items is False else most
        if last is not None and (fewest > last or any(one["at_least"] > last for one in contains.values())):
            return None
        if fewest:
            node["minItems"] = fewest
        if most is not None:
            node["maxItems"] = most
        if arrays.is_unique and (last is None or last > 1):
            node["uniqueItems"] = True
        if contains:
            node["contains"] = list(contains.values())
        return node
