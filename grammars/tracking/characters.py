"""The characters of a JSON string, byte by byte: escapes and UTF-8."""

import re
from typing import Final

QUOTE, ESCAPE = 0x22, 0x5C
_ESCAPED: Final = dict(zip(b"bfnrt", b"\b\f\n\r\t", strict=True))
_RUN: Final = re.compile(rb"[\x20\x21\x23-\x5b\x5d-\x7e]*")


def plain_run(data: bytes, start: int) -> int:
    """How many bytes of ASCII text without quotes and escapes begin at `start`."""
    found = _RUN.match(data, start)
    return 0 if found is None else found.end() - start


def read_character(pending: bytes, byte: int) -> tuple[bytes, int | None]:
    """(the beginning of an escape or character after one more byte, the code point that it completed, if any)."""
    if not pending:
        return (bytes((byte,)), None) if byte == ESCAPE or byte >= 0xC0 else (b"", byte)
    pending += bytes((byte,))
    if pending[0] != ESCAPE:
        n = 4 if pending[0] >= 0xF0 else 3 if pending[0] >= 0xE0 else 2
        return (pending, None) if len(pending) < n else (b"", ord(pending.decode("utf-8", "replace")[0]))
    if pending[1] != 0x75:
        return b"", _ESCAPED.get(byte, byte)
    return (pending, None) if len(pending) < 6 else (b"", int(pending[2:], 16))
