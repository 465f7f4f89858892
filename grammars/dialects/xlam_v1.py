"""xLAM v1 (function calling): `{"tool_calls":[{"name":"f","arguments":{…}},…]}`."""

from collections.abc import Sequence

from grammars.constraint import Tool
from grammars.dialects.call_list import CallListParser, list_rules, read_calls, render_tools
from grammars.dialects.dialect import Call, StreamParser


class XlamV1:
    """The format of xLAM-1b-fc-r and xLAM-7b-fc-r, without white space. No call is text that begins otherwise."""

    name = "xlam_v1"
    calls_are = "object"
    calls_at: tuple[str, ...] = ("tool_calls",)
    text = r"[^\{][\s\S]*"

    def render(self, tools: Sequence[Tool]) -> str:
        """A JSON list of the tools."""
        return render_tools(tools)

    def calls(self, names: Sequence[str], *, parallel: bool, spaced: bool) -> str:
        """Lark rules for `calls`."""
        opening = '"{\\"tool_calls\\"" colon' if spaced else '"{\\"tool_calls\\":"'
        return f'calls: {opening} call_list "}}"\n' + list_rules(names, parallel=parallel, spaced=spaced)

    def parse(self, text: str) -> list[Call] | None:
        """The calls of a whole answer, or None when it does not begin with `{`."""
        return read_calls(self.stream(), text)

    def stream(self) -> StreamParser:
        """A parser of one answer."""
        return CallListParser("{", self.calls_at)
