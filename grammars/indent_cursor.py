"""Where an indented JSON text stands, byte by byte, and which byte may come next: the layout of `json.dumps(indent=n)`.

    {⏎··"a": [⏎····1,⏎····2⏎··],⏎··"b": {}⏎}      a line break after `{`, `[` and `,` and before `}` and `]`,
                                                   then the spaces of the depth; one space after `:`; none in `{}`, `[]`

It judges white space alone; that the rest is JSON is the grammar's to say.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto

_SPACE, _BREAK, _QUOTE, _BACKSLASH = 0x20, 0x0A, 0x22, 0x5C
_CLOSERS = {0x7B: 0x7D, 0x5B: 0x5D}


class Place(Enum):
    """What was written last."""

    BEFORE = auto()  # nothing yet, or all white space before a value or a key
    OPENED = auto()  # a bracket
    BREAKING = auto()  # a comma: a line break must follow
    INDENTING = auto()  # a line break and some of its spaces
    STRING = auto()
    SCALAR = auto()  # a part of a number or literal, or all of it
    ENDED = auto()  # a value
    KEY = auto()  # a key
    COLON = auto()


@dataclass(frozen=True, slots=True)
class IndentCursor:
    """One position; `step` gives the next.

    indent: spaces a level. base: so many outer levels are written without white space (the list of calls around their
    arguments). stack: the closers of the open brackets, outermost first. spaces: left to write while INDENTING.
    is_closing: a closer must follow the spaces. is_promise: the line break says what follows, not a comma before it.
    is_key: the string that comes, or is being read, is a key.
    """

    indent: int
    base: int = 0
    place: Place = Place.BEFORE
    stack: bytes = b""
    spaces: int = 0
    is_closing: bool = False
    is_promise: bool = False
    is_key: bool = False
    is_escaped: bool = False

    @property
    def closer(self) -> int:
        """The byte that closes the innermost bracket; 0 outside of all."""
        return self.stack[-1] if self.stack else 0

    @property
    def is_compact(self) -> bool:
        """Whether the innermost bracket belongs to the outer levels."""
        return len(self.stack) <= self.base

    def step(self, byte: int) -> "IndentCursor | None":
        """The position after one more byte; None where the layout has another one there."""
        match self.place:
            case Place.STRING:
                return self._in_string(byte)
            case Place.KEY:
                return replace(self, place=Place.COLON) if byte == 0x3A else None
            case Place.COLON:
                if self.is_compact:
                    return self._begin(byte)
                return replace(self, place=Place.BEFORE) if byte == _SPACE else None
            case Place.BREAKING:
                return self._broken(closing=False, promise=False) if byte == _BREAK else None
            case Place.INDENTING:
                return self._indenting(byte)
            case Place.OPENED:
                if byte == self.closer:
                    return self._closed()
                if self.is_compact:
                    return self._begin(byte)
                return self._broken(closing=False) if byte == _BREAK else None
            case Place.SCALAR | Place.ENDED:
                return self._after_value(byte)
        return self._begin(byte)

    def forced(self) -> bytes:
        """White space and punctuation that must come next whatever the grammar says."""
        match self.place:
            case Place.KEY:
                return b":" if self.is_compact else b": "
            case Place.COLON:
                return b"" if self.is_compact else b" "
            case Place.BREAKING:
                return b"\n" + b" " * self._level(len(self.stack))
            case Place.INDENTING:
                return b" " * self.spaces + (bytes([self.closer]) if self.is_closing else b"")
        return b""

    def _begin(self, byte: int) -> "IndentCursor | None":
        """The first byte of a value or key."""
        if byte == _QUOTE:
            return replace(self, place=Place.STRING, is_promise=False)
        if byte in _CLOSERS:
            stack = self.stack + bytes([_CLOSERS[byte]])
            return replace(self, place=Place.OPENED, stack=stack, is_promise=False, is_key=byte == 0x7B)
        return replace(self, place=Place.SCALAR, is_promise=False) if byte in b"-0123456789tfn" else None

    def _in_string(self, byte: int) -> "IndentCursor":
        if self.is_escaped:
            return replace(self, is_escaped=False)
        if byte == _BACKSLASH:
            return replace(self, is_escaped=True)
        if byte != _QUOTE:
            return self
        return replace(self, place=Place.KEY, is_key=False) if self.is_key else replace(self, place=Place.ENDED)

    def _after_value(self, byte: int) -> "IndentCursor | None":
        if byte == 0x2C and self.stack:
            is_key = self.closer == 0x7D
            return replace(self, place=Place.BEFORE if self.is_compact else Place.BREAKING, is_key=is_key)
        if self.is_compact:
            if byte == self.closer:
                return self._closed()
        elif byte == _BREAK:
            return self._broken(closing=True)
        if self.place is Place.SCALAR and byte in b"+-.0123456789Eaeflnrstu":
            return self
        return None

    def _indenting(self, byte: int) -> "IndentCursor | None":
        if self.spaces:
            return replace(self, spaces=self.spaces - 1) if byte == _SPACE else None
        if self.is_closing:
            return self._closed() if byte == self.closer else None
        return self._begin(byte)

    def _broken(self, *, closing: bool, promise: bool = True) -> "IndentCursor":
        spaces = self._level(len(self.stack) - closing)
        return replace(self, place=Place.INDENTING, spaces=spaces, is_closing=closing, is_promise=promise)

    def _closed(self) -> "IndentCursor":
        return replace(self, place=Place.ENDED, stack=self.stack[:-1], is_closing=False, is_promise=False, is_key=False)

    def _level(self, depth: int) -> int:
        return self.indent * (depth - self.base)
