"""What is said of the values at each node of a schema, as plain data that a position looks up while it reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from grammars.recogniser import Recogniser
    from grammars.tracking.shapes import Judge

ANY: Final = 0
"""The node that allows every value and says nothing of it."""
OPAQUE: Final = 1
"""The node of values whose schema is not known from their place: nothing is kept of them, the backend alone rules."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """One way in which the names of an object may be chosen. Names are bits, by their position in `ObjectRule.names`.

    required, forbidden: sets of declared names. least, most: bounds of the number of members. is_closed: no further
    names may come, although other alternatives allow them.
    """

    required: int = 0
    forbidden: int = 0
    least: int = 0
    most: int | None = None
    is_closed: bool = False


@dataclass(frozen=True, eq=False)
class ObjectRule:
    """The members of an object.

    names: of the declared members, with their nodes, in order. patterns: of further names, each with its node; never:
    of names that may not come; additional: the node of all others, None where there are none. alternatives: one must
    hold at the end. is_held: the rule says more than the backend does. any_order: declared names come in any order;
    else in theirs, before all others. judges: by name, of the members that differ between the alternatives, one for
    each of these. tag: a member that comes first, whose value selects the rule of the whole object.
    """

    names: Mapping[str, int] = field(default_factory=dict)
    patterns: tuple[tuple["Recogniser", int], ...] = ()
    never: tuple["Recogniser", ...] = ()
    additional: int | None = ANY
    alternatives: tuple[Alternative, ...] = (Alternative(),)
    is_held: bool = False
    any_order: bool = False
    judges: Mapping[str, "tuple[Judge, ...]"] = field(default_factory=dict)
    tag: str | None = None
    by_tag: Mapping[str, "ObjectRule"] = field(default_factory=dict)
    bits: Mapping[str, int] = field(init=False)
    spellings: tuple[tuple[bytes, int], ...] = field(init=False)

    def __post_init__(self) -> None:
        from grammars.tracking.spelling import spelled

        object.__setattr__(self, "bits", {name: 1 << i for i, name in enumerate(self.names)})
        object.__setattr__(self, "spellings", tuple((spelled(name)[1:-1], 1 << i) for i, name in enumerate(self.names)))

    @cached_property
    def bits_by_prefix(self) -> dict[bytes, int]:
        """Names, as bits, by what their spelling begins with."""
        found: dict[bytes, int] = {}
        for spelling, bit in self.spellings:
            for n in range(len(spelling) + 1):
                found[spelling[:n]] = found.get(spelling[:n], 0) | bit
        return found

    def begins_other(self, text: bytes) -> bool:
        """Whether a name that is not declared begins with `text`, a spelling without escapes."""
        try:
            begun = text.decode()
        except UnicodeDecodeError:
            return True  # judged once its last character is complete
        if self.additional is not None and not any(pattern.takes_all(begun) for pattern in self.never):
            return True
        return any(pattern.begins(begun) for pattern, _ in self.patterns)

    @property
    def is_narrow(self) -> bool:
        """Whether a name may begin in ways that lead to no name but declared ones."""
        return bool(self.never) if self.additional is not None else bool(self.patterns)

    @cached_property
    def counts(self) -> bool:
        """Whether the number of members matters."""
        return any(one.least > one.required.bit_count() or one.most is not None for one in self.alternatives)


@dataclass(frozen=True, slots=True)
class Unique:
    """Items of an array that must differ. What can be told of them by their first byte:

    finite: JSON spellings of all values, each with its canonical text, of the kinds that have finitely many.
    integers: bounds (both ends included, None for none) where only whole numbers come; None where others do.
    longest: characters of the longest string, None for no end.
    """

    finite: Mapping[str, Mapping[bytes, str]]
    has_more: bool
    integers: tuple[int | None, int | None] | None = None
    longest: int | None = None


@dataclass(frozen=True, slots=True)
class Contained:
    """`contains`: so many items that a validator accepts."""

    validator: Any
    at_least: int


@dataclass(frozen=True, slots=True)
class ArrayRule:
    """The items of an array: nodes of the first ones, of the rest (None: no more), and what is counted of them.

    unique: for each of the first ones and for the rest, where items must differ. bound: number of items from which on
    the backend no longer tells positions apart.
    """

    prefix: tuple[int, ...] = ()
    items: int | None = ANY
    unique: tuple[Unique, ...] = ()
    contains: tuple[Contained, ...] = ()
    bound: int = 0

    def unique_at(self, n: int) -> Unique | None:
        """What is known of item `n`, which must differ from those before; None where items may repeat, or end here."""
        if not self.unique:
            return None
        return self.unique[min(n, len(self.unique) - 1)]


@dataclass(frozen=True, slots=True)
class StringRule:
    """A string. is_free: every text is allowed, as far as its length is; what was read of it then says nothing.

    shortest, longest: characters, kept here and not by the backend. recogniser: its state says as much as the text
    that was read, together with the number of characters up to `bound`.
    """

    is_free: bool = True
    shortest: int = 0
    longest: int | None = None
    recogniser: "Recogniser | None" = None
    bound: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """The values at one place: what holds for each kind. None: the kind is OPAQUE, or does not occur.

    plain_number: numbers have no bounds, so that their digits say nothing of what may follow.
    """

    object: ObjectRule | None = None
    array: ArrayRule | None = None
    string: StringRule | None = None
    plain_number: bool = False


_ANY_NODE: Final = Node(ObjectRule(), ArrayRule(), StringRule(), True)


@dataclass(slots=True)
class Rules:
    """The nodes of one schema. root: of the answer. is_held: some node says more than the backend does.

    json_begins: where not empty, an answer that begins with another byte is no JSON, and nothing is kept of it.
    leads: where not empty, several JSON texts come one after the other, each behind a fixed text: the nodes by what of
    it follows the last `marker`, white space aside; json_begins then tells where a JSON text begins.
    """

    nodes: list[Node] = field(default_factory=lambda: [_ANY_NODE, Node()])
    root: int = ANY
    is_held: bool = False
    json_begins: bytes = b""
    marker: bytes = b""
    leads: Mapping[bytes, int] = field(default_factory=dict)

    def add(self) -> int:
        """A node to be written later."""
        self.nodes.append(Node())
        return len(self.nodes) - 1
