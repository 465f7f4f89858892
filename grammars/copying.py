"""Free strings that must occur in a text: an overlay on the masks of another constraint.

    the constraint's mask   {"city":"…   what JSON and the schema allow
    and, inside a free string            what keeps the value a part of the text; the quote once it is not empty

A value that is a part of the text so far can always be closed, and one that is still empty can always begin, so the
overlay by itself leads into no dead end. Where it leaves no token at all, because the vocabulary spells no part of the
text, the constraint's own mask stands, and that string is let go: the validation at the end sees it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from grammars.constraint import Copied
from grammars.copy_source import CopySource, Ids
from grammars.cursor import Event, JsonCursor
from grammars.errors import ConstraintRefused
from grammars.free_strings import FreeStrings
from grammars.matcher import BackendState
from grammars.spellings import QUOTE, Spellings
from grammars.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch


@dataclass(slots=True)
class CopyCursor:
    """Where an answer stands under the rule, byte by byte.

    ends: of the free string being read, in the source; None outside of one. json: None in text, between the calls of a
    format with markers too.
    """

    source: CopySource
    free: FreeStrings
    json: JsonCursor | None
    ends: Ids | None = None
    _has_begun: bool = False
    _call: str = ""
    _tail: bytes = b""  # of the text, while no marker is whole
    _lead: bytes | None = None  # what stands behind the last marker, while no JSON text has begun
    _in_call: bool = False

    @property
    def reads_json(self) -> bool:
        """Whether JSON is read, or may begin with the next byte."""
        return self.json is not None or self._lead is not None

    def fork(self) -> "CopyCursor":
        """An independent copy."""
        json = None if self.json is None else self.json.fork()
        return replace(self, json=json)

    def advance(self, byte: int) -> bool:
        """Take one byte. False when a free string leaves the source or ends empty; it is let go then."""
        if not self._has_begun:
            self._has_begun = True
            self.json = self.json if self.free.reads(byte) else None
        if self.free.marker and not self._in_call:
            self._look_for_call(byte)
        if self.json is None:
            return True
        was_in_string = self.json.is_in_string
        event = self.json.advance(byte)
        if self._in_call and self.json.is_complete:
            self.json, self._in_call = None, False
            return True
        if was_in_string and not self.json.is_in_string:
            return self._close(event)
        if event is Event.VALUE_STARTED and self.json.is_in_string:
            is_free = self.free.is_free(self.json.path, self._call, in_call=self._in_call)
            self.ends = self.source.starts if is_free else None
        elif self.ends is not None:
            self.ends = self.source.step(self.ends, byte)
            if not self.ends.size:
                self.ends = None
                return False
        return True

    def _look_for_call(self, byte: int) -> None:
        """Text before, between and behind calls. `json`, if any, is an answer that is none, and may hold no marker."""
        if self._lead is not None:
            if self.free.begins_call(self._lead, byte):
                self._call, self._lead, self._in_call = self.free.named(self._lead), None, True
                self.json = JsonCursor()
            else:
                self._lead += bytes((byte,))
            return
        if self.json is not None and (self.json.depth or self.json.is_in_string):
            return  # a JSON answer, in whose strings a marker is only text
        marker = self.free.marker
        self._tail = (self._tail + bytes((byte,)))[-len(marker) :]
        if self._tail == marker:
            self._tail, self._lead, self.json = b"", b"", None

    def _close(self, event: Event) -> bool:
        is_empty = self.ends is self.source.starts
        self.ends = None
        is_value = self.json is not None and event is Event.VALUE_ENDED
        if is_value and self.json is not None and self.free.is_name(self.json.path):
            self._call = self.json.last_text
        return not is_empty


@dataclass(frozen=True, slots=True)
class CopyRule:
    """The rule as an overlay of a plan (`plan.Overlay`), for constraints within a combinator."""

    constraint: Copied

    def wrap(self, state: BackendState, vocabulary: Vocabulary, spellings: Spellings) -> BackendState:
        """The start state under the rule. Raises ConstraintRefused as `CopyingState.begin`."""
        start = CopyingState.begin(self.constraint, state, spellings, vocabulary.text_row)
        start.warm_up()
        return start


class CopyingState:
    """The state of another backend, under the rule."""

    __slots__ = ("_cursors", "_inner", "_is_overruled", "_spellings", "_text_row")

    def __init__(
        self, inner: BackendState, cursors: Sequence[CopyCursor], spellings: Spellings, text_row: "torch.Tensor"
    ) -> None:
        """cursors: one before each token taken and one after them. text_row: see `Vocabulary.text_row`."""
        self._inner, self._cursors = inner, list(cursors)
        self._spellings, self._text_row = spellings, text_row
        self._is_overruled: bool | None = None  # at this position, once asked for

    @classmethod
    def begin(
        cls, constraint: Copied, inner: BackendState, spellings: Spellings, text_row: "torch.Tensor"
    ) -> "CopyingState":
        """The start state. inner: that of the inner constraint. Raises ConstraintRefused for a text without a character
        that could be copied."""
        source = CopySource(constraint.text, spellings)
        if not source.starts.size:
            raise ConstraintRefused("copy_strings", "", "the text is empty, so no string occurs in it: give a text")
        return cls(inner, [CopyCursor(source, FreeStrings(constraint.inner), JsonCursor())], spellings, text_row)

    def warm_up(self) -> None:
        """Read the text now, see `CopySource.warm_up`."""
        self._cursors[0].source.warm_up()

    def fill(self, row: "torch.Tensor") -> None:
        """Set the bits of legal tokens. Raises MatcherFailed as the other backend does."""
        self._inner.fill(row)
        row &= self._text_row
        words = row.numpy().view(np.uint32)
        edited = self._edited(words)
        self._is_overruled = not edited.any() and not self._inner.is_accepting
        if not self._is_overruled:
            words[:] = edited

    def advance(self, token_id: int) -> bool:
        """Take a token; an illegal one leaves the state as it is."""
        cursor = self._cursors[-1].fork()
        follows = [cursor.advance(byte) for byte in self._spellings.by_id[token_id]]
        if not (all(follows) or self._rule_is_off()) or not self._inner.advance(token_id):
            return False
        self._cursors.append(cursor)
        self._is_overruled = None
        return True

    def rollback(self, n: int) -> None:
        """Undo `n` tokens."""
        self._inner.rollback(n)
        del self._cursors[len(self._cursors) - n :]
        self._is_overruled = None

    def fork(self) -> "CopyingState":
        """An independent copy; cursors that were passed never change, so they are shared."""
        return CopyingState(self._inner.fork(), self._cursors, self._spellings, self._text_row)

    def forced_bytes(self) -> bytes:
        """What the other backend forces: fewer continuations share no less."""
        return self._inner.forced_bytes()

    @property
    def is_accepting(self) -> bool:
        """Whether the text so far is a whole sentence."""
        return self._inner.is_accepting

    def _rule_is_off(self) -> bool:
        """Whether the rule leaves no token at this position."""
        if self._is_overruled is None:
            import torch

            self.fill(torch.zeros_like(self._text_row))
        return bool(self._is_overruled)

    def _edited(self, words: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """The mask without the tokens that break the rule."""
        cursor = self._cursors[-1]
        if cursor.ends is None:
            # Outside, only a token that opens a free string and runs on can break it.
            risky = _held(words, self._spellings.opening)
            return words & ~_mask(self._following(risky)[1], words.size) if cursor.reads_json else words
        # Inside, what the source goes on with is listed; what closes the string is tried.
        listed = _held(words, cursor.source.tokens(cursor.ends))
        begins = cursor.source.next_bytes(cursor.ends)
        begins[QUOTE] = True
        quoted = _held(words, self._spellings.quoted)
        closing, _ = self._following(quoted[begins[self._spellings.first[quoted]]])
        return _mask(np.concatenate([listed, closing]), words.size)

    def _following(self, ids: Ids) -> tuple[Ids, Ids]:
        """`ids`, in the order of their bytes, parted into those that keep to the rule and those that break it.

        Neighbours share their first bytes, so the cursors along the last token tried are kept.
        """
        kept: list[int] = []
        broken: list[int] = []
        cursors, last, dead = [self._cursors[-1]], b"", None
        for token_id in ids.tolist():
            spelling = self._spellings.by_id[token_id]
            if dead is not None and spelling.startswith(dead):
                broken.append(token_id)
                continue
            del cursors[1 + _n_shared(last, spelling) :]
            last = spelling
            for n in range(len(cursors) - 1, len(spelling)):
                if cursors[-1].ends is None and spelling.find(QUOTE, n, -1) < 0:
                    kept.append(token_id)  # opens no string that it could run into
                    break
                cursor = cursors[-1].fork()
                if not cursor.advance(spelling[n]):
                    dead = spelling[: n + 1]
                    broken.append(token_id)
                    break
                cursors.append(cursor)
            else:
                kept.append(token_id)
        return np.array(kept, dtype=np.int64), np.array(broken, dtype=np.int64)


def _held(words: NDArray[np.uint32], ids: Ids) -> Ids:
    """Those of `ids` whose bits are set."""
    return np.asarray(ids[(words[ids >> 5] >> (ids & 31).astype(np.uint32) & 1) == 1])


def _mask(ids: Ids, n_words: int) -> NDArray[np.uint32]:
    words = np.zeros(n_words, dtype=np.uint32)
    np.bitwise_or.at(words, ids >> 5, np.uint32(1) << (ids & 31).astype(np.uint32))
    return words


def _n_shared(a: bytes, b: bytes) -> int:
    """Length of the common beginning."""
    most = min(len(a), len(b))
    return next((i for i in range(most) if a[i] != b[i]), most)
