"""What a tool-call format is: how tools are shown to a model, what its output looks like, and how that is read back.

    text      Let me look. <tool_call>⏎{"name": "f", "arguments": {"a": 1}}⏎</tool_call>⏎<tool_call>⏎{…}⏎</tool_call>
              └─ text ────┘└─ marker ┘ └─ a JSON text: one call ─────────┘             └─ marker again, and so on

Where a format has a marker, free text may come before the first one and none behind it. Where it has none, the first
character of an answer says whether it is calls.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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
    """More of an answer that calls nothing, or of what is said before its calls."""

    fragment: str


CallEvent = CallStarted | ArgumentsDelta | TextDelta


class StreamParser(Protocol):
    """Reads one answer as it comes; the events do not depend on where it was cut, once fragments are joined."""

    def feed(self, text: str) -> list[CallEvent]:
        """The events of the next characters."""

    def end(self) -> list[CallEvent]:
        """What is known once no more characters come: text that might have become something else."""


class Dialect(Protocol):
    """One tool-call format."""

    @property
    def name(self) -> str:
        """The name in `ToolCalls.dialect`."""

    @property
    def marker(self) -> str:
        """What stands before each JSON text of calls; "" where an answer begins with one or is text throughout."""

    @property
    def calls_are(self) -> str:
        """The JSON type of an answer of calls; "" where the marker tells."""

    @property
    def tells(self) -> tuple[str, ...]:
        """The members that calls begin with: an answer schema must not allow a value of type `calls_are` that has them
        all. Empty where a value of that type can hold no such mark, and an answer must be of another type."""

    @property
    def calls_at(self) -> tuple[str, ...] | None:
        """Names of the members that lead to the list of calls; None where each JSON text is one call."""

    @property
    def arguments_at(self) -> str | None:
        """The member of a call that holds its arguments; None where the JSON text is the arguments themselves."""

    @property
    def is_json(self) -> bool:
        """Whether arguments are written as JSON, so that everything that is held of JSON is held of them."""

    @property
    def is_spaced(self) -> bool:
        """Whether models were trained on a space after commas and colons: allowed then, unless the client says."""

    @property
    def text(self) -> str:
        """A regular expression, in Lark's spelling, of the answers that call nothing; "" where the marker tells."""

    @property
    def no_calls(self) -> str:
        """A Lark rule among those of `calls` for an answer of no calls, written like one; "" where such an answer is
        text only."""

    def render(self, tools: Sequence[Tool]) -> str:
        """The tools as prompt text."""

    def present(self, messages: list[dict[str, Any]], tools: Sequence[Tool]) -> list[dict[str, Any]]:
        """The conversation with the tools in it and how to call them, for chat templates that do not show tools."""

    def write(self, calls: Sequence[Call]) -> str:
        """Calls as the model writes them, for templates that do not show earlier calls. `arguments` is JSON text."""

    def result(self, name: str, content: str) -> str:
        """What the tool `name` returned, as a user's turn, for templates that know no role `tool`."""

    def call_id(self, given: str) -> str:
        """The id of a call in the form that templates of this format accept; equal ids stay equal."""

    def lead(self, tool: str) -> str:
        """What stands between a marker and the JSON text of a call, white space aside."""

    def calls(self, names: Sequence[str], *, parallel: bool, spaced: bool) -> str:
        """Lark rules for `calls`, given rules `args_i` for the arguments of `names[i]`; without the first marker.

        spaced: one space may follow each comma and colon.
        """

    def parse(self, text: str, *, after_text: bool = True) -> list[Call] | None:
        """The calls of a whole answer, or None when it is text; an empty list for `no_calls`.

        after_text: text may come before the first marker. Shares nothing with `stream` where a marker is read. Raises
        ValueError for calls that are malformed.
        """

    def stream(self, *, after_text: bool = True) -> StreamParser:
        """A parser of one answer; after_text as in `parse`."""
