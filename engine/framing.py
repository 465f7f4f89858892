"""Messages on a byte stream: each is a little-endian uint32 length and that many bytes of msgpack.

Decoding a tagged msgspec union can only ever build the structs it names, which is why nothing here is pickled.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

__all__ = ["MAX_FRAME_BYTES", "FrameDecoder", "FramingError", "encode"]

MAX_FRAME_BYTES = 64 * 2**20
_HEADER = struct.Struct("<I")
M = TypeVar("M")


class FramingError(ValueError):
    """The bytes are no message that this side knows: both ends must run the same version."""


def encode(message: Any) -> bytes:
    """One frame. Raises FramingError for a message above MAX_FRAME_BYTES."""
    body = msgspec.msgpack.encode(message, enc_hook=_plain)
    if len(body) > MAX_FRAME_BYTES:
        raise FramingError(f"a message of {len(body)} bytes is above the limit of {MAX_FRAME_BYTES}")
    return _HEADER.pack(len(body)) + body


class FrameDecoder(Generic[M]):
    """Cuts a byte stream into messages of one (union) type."""

    def __init__(self, type: Any) -> None:
        self._decoder = msgspec.msgpack.Decoder(type, dec_hook=_from_plain)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[M]:
        """The messages that `data` completes. Raises FramingError, after which the stream is of no more use."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise FramingError(f"a message of {length} bytes is above the limit of {MAX_FRAME_BYTES}")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            try:
                message: M = self._decoder.decode(body)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                raise FramingError(f"a message could not be read: {error}") from error
            yield message


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} does not travel between processes")


def _from_plain(type: type, value: Any) -> Any:
    if type is Path:
        return Path(value)
    raise NotImplementedError(f"{type.__name__} does not travel between processes")
