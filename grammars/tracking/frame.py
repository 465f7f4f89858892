"""The containers that are open around a place in an answer, and what may come next in them."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

from grammars.tracking.names import Names
from grammars.tracking.rules import OPAQUE, ArrayRule, ObjectRule, Unique
from grammars.tracking.spelling import canonical

Key = tuple[Any, ...]


@dataclass(slots=True, eq=False)
class Frame:
    """An open object or array; never changed once it is made.

    node: of the container, and tag: the value of its tag, "" without one; both say which rule holds. names: of an
    object; n: items of an array; before: its items where they must differ; counts: items accepted by each `contains`.
    begin: where the item being read begins in what is captured. captures: whole items must be known, here or around.
    key: what decides, of this container and those around it, what may follow; None where that is not known.
    """

    parent: "Frame | None"
    node: int
    is_object: bool
    rule: ObjectRule | ArrayRule | None
    names: Names | None = None
    tag: str = ""
    member: str = ""
    n: int = 0
    before: frozenset[str] = frozenset()
    counts: tuple[int, ...] = ()
    begin: int = 0
    captures: bool = field(init=False)
    key: Key | None = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.rule, ArrayRule):
            own = bool(self.rule.unique or self.rule.contains)
        else:
            own = self.rule is not None and self.member in self.rule.judges
        self.captures = own or (self.parent is not None and self.parent.captures)
        self.key = self._key()

    def _key(self) -> Key | None:
        around: Key | None = () if self.parent is None else self.parent.key
        if around is None or self.rule is None:
            return None
        if isinstance(self.rule, ArrayRule):
            unique = self.before if self.rule.unique else None
            met = tuple(min(n, one.at_least) for n, one in zip(self.counts, self.rule.contains, strict=True))
            return (around, self.node, min(self.n, self.rule.bound), unique, met)
        names = self.names
        if names is None:
            return None
        counted = (names.n, names.others) if self.rule.counts else 0
        return (around, self.node, self.tag, names.seen, names.has_others, names.dead, counted)


def unique_of(frame: Frame | None) -> Unique | None:
    """What is known of the item that is read or comes next, where it must differ from those before."""
    return frame.rule.unique_at(frame.n) if frame is not None and isinstance(frame.rule, ArrayRule) else None


def item_node(frame: Frame) -> int:
    """The node of the next item."""
    rule = frame.rule
    if not isinstance(rule, ArrayRule):
        return OPAQUE
    if frame.n < len(rule.prefix):
        return rule.prefix[frame.n]
    return OPAQUE if rule.items is None else rule.items


def other_node(rule: ObjectRule, name: str) -> int | None:
    """The node of a name that is not declared."""
    return next((child for pattern, child in rule.patterns if pattern.matches(name)), rule.additional)


def may_add(frame: Frame) -> bool:
    """Whether another member may come."""
    rule, names = frame.rule, frame.names
    if not isinstance(rule, ObjectRule) or names is None or not rule.is_held:
        return True
    return bool(names.addable) or names.takes_others


def is_shut(frame: Frame) -> bool:
    """Whether only declared names may come."""
    rule, names = frame.rule, frame.names
    return isinstance(rule, ObjectRule) and names is not None and rule.is_held and not names.takes_others


def leads(frame: Frame, text: bytes) -> bool:
    """Whether a name that may come begins with `text`."""
    rule, names = frame.rule, frame.names
    if not isinstance(rule, ObjectRule) or names is None or not rule.is_held:
        return True
    declared = rule.bits_by_prefix.get(text, 0)
    if declared & names.addable:
        return True
    if not names.takes_others:
        return False
    return not rule.is_narrow or not declared or rule.begins_other(text)


def tagged(frame: Frame, rule: ObjectRule, text: bytes) -> Frame:
    """The frame of the object that its tag selects."""
    try:
        tag = canonical(json.loads(text))
    except ValueError:
        tag = ""
    chosen = rule.by_tag.get(tag)
    if chosen is None or frame.names is None:
        return replace(frame, rule=None, names=None)
    names = Names(chosen).with_declared(chosen.bits[frame.member])
    return replace(frame, rule=chosen, names=names, tag=tag)
