"""What most tool-call formats have in common: how tools, earlier calls and results are put into a conversation."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from grammars.constraint import Tool
from grammars.dialects.call_list import CallListParser
from grammars.dialects.call_reader import joined
from grammars.dialects.call_rules import described, written
from grammars.dialects.dialect import Call, StreamParser


class BaseDialect(ABC):
    """The defaults of `Dialect`: those of a format without a marker, whose calls are one JSON list. Subclasses say what
    differs.
    """

    name = ""
    marker = ""
    calls_are = "array"
    tells: tuple[str, ...] = ()
    calls_at: tuple[str, ...] | None = ()
    arguments_at: str | None = "arguments"
    is_json = True
    is_spaced = True
    text = r"[^\[][\s\S]*"
    no_calls = ""

    def render(self, tools: Sequence[Tool]) -> str:
        """A JSON list of the tools."""
        return json.dumps(described(tools), ensure_ascii=False)

    def present(self, messages: list[dict[str, Any]], tools: Sequence[Tool]) -> list[dict[str, Any]]:
        """The conversation with the tools at the end of its first system turn."""
        example = self.write(
            [Call("function", '{"parameter": "value"}' if self.is_spaced else '{"parameter":"value"}')]
        )
        text = f"You can call these functions:\n{self.render(tools)}\nTo call them, answer only with {example}"
        return with_system(messages, text)

    def write(self, calls: Sequence[Call]) -> str:
        """A list of objects."""
        comma = ", " if self.is_spaced else ","
        return "[" + comma.join(written(call, spaced=self.is_spaced) for call in calls) + "]"

    def result(self, name: str, content: str) -> str:
        """The name and what it returned."""
        return f"{name} returned: {content}" if name else f"The call returned: {content}"

    def call_id(self, given: str) -> str:
        """As it was given."""
        return given

    def lead(self, tool: str) -> str:  # noqa: ARG002 - the protocol's
        """Nothing."""
        return ""

    @abstractmethod
    def calls(self, names: Sequence[str], *, parallel: bool, spaced: bool) -> str:
        """Lark rules for `calls`."""

    def parse(self, text: str, *, after_text: bool = True) -> list[Call] | None:
        """The calls of a whole answer, or None when it does not begin like one."""
        if not after_text and self.tells and first_members(text, len(self.tells)) != self.tells:
            return None
        calls = joined(self.stream().feed(text))
        if calls is None and text.startswith("[" if self.calls_are == "array" else "{"):
            return []
        return calls

    def stream(self, *, after_text: bool = True) -> StreamParser:
        """A parser of one answer."""
        opening = "[" if self.calls_are == "array" else "{"
        tells = () if after_text else self.tells
        return CallListParser(opening, self.calls_at, self.arguments_at or "arguments", tells=tells)


def first_members(text: str, n: int) -> tuple[str, ...]:
    """The names of the first members of a JSON object; none of what is no object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    return tuple(value)[:n] if isinstance(value, dict) else ()


def with_system(messages: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """The conversation with `text` at the end of its first system turn, or in one of its own."""
    if messages and messages[0]["role"] == "system":
        return [messages[0] | {"content": f"{messages[0]['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]
