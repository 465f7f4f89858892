"""Mistral v11 and later: `[TOOL_CALLS]f[ARGS]{…}` for each call, which may follow text."""

import json
from collections.abc import Sequence
from typing import Final

from grammars.dialects.call_reader import CallReader, add_fragment, read_whole_value
from grammars.dialects.dialect import Call, CallEvent, CallStarted, StreamParser
from grammars.dialects.marked import MarkedParser
from grammars.dialects.mistral import Mistral

ARGUMENTS: Final = "[ARGS]"


class MistralV11(Mistral):
    """A marker, the name, a second marker and the arguments, for each call."""

    name = "mistral_v11"
    calls_at: tuple[str, ...] | None = None
    arguments_at: str | None = None

    def write(self, calls: Sequence[Call]) -> str:
        """Name and arguments of each call behind its markers."""
        return "".join(f"{self.marker}{call.name}{ARGUMENTS}{call.arguments}" for call in calls)

    def lead(self, tool: str) -> str:
        """The name and the second marker."""
        return tool + ARGUMENTS

    def calls(self, names: Sequence[str], *, parallel: bool, spaced: bool) -> str:  # noqa: ARG002 - the protocol's
        """Lark rules for `calls`."""
        more = f" ({json.dumps(self.marker)} call)*" if parallel else ""
        lines = [f"calls: call{more}", "call: " + " | ".join(f"call_{i}" for i in range(len(names)))]
        lines += [f"call_{i}: {json.dumps(name + ARGUMENTS)} args_{i}" for i, name in enumerate(names)]
        return "\n".join(lines)

    def parse(self, text: str, *, after_text: bool = True) -> list[Call] | None:
        """The calls of a whole answer, or None when it holds no marker."""
        at = text.find(self.marker)
        if at < 0 or (text[:at].strip() and not after_text):
            return None
        calls: list[Call] = []
        while text.startswith(self.marker, at):
            at += len(self.marker)
            end = text.find(ARGUMENTS, at)
            if end < 0:
                raise ValueError(f"call {len(calls) + 1} has no arguments")
            name = text[at:end]
            arguments, at = read_whole_value(text, end + len(ARGUMENTS))
            calls.append(Call(name, arguments))
        if at != len(text):
            raise ValueError(f"text follows call {len(calls)}")
        return calls

    def stream(self, *, after_text: bool = True) -> StreamParser:
        """A parser of one answer."""
        return MarkedParser(self.marker, _NamedReader, after_text=after_text)


class _NamedReader:
    """Reads `f[ARGS]{…}`."""

    def __init__(self, first: int) -> None:
        self._first, self._name = first, ""
        self._arguments: CallReader | None = None
        self.n_calls = 0

    @property
    def is_complete(self) -> bool:
        """Whether the arguments have ended."""
        return self._arguments is not None and self._arguments.is_complete

    def read(self, char: str, events: list[CallEvent]) -> None:
        """Take a character."""
        if self._arguments is not None:
            self._arguments.read(char, [])
            add_fragment(events, self._first, char)
            return
        self._name += char
        if self._name.endswith(ARGUMENTS):
            events.append(CallStarted(self._first, self._name.removesuffix(ARGUMENTS)))
            self._arguments, self.n_calls = CallReader(None), 1
