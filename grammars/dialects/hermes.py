"""Hermes, Qwen2.5 and Qwen3: calls in `<tool_call>` tags, which may follow text."""

import json
from collections.abc import Sequence
from typing import Any

from grammars.constraint import Tool
from grammars.dialects.base import BaseDialect, with_system
from grammars.dialects.call_reader import CallReader, read_whole_call
from grammars.dialects.call_rules import definitions, object_rules, separators, written
from grammars.dialects.dialect import Call, StreamParser
from grammars.dialects.marked import MarkedParser

_END = "</tool_call>"


class Hermes(BaseDialect):
    """`<tool_call>⏎{"name": "f", "arguments": {…}}⏎</tool_call>`, one after the other in lines of their own
    (`qwen_fc.py` in gorilla). In most tokenizers each tag is one token; it may be spelled out as well.
    """

    name = "hermes"
    marker = "<tool_call>"
    calls_are = ""
    calls_at: tuple[str, ...] | None = None
    text = ""

    def render(self, tools: Sequence[Tool]) -> str:
        """One tool a line, as OpenAI writes it."""
        return "\n".join(json.dumps(one, ensure_ascii=False) for one in definitions(tools))

    def present(self, messages: list[dict[str, Any]], tools: Sequence[Tool]) -> list[dict[str, Any]]:
        """The conversation with the tools between tags in its first system turn."""
        example = self.write([Call("function", '{"parameter": "value"}')])
        text = (
            f"# Tools\n\nThese functions can be called:\n<tools>\n{self.render(tools)}\n</tools>\n\n"
            f"For each call, write its name and arguments as JSON between tags:\n{example}"
        )
        return with_system(messages, text)

    def write(self, calls: Sequence[Call]) -> str:
        """A tagged object for each call."""
        return "\n".join(f"{self.marker}\n{written(call)}\n{_END}" for call in calls)

    def result(self, name: str, content: str) -> str:  # noqa: ARG002 - the protocol's
        """What was returned, between tags."""
        return f"<tool_response>\n{content}\n</tool_response>"

    def calls(self, names: Sequence[str], *, parallel: bool, spaced: bool) -> str:
        """Lark rules for `calls`."""
        more = f" ({json.dumps(chr(10) + self.marker)} call)*" if parallel else ""
        rules = object_rules(names, arguments="arguments", spaced=spaced, before="\n", after=f"\n{_END}")
        return "\n".join([f"calls: call{more}", rules, *separators(spaced=spaced, parallel=False)])

    def parse(self, text: str, *, after_text: bool = True) -> list[Call] | None:
        """The calls of a whole answer, or None when it holds no marker."""
        at = text.find(self.marker)
        if at < 0 or (text[:at].strip() and not after_text):
            return None
        calls: list[Call] = []
        while True:
            call, end = read_whole_call(text, at + len(self.marker) + 1)
            calls.append(call)
            if text[at + len(self.marker)] != "\n" or not text.startswith(f"\n{_END}", end):
                raise ValueError(f"call {len(calls)} is not in lines of its own between tags")
            at = end + 1 + len(_END)
            if at == len(text):
                return calls
            if not text.startswith(f"\n{self.marker}", at):
                raise ValueError(f"text follows call {len(calls)}")
            at += 1

    def stream(self, *, after_text: bool = True) -> StreamParser:
        """A parser of one answer."""
        return MarkedParser(self.marker, lambda first: CallReader(None, first=first), after_text=after_text)
