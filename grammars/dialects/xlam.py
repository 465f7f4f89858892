"""xLAM-2: a bare list of calls, `[{"name":"f","arguments":{…}},…]`, or plain text."""

from collections.abc import Sequence

from grammars.constraint import Tool
from grammars.dialects.call_list import CallListParser, list_rules, read_calls, render_tools
from grammars.dialects.dialect import Call, StreamParser


class Xlam:
    """The format of xLAM-2 (`salesforce_qwen.py` in gorilla), without white space. No call is text, never `[]`."""

    name = "xlam"
    calls_are = "array"
    calls_at: tuple[str, ...] = ()
    text = r"[^\[][\s\S]*"

    def render(self, tools: Sequence[Tool]) -> str:
        """A JSON list of the tools."""
        return render_tools(tools)

    def calls(self, names: Sequence[str], *, parallel: bool, spaced: bool) -> str:
        """Lark rules for `calls`."""
        return "calls: call_list\n" + list_rules(names, parallel=parallel, spaced=spaced)

    def parse(self, text: str) -> list[Call] | None:
        """The calls of a whole answer, or None when it does not begin with `[`."""
        return read_calls(self.stream(), text)

    def stream(self) -> StreamParser:
        """A parser of one answer."""
        return CallListParser("[", self.calls_at)
