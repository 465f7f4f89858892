"""Mistral v3: `[TOOL_CALLS]` and a list of calls, which may follow text."""

import hashlib
from collections.abc import Sequence
from typing import Final

from grammars.dialects.base import BaseDialect
from grammars.dialects.call_reader import CallReader, read_whole_call
from grammars.dialects.call_rules import list_rules
from grammars.dialects.dialect import Call, StreamParser
from grammars.dialects.marked import MarkedParser

_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ID_CHARS: Final = 9


class Mistral(BaseDialect):
    """`[TOOL_CALLS] [{"name": "f", "arguments": {…}}, …]` (`mistral_fc.py` in gorilla), the space as the tokenizer has
    it.
    """

    name = "mistral"
    marker = "[TOOL_CALLS]"
    calls_are = ""
    text = ""

    def write(self, calls: Sequence[Call]) -> str:
        """The list behind the marker."""
        return self.marker + super().write(calls)

    def result(self, name: str, content: str) -> str:  # noqa: ARG002 - the protocol's
        """What was returned, between the format's own marks."""
        return f"[TOOL_RESULTS]{content}[/TOOL_RESULTS]"

    def call_id(self, given: str) -> str:
        """Nine letters and digits, which the templates demand."""
        if len(given) == _ID_CHARS and given.isascii() and given.isalnum():
            return given
        number = int.from_bytes(hashlib.blake2b(given.encode("utf-8", "surrogatepass"), digest_size=8).digest())
        return "".join(_ALPHABET[number // 62**i % 62] for i in range(_ID_CHARS))

    def calls(self, names: Sequence[str], *, parallel: bool, spaced: bool) -> str:
        """Lark rules for `calls`."""
        return 'calls: " "? call_list\n' + list_rules(names, parallel=parallel, spaced=spaced)

    def parse(self, text: str, *, after_text: bool = True) -> list[Call] | None:
        """The calls of a whole answer, or None when it holds no marker."""
        at = text.find(self.marker)
        if at < 0 or (text[:at].strip() and not after_text):
            return None
        at += len(self.marker)
        at += text.startswith(" ", at)
        calls: list[Call] = []
        while text.startswith("," if calls else "[", at):
            at += 1
            at += text.startswith(" ", at) and bool(calls)
            call, at = read_whole_call(text, at)
            calls.append(call)
        if text[at:] != "]":
            raise ValueError(f"the list does not end after {len(calls)} calls")
        return calls

    def stream(self, *, after_text: bool = True) -> StreamParser:
        """A parser of one answer."""
        return MarkedParser(self.marker, lambda first: CallReader((), first=first), after_text=after_text)
