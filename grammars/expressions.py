"""What a client's schema says before it is solved: an algebra of assertions about one value.

Expressions are compared by identity: each is made once, where the schema says it, so that a set of them names a state
of the rewriting (`solver.py`), and recursion ends when the same set comes back.

    Expression = All | AnyOf | OneOf | Not | Ref | Values | Plain (in `plain.py`)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Union

from grammars.errors import ConstraintRefused

if TYPE_CHECKING:
    from grammars.plain import Plain

Expression = Union["All", "AnyOf", "OneOf", "Not", "Ref", "Values", "Plain"]
Conjunction = tuple[Expression, ...]
"""Expressions that all hold for one value; empty: anything."""


class Unheld(ValueError):
    """An assertion that the normal form cannot write. keyword and pointer: where the client said it."""

    def __init__(self, keyword: str, pointer: str, reason: str) -> None:
        self.keyword, self.pointer, self.reason = keyword, pointer, reason
        super().__init__(reason)


class TooMany(ConstraintRefused):
    """Choices multiply out beyond the limit: another way of writing them may still do."""


@dataclass(frozen=True, slots=True, eq=False)
class All:
    """Every member holds."""

    members: Conjunction


@dataclass(frozen=True, slots=True, eq=False)
class AnyOf:
    """At least one member holds. keyword and pointer: what the client wrote it as."""

    members: Conjunction
    keyword: str = "anyOf"
    pointer: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class OneOf:
    """Exactly one member holds."""

    members: Conjunction
    pointer: str


@dataclass(frozen=True, slots=True, eq=False)
class Not:
    """The member does not hold."""

    member: Expression
    keyword: str
    pointer: str


@dataclass(frozen=True, slots=True, eq=False)
class Ref:
    """What is said at a pointer of the document. keyword and pointer: the reference itself.

    scope: the resources entered up to there (`references.py`); there is one Ref for each `at` and `scope`.
    """

    at: str
    keyword: str
    pointer: str
    scope: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """The value equals one of these."""

    values: tuple[Any, ...]
    pointer: str


ANYTHING: Final = All(())
NOTHING: Final = AnyOf(())


def followed(expression: Expression) -> Iterator[Ref]:
    """The references that must be followed to know what is said of the value itself."""
    match expression:
        case Ref():
            yield expression
        case All() | AnyOf() | OneOf():
            for member in expression.members:
                yield from followed(member)
        case Not():
            yield from followed(expression.member)


def refers(expression: Expression) -> bool:
    """Whether a reference must be followed to know what is said of the value itself."""
    return any(True for _ in followed(expression))
