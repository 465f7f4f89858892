"""Messages on a blocking socket or pipe: each a little-endian uint32 length and that many bytes of msgpack.

    parent --Setup, Job--> the server --Job--> a worker
    parent <--Ready, Verdict-- the server <--Verdict-- a worker

Plain structs only, so that nothing which arrives can build anything else: never pickle.
"""

import struct
from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec

from grammars.constraint import Constraint, Whitespace
from grammars.limits import Limits
from grammars.plan import AnyPlan, Plan

_HEADER: Final = struct.Struct("<I")
MAX_FRAME_BYTES: Final = 128 << 20


class Setup(msgspec.Struct, frozen=True, tag="setup"):
    """The first message: a vocabulary and the bounds of every job.

    tokenizer: the text of tokenizer.json. size: width of a row of logits. stop_ids: what ends an answer. silent_ids:
    what never carries text. cpu_s: CPU time of one job. memory_bytes: address space that a job may take beside what
    the process had.
    """

    tokenizer: str
    size: int
    stop_ids: tuple[int, ...]
    silent_ids: frozenset[int]
    whitespace: Whitespace
    limits: Limits
    cpu_s: float
    memory_bytes: int
    nice: int
    at_once: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The vocabulary has been read."""


class Job(msgspec.Struct, frozen=True, tag="job"):
    """Plan, compile and fill the first mask. wall_s: from its arrival to its verdict."""

    id: int
    wall_s: float
    constraint: Constraint


class TextPlan(msgspec.Struct, frozen=True):
    """A plan that is no more than the text which a backend compiles; see `Plan`."""

    backend: Literal["llguidance", "xgrammar", "outlines"]
    source: str
    keyword: str
    warnings: tuple[str, ...]
    uses: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, plan: AnyPlan) -> "TextPlan | None":
        """The same plan as plain data; None where it holds more than text."""
        if not isinstance(plan, Plan) or plan.overlays or plan.separations:
            return None
        return cls(plan.backend, plan.source, plan.keyword, plan.warnings, plan.uses)

    def plan(self) -> Plan:
        """As `Backends.start` takes it."""
        return Plan(self.backend, self.source, self.keyword, self.warnings, self.uses)


class Verdict(msgspec.Struct, frozen=True, tag="verdict"):
    """How a job ended.

    `fits`: it was compiled within its bounds; `refused`: with keyword, pointer and reason; `cpu`, `memory`, `crash`:
    what killed it; `late`: the wall clock, which says nothing about the constraint. plan: None where it is more than
    text. n_bytes: what it left allocated, None where the platform does not say.
    """

    id: int
    kind: Literal["fits", "refused", "cpu", "memory", "crash", "late"]
    plan: TextPlan | None = None
    n_bytes: int | None = None
    keyword: str = ""
    pointer: str = ""
    reason: str = ""


def encode(message: Any) -> bytes:
    """One frame."""
    body = msgspec.msgpack.encode(message)
    return _HEADER.pack(len(body)) + body


class Frames:
    """Cuts a byte stream into messages of the given types."""

    def __init__(self, *types: Any) -> None:
        kind = types[0]
        for other in types[1:]:
            kind = kind | other
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(kind)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """The messages that `data` completes. Raises ValueError for what is no message of the given types."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {length} bytes is above {MAX_FRAME_BYTES}")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield self._decoder.decode(body)
