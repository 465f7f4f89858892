"""Which model answered a conversation last, remembered for a while: by hashes only, no text is kept.

A conversation has the name that the client gives it. Without one it is known by its messages: a request continues the
conversation whose messages are its longest proper beginning, since a client sends back all that was said and adds to
it. The hashes have a key of their own in every process, so that nobody can try out texts on those in the records.
"""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

CAPACITY = 65_536
"""Conversations remembered; beyond it the one that was quiet longest is forgotten. Some 300 bytes each."""


@dataclass(frozen=True, slots=True)
class Past:
    """A conversation as its last answer left it.

    id: the same in all its turns, hexadecimal. model: alias of who answered. scope: of the prefix cache that holds its
    prompts. prompts: by alias the tokens of the last prompt that this model has seen.
    """

    id: str
    model: str
    scope: str = ""
    prompts: Mapping[str, int] = field(default_factory=dict)

    def warm_tokens(self, alias: str, scope: str) -> int:
        """Prompt tokens that this model has probably in its cache: none under another scope."""
        return self.prompts.get(alias, 0) if scope == self.scope else 0


@dataclass(frozen=True, slots=True)
class SessionKey:
    """Where a request belongs. key: under which it is remembered once it was answered; past: what it continues."""

    key: bytes
    past: Past | None = None

    @property
    def id(self) -> str:
        """The conversation's own name for decision rows, hexadecimal."""
        return self.key.hex() if self.past is None else self.past.id


class Sessions:
    """Bounded, and forgetful after idle_s. Used from one thread at a time, but for `find`, which reads only."""

    def __init__(
        self, *, idle_s: float = 3600.0, capacity: int = CAPACITY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._idle_s, self._capacity, self._clock = idle_s, capacity, clock
        self._key = secrets.token_bytes(32)
        self._entries: OrderedDict[bytes, tuple[float, Past]] = OrderedDict()

    def __len__(self) -> int:
        """Conversations that are remembered, idle ones included."""
        return len(self._entries)

    def find(self, tenant: str, name: str | None, messages: Iterable[bytes]) -> SessionKey:
        """Where a request belongs.

        name: the client's own for the conversation; messages: one at least, each in any form that is equal for equal
        messages.
        """
        if name is not None:
            key = self._digest(b"name", tenant.encode(), name.encode())
            return SessionKey(key, self._get(key))
        beginning = self._digest(b"messages", tenant.encode())
        chain = [beginning := self._digest(beginning, message) for message in messages]
        past = next((found for key in reversed(chain[:-1]) if (found := self._get(key)) is not None), None)
        return SessionKey(chain[-1], past)

    def answered(self, session: SessionKey, model: str, *, scope: str, prompts: Mapping[str, int]) -> None:
        """Remember who answered. prompts: tokens of the prompt by alias of each model that computed it."""
        past = session.past
        known = past.prompts if past is not None and past.scope == scope else {}
        entry = Past(session.id, model, scope, {**known, **prompts})
        self._entries[session.key] = (self._clock(), entry)
        self._entries.move_to_end(session.key)
        self._forget()

    def _get(self, key: bytes) -> Past | None:
        entry = self._entries.get(key)
        return None if entry is None or self._clock() - entry[0] > self._idle_s else entry[1]

    def _forget(self) -> None:
        """Drop what is over the capacity, and what is idle: the oldest entries come first."""
        limit = self._clock() - self._idle_s
        while self._entries:
            key, (seen_s, _) = next(iter(self._entries.items()))
            if len(self._entries) <= self._capacity and seen_s >= limit:
                return
            del self._entries[key]

    def _digest(self, *parts: bytes) -> bytes:
        """Keyed BLAKE2b-128 over the parts, each with its length in front so that none runs on."""
        state = hashlib.blake2b(digest_size=16, key=self._key)
        for part in parts:
            state.update(len(part).to_bytes(8, "big"))
            state.update(part)
        return state.digest()
