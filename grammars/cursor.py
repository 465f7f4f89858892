"""A byte-level JSON cursor: where in a document a stream of bytes stands. It depends on no grammar backend.

It follows well-formed JSON and does not judge it: what it reads was written under a grammar.
"""

import json
from dataclasses import dataclass, field
from enum import Enum


class Event(Enum):
    """What a byte did. A number or literal ends with the byte *after* its last one, a byte of what surrounds it."""

    NONE = "none"
    VALUE_STARTED = "value started"
    VALUE_ENDED = "value ended"
    TWO_VALUES_ENDED = "a number or literal ended, and the array or object around it"
    KEY_ENDED = "key ended"


@dataclass(slots=True)
class _Level:
    """An open array or object."""

    is_object: bool
    step: str | int
    expects_key: bool


@dataclass(slots=True)
class JsonCursor:
    """Feed bytes with `advance`; ask for `path` and `depth` at any time."""

    _levels: list[_Level] = field(default_factory=list)
    _string: bytearray | None = None
    _escaped: bool = False
    _in_scalar: bool = False
    _is_key: bool = False
    is_complete: bool = False
    last_text: str = ""

    @property
    def path(self) -> tuple[str | int, ...]:
        """Member names and positions that lead to the value being read (or about to be)."""
        return tuple(level.step for level in self._levels)

    @property
    def depth(self) -> int:
        """Open arrays and objects."""
        return len(self._levels)

    @property
    def is_in_string(self) -> bool:
        """Inside a string, a key included: between its quotes."""
        return self._string is not None

    def fork(self) -> "JsonCursor":
        """An independent copy."""
        levels = [_Level(level.is_object, level.step, level.expects_key) for level in self._levels]
        string = None if self._string is None else self._string[:]
        return JsonCursor(
            levels, string, self._escaped, self._in_scalar, self._is_key, self.is_complete, self.last_text
        )

    def advance(self, byte: int) -> Event:
        """Take one byte. After KEY_ENDED or the VALUE_ENDED of a string, `last_text` is the decoded text."""
        if self._string is not None:
            return self._in_string(byte)
        if self._in_scalar and byte in b",]} \t\r\n":
            self._in_scalar = False
            is_container = self._surround(byte) is Event.VALUE_ENDED
            return Event.TWO_VALUES_ENDED if is_container else Event.VALUE_ENDED
        if self._in_scalar:
            return Event.NONE
        if byte == 0x22:
            self._string = bytearray(b'"')
            self._is_key = bool(self._levels) and self._levels[-1].expects_key
            return Event.NONE if self._is_key else Event.VALUE_STARTED
        if byte in b"{[":
            self._levels.append(_Level(byte == 0x7B, "" if byte == 0x7B else 0, byte == 0x7B))
            return Event.VALUE_STARTED
        if byte in b",:]} \t\r\n":
            return self._surround(byte)
        self._in_scalar = True
        return Event.VALUE_STARTED

    def _surround(self, byte: int) -> Event:
        """Punctuation and white space."""
        if byte == 0x2C and self._levels:
            level = self._levels[-1]
            level.expects_key = level.is_object
            if isinstance(level.step, int):
                level.step += 1
        elif byte in b"]}" and self._levels:
            self._levels.pop()
            self.is_complete = not self._levels
            return Event.VALUE_ENDED
        return Event.NONE

    def _in_string(self, byte: int) -> Event:
        string = self._string
        if string is None:
            return Event.NONE
        string.append(byte)
        if self._escaped:
            self._escaped = False
        elif byte == 0x5C:
            self._escaped = True
        elif byte == 0x22:
            self.last_text = _decoded(string)
            self._string = None
            if self._is_key:
                level = self._levels[-1]
                level.step, level.expects_key = self.last_text, False
                return Event.KEY_ENDED
            self.is_complete = not self._levels
            return Event.VALUE_ENDED
        return Event.NONE


def _decoded(string: bytearray) -> str:
    """The text of a JSON string; one that is no JSON, from an answer without a grammar, is taken as it stands."""
    try:
        return str(json.loads(string))
    except ValueError:
        return string[1:-1].decode("utf-8", "replace")
