"""The step loop's sign of life: a page that the engine's process writes and its parent reads.

    child, at each step     beat(ids, expected_s)  ->  [ sequence | expected_s | n_bytes | ids ... ]
    parent, now and then    read()                 <-

A page and not messages, because it says what the loop was doing at the moment it hung or died, however it died, and
because nothing but the loop itself writes it. The sequence is odd while a beat is being written (as in Linux's
seqlock.h), so a process that dies in between leaves no half-written ids to be believed.
"""

import mmap
import os
import struct
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import msgspec

__all__ = ["Beat", "HeartbeatPage", "NoPulse", "Pulse", "Silence"]

_HEADER = struct.Struct("=QdI")  # sequence, expected_s, n_bytes
_N_BYTES = 1 << 16
_TOO_MANY = 2**32 - 1


class Pulse(Protocol):
    """Where a step loop says what it does."""

    def beat(self, ids: Iterable[str], expected_s: float = 0.0) -> None:
        """From now on the loop works for these requests, and should come back within about `expected_s`."""


class NoPulse:
    """For a loop that nobody watches."""

    def beat(self, ids: Iterable[str], expected_s: float = 0.0) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Beat:
    """sequence: differs from that of every other beat. ids: whom the loop worked for, None where that is unknown."""

    sequence: int
    expected_s: float
    ids: frozenset[str] | None


class HeartbeatPage:
    """`create` in the parent, `attach` in the child to which `fd` was passed; `close` on both sides."""

    def __init__(self, fd: int) -> None:
        """fd: of a file of one page; it belongs to this object from now on."""
        self.fd = fd
        self._page = mmap.mmap(fd, _N_BYTES)
        self._sequence = 0

    @classmethod
    def create(cls) -> "HeartbeatPage":
        """A page that has no name anywhere: it is gone when both processes are."""
        if sys.platform == "linux":
            fd = os.memfd_create("pointsman-heartbeat")
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, _N_BYTES)
        return cls(fd)

    def beat(self, ids: Iterable[str], expected_s: float = 0.0) -> None:
        """See Pulse. Too many ids for the page count as unknown."""
        body = msgspec.msgpack.encode(list(ids))
        n_bytes = len(body) if _HEADER.size + len(body) <= _N_BYTES else _TOO_MANY
        _HEADER.pack_into(self._page, 0, self._sequence + 1, expected_s, n_bytes)
        if n_bytes != _TOO_MANY:
            self._page[_HEADER.size : _HEADER.size + n_bytes] = body
        self._sequence += 2
        _HEADER.pack_into(self._page, 0, self._sequence, expected_s, n_bytes)

    def read(self) -> Beat:
        """The last beat. Before the first one its sequence is 0, and nobody was worked for."""
        sequence, expected_s, n_bytes = _HEADER.unpack_from(self._page)
        if sequence == 0:
            return Beat(0, 0.0, frozenset())
        if sequence % 2 or n_bytes == _TOO_MANY:
            return Beat(sequence, expected_s, None)
        try:
            ids = msgspec.msgpack.decode(self._page[_HEADER.size : _HEADER.size + n_bytes], type=frozenset[str])
        except (msgspec.DecodeError, UnicodeDecodeError):  # the next beat is being written just now
            ids = None
        return Beat(sequence, expected_s, ids)

    def close(self) -> None:
        """Give the page back. Calling it again does nothing."""
        if not self._page.closed:
            self._page.close()
            os.close(self.fd)


class Silence:
    """How long a loop has shown no sign of life, by the clock of who watches it.

    A pause between two looks counts as at most `max_pause_s`: after a watcher was held up, or the whole machine was
    suspended, the loop gets its chance to beat before it is called silent.
    """

    def __init__(self, max_pause_s: float) -> None:
        self._max_pause_s = max_pause_s
        self._sequence: int | None = None
        self._looked_s = 0.0
        self.seconds = 0.0

    def look(self, sequence: int, now_s: float) -> float:
        """Seconds of silence, now that a look at `now_s` found the beat `sequence`."""
        if sequence != self._sequence:
            self.seconds = 0.0
        else:
            self.seconds += min(now_s - self._looked_s, self._max_pause_s)
        self._sequence, self._looked_s = sequence, now_s
        return self.seconds
