"""Row identifiers: UUID version 7 (RFC 9562), which sort by the time they were made."""

import os
import time
import uuid


def new_id() -> uuid.UUID:
    """A new UUIDv7: 48 bits of Unix milliseconds, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (1 << 48) - 1) << 80
    value |= 0x7 << 76 | (random >> 62 & 0xFFF) << 64  # version, rand_a
    value |= 0b10 << 62 | random & (1 << 62) - 1  # variant, rand_b
    return uuid.UUID(int=value)


def made_at_s(identifier: uuid.UUID) -> float:
    """Unix seconds at which a UUIDv7 was made, to the millisecond."""
    return (identifier.int >> 80) / 1000
