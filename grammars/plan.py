"""A constraint in the words of the backends that will hold it: what `planner.py` decides and `assembly.py` builds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from grammars.constraint import Choice, FreeText

if TYPE_CHECKING:
    from grammars.matcher import BackendState
    from grammars.spellings import Spellings
    from grammars.vocabulary import Vocabulary

Backend = Literal["llguidance", "xgrammar", "outlines"]


class Overlay(Protocol):
    """A rule on top of a grammar: it edits masks, and compiles nothing."""

    def wrap(self, state: "BackendState", vocabulary: "Vocabulary", spellings: "Spellings") -> "BackendState":
        """The start state under the rule. Raises ConstraintRefused where the rule leaves no answer."""


@dataclass(frozen=True, slots=True)
class Separation:
    """A Lark grammar that must have no sentence, so that a part of a sequence ends in one place only."""

    lark: str
    pointer: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A constraint in the words of one backend.

    source: Lark for `llguidance`, EBNF for `xgrammar`, a regular expression for `outlines`. warnings: what asserts
    nothing. uses: (keyword, pointer) met in the constraint, to name the cause of a backend's refusal. keyword: its
    name in general. overlays: applied from the first to the last. separations: what must hold besides. is_delimited:
    no answer begins another, so that it is plain where one ends.
    """

    backend: Backend
    source: str
    keyword: str
    warnings: tuple[str, ...] = ()
    uses: tuple[tuple[str, str], ...] = ()
    overlays: tuple[Overlay, ...] = ()
    separations: tuple[Separation, ...] = ()
    is_delimited: bool = False

    @property
    def backends(self) -> tuple[str, ...]:
        """The engines that assembling it needs; llguidance also knows how tokens are spelled."""
        more = ("llguidance",) if self.overlays or self.separations else ()
        return tuple(dict.fromkeys((self.backend, *more)))

    @property
    def n_chars(self) -> int:
        """Length of the text that is compiled."""
        return len(self.source)


@dataclass(frozen=True, slots=True)
class PreludePlan:
    """Free text and fixed texts, see `prelude.py`, then what `tail` holds, if anything.

    may_end: the answer may end within the first part, once there is some of it. overlays: of all of it, as in `Plan`.
    """

    parts: tuple[FreeText | Choice, ...]
    tail: "AnyPlan | None"
    pointer: str
    keyword: str = "sequence"
    may_end: bool = False
    overlays: tuple[Overlay, ...] = ()

    @property
    def backend(self) -> str:
        """The engine that holds the tail."""
        return "scanner" if self.tail is None else self.tail.backend

    @property
    def backends(self) -> tuple[str, ...]:
        """The engines that assembling it needs."""
        return tuple(dict.fromkeys(("llguidance", *(() if self.tail is None else self.tail.backends))))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What asserts nothing."""
        return () if self.tail is None else self.tail.warnings

    @property
    def uses(self) -> tuple[tuple[str, str], ...]:
        """(keyword, pointer) met in the constraint."""
        return () if self.tail is None else self.tail.uses

    @property
    def n_chars(self) -> int:
        """Length of the text that is compiled."""
        return sum(map(_n_chars, self.parts)) + (0 if self.tail is None else self.tail.n_chars)


@dataclass(frozen=True, slots=True)
class UnionPlan:
    """One of several plans, see `union.py`. overlays: of all of it, as in `Plan`."""

    branches: "Sequence[AnyPlan]"
    keyword: str = "alternatives"
    overlays: tuple[Overlay, ...] = ()

    @property
    def backend(self) -> str:
        """The engines that hold the branches."""
        return "+".join(dict.fromkeys(branch.backend for branch in self.branches))

    @property
    def backends(self) -> tuple[str, ...]:
        """The engines that assembling it needs."""
        more = ("llguidance",) if self.overlays else ()
        return tuple(dict.fromkeys((*(name for branch in self.branches for name in branch.backends), *more)))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What asserts nothing."""
        return tuple(dict.fromkeys(warning for branch in self.branches for warning in branch.warnings))

    @property
    def uses(self) -> tuple[tuple[str, str], ...]:
        """(keyword, pointer) met in the constraint."""
        return tuple(use for branch in self.branches for use in branch.uses)

    @property
    def n_chars(self) -> int:
        """Length of the text that is compiled."""
        return sum(branch.n_chars for branch in self.branches)


AnyPlan = Plan | PreludePlan | UnionPlan


def _n_chars(part: FreeText | Choice) -> int:
    return len(part.until or "") if isinstance(part, FreeText) else sum(map(len, part.choices))
