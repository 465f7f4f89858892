"""What a tool-call format is: how tools are shown to a model, what its output looks like, and how that is read back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from grammars.constraint import Tool


@dataclass(frozen=True, slots=True)
class Call:
    """A call as the model wrote it; `arguments` is JSON text, cut short where the answer was."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class CallStarted:
    """The name of call number `index` is known; its arguments follow."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class ArgumentsDelta:
    """More of the JSON text of the arguments of call number `index`."""

    index: int
    fragment: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of an answer that calls nothing."""

    fragment: str


CallEvent = CallStarted | ArgumentsDelta | TextDelta


class StreamParser(Protocol):
    """Reads one answer as it comes; the events do not depend on where it was cut, once fragments are joined."""

    def feed(self, text: str) -> list[CallEvent]:
        """The events of the next characters."""


class Dialect(Protocol):
    """One tool-call format."""

    @property
    def name(self) -> str:
        """The name in `ToolCalls.dialect`."""

    @property
    def calls_are(self) -> str:
        """The JSON type of a whole list of calls: an answer schema must not allow it."""

    @property
    def calls_at(self) -> tuple[str, ...]:
        """Names of the members that lead to the list of calls."""

    @property
    def text(self) -> str:
        """A regular expression, in Lark's spelling, of the answers that call nothing."""

    def render(self, tools: Sequence[Tool]) -> str:
        """The tools as prompt text, for models whose chat template does not show them."""

    def calls(self, names: Sequence[str], *, parallel: bool, spaced: bool) -> str:
        """Lark rules for `calls`, given rules `args_i` for the arguments of `names[i]`.

        spaced: one space may follow each comma and colon.
        """

    def parse(self, text: str) -> list[Call] | None:
        """The calls of a whole answer, or None when it is text."""

    def stream(self) -> StreamParser:
        """A parser of one answer."""
