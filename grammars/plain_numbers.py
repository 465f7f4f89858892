"""What is said of a number: a range, divisors, and numbers that it is not."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

from grammars.expressions import Unheld

Number = int | float
_MOST_LISTED: Final = 256  # whole numbers that are listed where no keyword says what they are not
_EXACT: Final = 2**53


@dataclass(frozen=True, slots=True)
class Numbers:
    """Bounds (None: none; open: the bound itself is outside), divisors, and what is excluded.

    no_divisors: (divisor, pointer) of `not` around a `multipleOf`. holes: numbers that are excluded.
    """

    low: Number | None = None
    low_open: bool = False
    high: Number | None = None
    high_open: bool = False
    divisors: tuple[Number, ...] = ()
    no_divisors: tuple[tuple[Number, str], ...] = ()
    holes: frozenset[Number] = frozenset()

    def meet(self, other: "Numbers") -> "Numbers":
        """Both hold."""
        low, low_open = self.low, self.low_open
        if other.low is not None and (low is None or other.low > low or (other.low == low and other.low_open)):
            low, low_open = other.low, other.low_open
        high, high_open = self.high, self.high_open
        if other.high is not None and (high is None or other.high < high or (other.high == high and other.high_open)):
            high, high_open = other.high, other.high_open
        return Numbers(
            low, low_open, high, high_open,
            tuple(dict.fromkeys(self.divisors + other.divisors)),
            tuple(dict.fromkeys(self.no_divisors + other.no_divisors)),
            self.holes | other.holes,
        )  # fmt: skip

    def holds(self, value: Number) -> bool:
        """Whether `value` satisfies it."""
        if self.low is not None and (value < self.low or (self.low_open and value == self.low)):
            return False
        if self.high is not None and (value > self.high or (self.high_open and value == self.high)):
            return False
        if value in self.holes or not all(is_multiple(value, divisor) for divisor in self.divisors):
            return False
        return not any(is_multiple(value, divisor) for divisor, _ in self.no_divisors)

    def kinds(self, kinds: frozenset[str]) -> frozenset[str]:
        """Of `integer` and `fraction`, those that some number may still have; no fewer than it may."""
        found = set(kinds & {"integer", "fraction"})
        if any(divisor == int(divisor) for divisor in self.divisors):
            found.discard("fraction")
        if any(is_multiple(1, divisor) for divisor, _ in self.no_divisors):
            found.discard("integer")
        if self.low is not None and self.high is not None:
            if self.low > self.high or (self.low == self.high and (self.low_open or self.high_open)):
                return frozenset()
            if self.low == self.high:
                found &= {"integer" if self.low == int(self.low) else "fraction"}
                if found and not self.holds(self.low):
                    return frozenset()
            first, last = self.first(), self.last()
            if first is not None and last is not None and first > last:
                found.discard("integer")
        if found == {"integer"} and self._has_no_integer():
            return frozenset()
        return frozenset(found)

    def _has_no_integer(self) -> bool:
        first, last = self.first(), self.last()
        if first is None or last is None:
            return False
        if last - first < _MOST_LISTED:
            return not any(self.holds(value) for value in range(first, last + 1))
        return False

    def first(self) -> int | None:
        """The least whole number of the range, divisors aside."""
        if self.low is None:
            return None
        low = math.ceil(self.low)
        return low + 1 if self.low_open and low == self.low else low

    def last(self) -> int | None:
        """The greatest whole number of the range, divisors aside."""
        if self.high is None:
            return None
        high = math.floor(self.high)
        return high - 1 if self.high_open and high == self.high else high

    def written(self, kinds: frozenset[str]) -> list[dict[str, Any]]:
        """Nodes, with their `type` or an `enum`, that together hold the numbers of `kinds`. Raises Unheld."""
        kinds = self.kinds(kinds)
        if not kinds:
            return []
        pieces = self._pieces(kinds)
        return [node for piece in pieces if (node := piece._node(kinds))]

    def _pieces(self, kinds: frozenset[str]) -> "list[Numbers]":
        """The same numbers, cut at the holes."""
        whole = replace(self, holes=frozenset())
        cuts = sorted(hole for hole in self.holes if whole.holds(hole))
        if kinds == {"integer"}:
            cuts = [cut for cut in cuts if cut == int(cut)]
        pieces = []
        for low, high in zip([None, *cuts], [*cuts, None], strict=True):
            lower = Numbers() if low is None else Numbers(low=low, low_open=True)
            pieces.append(whole.meet(lower if high is None else lower.meet(Numbers(high=high, high_open=True))))
        return pieces

    def _node(self, kinds: frozenset[str]) -> dict[str, Any] | None:
        kinds = self.kinds(kinds)
        if not kinds:
            return None
        first, last = self.first(), self.last()
        if self.no_divisors and kinds == {"fraction"} and all(is_multiple(1, d) for d, _ in self.no_divisors):
            return replace(self, no_divisors=())._node(kinds)
        if self.no_divisors:
            if kinds == {"integer"} and first is not None and last is not None and last - first < _MOST_LISTED:
                values = [value for value in range(first, last + 1) if self.holds(value)]
                return {"enum": values} if values else None
            raise Unheld("not", self.no_divisors[0][1], "the opposite of `multipleOf` has no exact form here")
        if kinds == {"fraction"} and not (first is not None and last is not None and first > last):
            raise Unheld("not", "", "numbers that are not whole have no exact form: allow `number`, or no numbers")
        node: dict[str, Any] = {"type": ["integer" if kinds == {"integer"} else "number"]}
        if kinds == {"integer"}:
            _bound(node, "minimum", "exclusiveMinimum", self.low, first, self.low_open)
            _bound(node, "maximum", "exclusiveMaximum", self.high, last, self.high_open)
        else:
            if self.low is not None:
                node["exclusiveMinimum" if self.low_open else "minimum"] = self.low
            if self.high is not None:
                node["exclusiveMaximum" if self.high_open else "maximum"] = self.high
        divisors = common_multiple(tuple(d for d in self.divisors if not (kinds == {"integer"} and is_multiple(1, d))))
        if divisors:
            node["multipleOf"] = divisors[0]
        if divisors[1:]:
            node["allOf"] = [{"multipleOf": divisor} for divisor in divisors[1:]]
        return node


def _bound(
    node: dict[str, Any], closed: str, opened: str, bound: Number | None, whole: int | None, is_open: bool
) -> None:
    """The bound of a whole number: the nearest whole number inside, where a double holds it."""
    if bound is None or whole is None:
        return
    if abs(whole) <= _EXACT:
        node[closed] = whole
    else:
        node[opened if is_open else closed] = bound


def is_multiple(value: Number, divisor: Number) -> bool:
    """Whether `value` is a whole multiple, as decimals: 0.3 is one of 0.1."""
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return (_exactly(value) / _exactly(divisor)).denominator == 1


def common_multiple(divisors: tuple[Number, ...]) -> tuple[Number, ...]:
    """One divisor with the same multiples as all of `divisors` together; all of them where it has no exact double."""
    if len(divisors) < 2:
        return divisors
    parts = [_exactly(divisor) for divisor in divisors]
    common = Fraction(math.lcm(*(p.numerator for p in parts)), math.gcd(*(p.denominator for p in parts)))
    if common.denominator == 1 and common.numerator <= _EXACT:
        return (common.numerator,)
    decimal = float(common)
    return (decimal,) if _exactly(decimal) == common else divisors


def _exactly(value: Number) -> Fraction:
    """The decimal that JSON shows."""
    return Fraction(value) if isinstance(value, int) else Fraction(repr(value))
