"""The rows that are not in the database yet, on disk: numbered segments of checksummed frames.

    spool/lock             held by the one process that uses the folder
    spool/00000041.rows    sealed, waits to be inserted
    spool/00000042.rows    active, being appended to
    spool/00000017.damaged inserted as far as it could be read; kept for a person to look at
    spool/refused.rows     rows that the database will never take; kept likewise

A row is appended with one write(2), so it survives the death of the process at once, and a power cut after `sync`.
"""

import asyncio
import errno
import fcntl
import os
from pathlib import Path

import msgspec

from gateway.storage.frames import encode_frame, read_frames
from gateway.storage.records import Record

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class SpoolError(Exception):
    """The spool folder cannot be used; the message says what to change."""


class Spool:
    """Segments in one folder. Not thread-safe: one event loop appends, seals and removes; reading is free."""

    def __init__(self, folder: Path, *, max_bytes: int, segment_bytes: int = 4 << 20) -> None:
        """Open the folder, creating it, and lock it. Raises SpoolError when it is in use or cannot be written."""
        self._folder, self._max_bytes, self._segment_bytes = folder, max_bytes, segment_bytes
        self._encoder = msgspec.msgpack.Encoder()
        self._active: int | None = None
        self._active_bytes = 0
        self._synced: set[Path] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(folder / "lock", _FLAGS, 0o600)
        except OSError as error:
            raise SpoolError(
                f"cannot write to {folder}: {error.strerror}. Set data_dir to a folder that can"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise SpoolError(f"{folder} is used by another Pointsman process: give each its own data_dir") from None
        self._sealed = {path: path.stat().st_size for path in sorted(folder.glob("[0-9]*.rows"))}
        self._next = 1 + max((int(path.stem) for path in self._sealed), default=0)

    @property
    def n_bytes(self) -> int:
        """Bytes that wait on disk."""
        return sum(self._sealed.values()) + self._active_bytes

    def append(self, record: Record) -> None:
        """Append one record. Raises OSError when the disk, or the space set for the spool, is full."""
        frame = encode_frame(self._encoder.encode(record))
        if self.n_bytes + len(frame) > self._max_bytes:
            raise OSError(errno.ENOSPC, "the spool is full")
        if self._active is None:
            self._active = os.open(self._path(self._next), _FLAGS, 0o600)
        written = os.write(self._active, frame)
        self._active_bytes += written
        if written < len(frame):
            raise OSError(errno.ENOSPC, "the disk is full")
        if self._active_bytes >= self._segment_bytes:
            self.seal()

    def sealed(self) -> list[Path]:
        """Segments that are complete, oldest first."""
        return list(self._sealed)

    def seal(self) -> Path | None:
        """End the active segment and return it; None when nothing was appended."""
        if self._active is None:
            return None
        os.close(self._active)
        path = self._path(self._next)
        self._sealed[path] = self._active_bytes
        self._active, self._active_bytes = None, 0
        self._next += 1
        return path

    def remove(self, segment: Path, *, damaged: bool = False) -> None:
        """Forget a segment whose rows are stored; a damaged one is kept under another name."""
        if damaged:
            segment.rename(segment.with_suffix(".damaged"))
        else:
            segment.unlink(missing_ok=True)
        self._sealed.pop(segment, None)
        self._synced.discard(segment)

    def refuse(self, record: Record) -> None:
        """Put a row aside that no database will take. Raises OSError."""
        descriptor = os.open(self._folder / "refused.rows", _FLAGS, 0o600)
        try:
            os.write(descriptor, encode_frame(self._encoder.encode(record)))
        finally:
            os.close(descriptor)

    async def sync(self) -> None:
        """Make everything that was appended survive a power cut. Raises OSError."""
        for segment in [path for path in self._sealed if path not in self._synced]:
            await _fsync(os.open(segment, os.O_RDONLY | os.O_CLOEXEC))
            self._synced.add(segment)
        if self._active is not None:
            await _fsync(os.dup(self._active))  # the original may be closed by `seal` meanwhile

    def close(self) -> None:
        """Seal, and let another process have the folder."""
        self.seal()
        os.close(self._lock)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}.rows"


async def _fsync(descriptor: int) -> None:
    try:
        await asyncio.to_thread(os.fsync, descriptor)
    finally:
        os.close(descriptor)


class Segment(msgspec.Struct, frozen=True):
    """What could be read of a segment, and how many bytes or records could not."""

    records: list[Record]
    damaged_bytes: int


def read_segment(path: Path) -> Segment:
    """All intact records of a segment. Raises OSError."""
    payloads, damaged = read_frames(path.read_bytes())
    records: list[Record] = []
    for payload in payloads:
        try:
            records.append(msgspec.msgpack.decode(payload, type=Record))
        except msgspec.MsgspecError:  # written by another version whose records this one cannot read
            damaged += len(payload)
    return Segment(records, damaged)
