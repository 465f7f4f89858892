"""Checksummed frames in a file that a crash may cut short or a disk may damage.

    magic (4 bytes) | length of the payload (u32) | CRC-32 of length and payload (u32) | payload          little-endian

A reader skips what is damaged and goes on at the next magic. The magic is not valid UTF-8, so no text inside a payload
can look like the start of a frame.
"""

import struct
import zlib
from typing import Final

MAGIC: Final = b"\xf5\xffP\x01"
_HEADER: Final = struct.Struct("<4sII")
_LENGTH: Final = struct.Struct("<I")


def encode_frame(payload: bytes) -> bytes:
    """The payload in its frame."""
    return _HEADER.pack(MAGIC, len(payload), _checksum(payload)) + payload


def read_frames(data: bytes) -> tuple[list[bytes], int]:
    """The payloads of all intact frames in order, and how many bytes belong to none."""
    payloads: list[bytes] = []
    damaged = position = 0
    while (start := data.find(MAGIC, position)) >= 0:
        damaged += start - position
        payload = _payload_at(data, start)
        if payload is None:
            damaged += 1
            position = start + 1
        else:
            payloads.append(payload)
            position = start + _HEADER.size + len(payload)
    return payloads, damaged + len(data) - position


def _payload_at(data: bytes, start: int) -> bytes | None:
    if start + _HEADER.size > len(data):
        return None
    _, length, checksum = _HEADER.unpack_from(data, start)
    payload = data[start + _HEADER.size : start + _HEADER.size + length]
    return payload if len(payload) == length and _checksum(payload) == checksum else None


def _checksum(payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_LENGTH.pack(len(payload))))
