"""Which names an object may still get, and whether it may end: sets of declared names as bits."""

from dataclasses import dataclass
from functools import cached_property, reduce
from operator import or_

from grammars.tracking.rules import Alternative, ObjectRule


@dataclass(frozen=True)
class Names:
    """The names of one object so far.

    seen: declared names, as bits. others: further names, where they are remembered. n: different names. has_others: a
    further name was written, after which declared ones can come only in any order.
    """

    rule: ObjectRule
    seen: int = 0
    others: frozenset[str] = frozenset()
    n: int = 0
    has_others: bool = False
    dead: int = 0

    @cached_property
    def alternatives(self) -> tuple[Alternative, ...]:
        """Those that every value fits."""
        if not self.dead:
            return self.rule.alternatives
        return tuple(one for i, one in enumerate(self.rule.alternatives) if not self.dead >> i & 1)

    @cached_property
    def available(self) -> int:
        """Declared names that the backend lets come next."""
        every = (1 << len(self.rule.bits)) - 1
        if self.rule.any_order:
            return every & ~self.seen
        return 0 if self.has_others else every & ~((1 << self.seen.bit_length()) - 1)

    @cached_property
    def addable(self) -> int:
        """Declared names after any of which the object can still be finished."""
        return reduce(or_, map(self._addable_for, self.alternatives), 0)

    def _addable_for(self, one: Alternative) -> int:
        if not self._is_alive(one) or not self._can_meet(one):
            return 0
        missing = one.required & ~self.seen
        free = self.available & ~one.forbidden
        short = one.least - self.n - missing.bit_count()
        if not self.rule.any_order and short > 0:
            # What comes next leaves the names before it behind, and with them the count may fail.
            bits = (bit for bit in self.rule.bits.values() if bit & free)
            return sum(bit for bit in bits if self.with_declared(bit)._can_meet(one))
        if one.most is not None and self.n + missing.bit_count() >= one.most:
            free &= missing
        if missing and not self.rule.any_order:
            free &= ((missing & -missing) << 1) - 1
        return free

    @cached_property
    def takes_others(self) -> bool:
        """Whether a further, new name may come."""
        if self.rule.additional is None and not self.rule.patterns:
            return False
        return self.with_other(None).is_completable

    @cached_property
    def may_end(self) -> bool:
        """Whether some alternative holds as it is."""
        return any(
            not one.required & ~self.seen and one.least <= self.n and self._is_alive(one) for one in self.alternatives
        )

    @cached_property
    def is_completable(self) -> bool:
        """Whether names can be added until some alternative holds."""
        return any(self._is_alive(one) and self._can_meet(one) for one in self.alternatives)

    def with_declared(self, bit: int) -> "Names":
        """These names and a declared one."""
        return Names(self.rule, self.seen | bit, self.others, self.n + 1, self.has_others, self.dead)

    def with_other(self, name: str | None) -> "Names":
        """These names and a further one, which counts once; None for a new one that is not remembered."""
        others = self.others | {name} if name is not None and self.rule.counts else self.others
        return Names(self.rule, self.seen, others, self.n + (name not in self.others), True, self.dead)

    def with_value(self, name: str, text: bytes) -> "Names":
        """These names after the value of one of them, which is spelled `text`."""
        judges = self.rule.judges[name]
        dead = sum(1 << i for i, judge in enumerate(judges) if not judge.fits(text))
        return Names(self.rule, self.seen, self.others, self.n, self.has_others, self.dead | dead)

    def _is_alive(self, one: Alternative) -> bool:
        if self.seen & one.forbidden or (one.is_closed and self.has_others):
            return False
        return one.most is None or self.n <= one.most

    def _can_meet(self, one: Alternative) -> bool:
        missing = one.required & ~self.seen
        if missing & ~self.available:
            return False
        n = self.n + missing.bit_count()
        if one.most is not None and n > one.most:
            return False
        short = one.least - n
        if short <= 0 or self.rule.additional is not None or self.rule.patterns:
            return True
        return (self.available & ~missing & ~one.forbidden).bit_count() >= short
