"""A backend's state under the rules of a schema: its masks without the tokens that break a rule.

    the backend's mask   {"tags":["a","   what JSON and the relaxed schema allow
    minus                a"  …            tokens after which no rule can be kept any more
    known                                 the whole row, where the same place was met before

A rule forbids a token only for what its bytes do, one after the other. So a token is tried by reading it from the
position, and only where it may matter: tokens that stay within a string that nothing is said of are not.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from grammars.matcher import BackendState
from grammars.spellings import QUOTE, Spellings
from grammars.tracking.endings import Ending
from grammars.tracking.frame import Key
from grammars.tracking.position import Position
from grammars.tracking.rules import Rules, StringRule
from grammars.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

Ids = NDArray[np.int64]
Words = NDArray[np.uint32]
_LARGE: Final = 8_192
_MOST_SUFFIXES: Final = 512
_UNKNOWN, _DEPENDS = -1, -2
"""Marks of a suffix that was not tried, and of one that depends on more than the value behind a name."""


@dataclass(frozen=True, slots=True)
class Tracking:
    """The overlay of one schema's rules."""

    rules: Rules

    def wrap(self, state: BackendState, vocabulary: Vocabulary, spellings: Spellings) -> BackendState:
        """The start state under the rules. Where there are none, only masks of large vocabularies are worth knowing."""
        if not self.rules.is_held and vocabulary.size < _LARGE:
            return state
        return TrackedState(state, [Position.start(self.rules)], vocabulary, spellings, Shared())


@dataclass(slots=True, eq=False)
class Shared:
    """What the states of one constraint share, and no others. It is part of the key of their masks, which keep it
    alive: so no other constraint can ever be mistaken for it.

    suffixes: for places behind a quote, which suffixes of tokens may follow: 1, 0, or one of the marks above.
    """

    suffixes: dict[Key, NDArray[np.int8]] = field(default_factory=dict)

    def known(self, key: Key | None, n: int) -> NDArray[np.int8]:
        """What is known of the `n` suffixes at the place of `key`, to be completed."""
        found = None if key is None else self.suffixes.get(key)
        if found is None:
            found = np.full(n, _UNKNOWN, dtype=np.int8)
            if key is not None and len(self.suffixes) < _MOST_SUFFIXES:
                self.suffixes[key] = found
        return found


class TrackedState:
    """The state of another backend, and the positions behind its tokens: one more than tokens were taken."""

    __slots__ = ("_inner", "_positions", "_shared", "_spellings", "_vocabulary")

    def __init__(
        self,
        inner: BackendState,
        positions: list[Position],
        vocabulary: Vocabulary,
        spellings: Spellings,
        shared: Shared,
    ) -> None:
        """shared: by the states of one constraint."""
        self._inner, self._positions, self._vocabulary, self._spellings = inner, positions, vocabulary, spellings
        self._shared = shared

    def fill(self, row: "torch.Tensor") -> None:
        """Set the bits of legal tokens. Raises MatcherFailed as the other backend does."""
        position, known = self._positions[-1], self._vocabulary.known_masks
        lengths = self._spellings.lengths
        inner_key = position.key(lengths.reach)
        key = None if inner_key is None else (self._shared, inner_key)
        if key is not None and (found := known.get(key)) is not None:
            row.copy_(found)
            return
        self._inner.fill(row)
        row &= self._vocabulary.text_row
        if position.rules.is_held:
            self._edit(row.numpy().view(np.uint32), position)
        if key is not None:
            known.put(key, row)

    def advance(self, token_id: int) -> bool:
        """Take a token; an illegal one leaves the state as it is, and so does whatever raises."""
        if not self._inner.advance(token_id):
            return False
        following = None
        try:
            following = self._positions[-1].read(self._spellings.by_id[token_id])
        finally:
            if following is None:
                self._inner.rollback(1)
        if following is None:
            return False
        self._positions.append(following)
        return True

    def rollback(self, n: int) -> None:
        """Undo `n` tokens."""
        self._inner.rollback(n)
        del self._positions[len(self._positions) - n :]

    def fork(self) -> "TrackedState":
        """An independent copy; positions never change, so they are shared."""
        return TrackedState(self._inner.fork(), self._positions.copy(), self._vocabulary, self._spellings, self._shared)

    def forced_bytes(self) -> bytes:
        """What the other backend forces: a rule leaves fewer ways, so these bytes stay forced."""
        return self._inner.forced_bytes()

    @property
    def is_accepting(self) -> bool:
        """Whether the text so far is a whole sentence: rules hold at every place where one can end."""
        return self._inner.is_accepting

    def _edit(self, words: Words, position: Position) -> None:
        """Clear the bits of tokens that break a rule."""
        string, ending = position.string, Ending(position)
        is_between = position.pending[:1] != b"\\"  # not within an escape
        if string is not None and is_between:
            self._keep_length(words, position, string)
        if position.is_shut and not position.pending:
            self._choose_name(words, ending)
        elif is_between and position.is_safe(0) and ending.is_alike:
            self._close(words, ending)
        elif (
            is_between
            and position.is_in_string
            and not position.is_shut
            and (position.is_safe(0) or position.dead_names)
        ):
            ids = [i for text in ending.dead_ends() for i in self._spellings.beginnings(text, 0)]
            tried = np.unique(np.concatenate([self._spellings.quoted, np.array(ids, dtype=np.int64)]))
            held = _held(words, tried)
            _clear(words, self._breaking(held[np.argsort(self._spellings.rank[held])]))
        else:
            self._try(words, position)

    def _close(self, words: Words, ending: Ending) -> None:
        """Clear the tokens that end the string or name wrongly; up to its end every character was seen to."""
        closings = self._spellings.closings
        is_held = _are_set(words, closings.ids)
        is_wanted = np.zeros(len(closings.suffixes), dtype=np.bool_)
        is_wanted[closings.suffix[is_held]] = True
        # A bracket may end a value that is judged as a whole: its tokens are tried one by one.
        is_judged = closings.ends_container & ending.may_close_judged
        is_wanted &= ~is_judged
        wanted = np.flatnonzero(is_wanted)
        every = [self._suffixes(after, wanted)[closings.suffix] for after in ending.afters()]
        some_follow = np.logical_or.reduce(every) if every else np.zeros(closings.ids.size, dtype=np.bool_)
        broken, is_unclear = is_held & ~some_follow, np.zeros(closings.ids.size, dtype=np.bool_)
        if len(every) > 1:
            is_unclear = is_held & some_follow & ~np.logical_and.reduce(every)
        is_unclear |= is_held & is_judged[closings.suffix]
        broken &= ~is_judged[closings.suffix]
        specials = ending.special_texts()
        for text in specials:
            where = closings.starting(text)
            broken[where] = False
            is_unclear[where] = is_held[where]
        _clear(words, closings.ids[broken])
        tried = closings.ids[is_unclear]
        if any(b"\\" in text for text in specials):
            tried = np.union1d(tried, _held(words, closings.odd))
        if tried.size:
            _clear(words, self._breaking(tried[np.argsort(self._spellings.rank[tried])]))

    def _suffixes(self, after: Position, wanted: Ids) -> NDArray[np.bool_]:
        """For each suffix of a token that ends a string whether it can follow at `after`, right behind the quote.

        wanted: the indices of those that matter; the others are free. Behind a name most suffixes end within its value:
        these are known for all objects together.
        """
        suffixes = self._spellings.closings.suffixes
        known = self._shared.known(after.key(self._spellings.lengths.reach), len(suffixes))
        missing = wanted[known[wanted] == _UNKNOWN]
        if missing.size and (value := after.value_alone()) is not None:
            alone = self._shared.known(value.key(self._spellings.lengths.reach), len(suffixes))
            for i in missing[alone[missing] == _UNKNOWN].tolist():
                following = value.read(suffixes[i])
                alone[i] = _DEPENDS if following is not None and following.is_done else following is not None
            settled = missing[alone[missing] != _DEPENDS]
            known[settled] = alone[settled]
            missing = missing[alone[missing] == _DEPENDS]
        for i in missing.tolist():
            known[i] = after.read(suffixes[i]) is not None
        return known > 0

    def _choose_name(self, words: Words, ending: Ending) -> None:
        """Keep, where only declared names may come, the tokens that lead to one."""
        spellings = self._spellings
        closings = spellings.closings
        leading: list[int] = []
        tried: list[Ids] = [np.zeros(0, dtype=np.int64)]
        for rest in ending.name_ends():
            leading += spellings.beginnings(rest, 0)
            tried.append(closings.ids[closings.starting(rest)])
        ids = np.unique(np.concatenate([*tried, closings.odd]))
        held = _held(words, ids)
        broken = self._breaking(held[np.argsort(spellings.rank[held])])
        kept = np.concatenate([np.array(leading, dtype=np.int64), np.setdiff1d(held, broken)])
        bits = np.zeros(words.size, dtype=np.uint32)
        np.bitwise_or.at(bits, kept >> 5, np.uint32(1) << (kept & 31).astype(np.uint32))
        words &= bits

    def _try(self, words: Words, position: Position) -> None:
        """Try the tokens at a position where any byte may matter; first those of one first byte together."""
        spellings = self._spellings
        held = _all_held(words, spellings)
        first = spellings.first[held]
        follows = {byte: position.step(byte) for byte in np.unique(first).tolist()}
        wrong = [byte for byte, following in follows.items() if following is None]
        if wrong:
            is_wrong = np.isin(first, wrong)
            _clear(words, held[is_wrong])
            held = held[~is_wrong]
        opened = follows.get(QUOTE)
        if opened is not None and opened.is_safe(spellings.lengths.reach):
            held = held[~spellings.is_open[held]]
        _clear(words, self._breaking(held[np.argsort(spellings.rank[held])]))

    def _keep_length(self, words: Words, position: Position, string: StringRule) -> None:
        lengths = self._spellings.lengths
        if string.longest is not None and string.longest - position.count < lengths.reach:
            words &= self._fitted(lengths.within(string.longest - position.count), words.size)
        if string.shortest > position.count:
            words &= self._fitted(lengths.late_enough(string.shortest - position.count), words.size)

    def _fitted(self, mask: Words, n_words: int) -> Words:
        """A mask of the known tokens, as wide as a row."""
        return np.pad(mask, (0, n_words - mask.size)) if mask.size < n_words else mask[:n_words]

    def _breaking(self, ids: Ids) -> Ids:
        """Those of `ids`, in the order of their bytes, that no position follows.

        Neighbours share their first bytes, so the positions along the last token tried are kept.
        """
        broken: list[int] = []
        positions, last = [self._positions[-1]], b""
        dead: bytes | None = None
        for token_id in ids.tolist():
            spelling = self._spellings.by_id[token_id]
            if dead is not None and spelling.startswith(dead):
                broken.append(token_id)
                continue
            del positions[1 + _n_shared(last, spelling) :]
            last, dead = spelling, None
            for n in range(len(positions) - 1, len(spelling)):
                position = positions[-1]
                if spelling.find(QUOTE, n) < 0 and position.is_safe(len(spelling) - n):
                    last = spelling[:n]
                    break
                following = position.step(spelling[n])
                if following is None:
                    dead = spelling[: n + 1]
                    last = spelling[:n]
                    broken.append(token_id)
                    break
                positions.append(following)
        return np.array(broken, dtype=np.int64)


def _held(words: Words, ids: Ids) -> Ids:
    """Those of `ids` whose bits are set."""
    return np.asarray(ids[_are_set(words, ids)])


def _are_set(words: Words, ids: Ids) -> NDArray[np.bool_]:
    """Whether each of `ids` has its bit set."""
    return np.asarray((words[ids >> 5] >> (ids & 31).astype(np.uint32) & 1) == 1)


def _all_held(words: Words, spellings: Spellings) -> Ids:
    """Ids of the tokens with text whose bits are set."""
    bits = np.unpackbits(words.view(np.uint8), count=len(spellings.by_id), bitorder="little")
    held = np.flatnonzero(bits.view(np.bool_))
    return held[spellings.first[held] > 0]


def _clear(words: Words, ids: Ids) -> None:
    if ids.size:
        bits = np.zeros(words.size, dtype=np.uint32)
        np.bitwise_or.at(bits, ids >> 5, np.uint32(1) << (ids & 31).astype(np.uint32))
        words &= ~bits


def _n_shared(a: bytes, b: bytes) -> int:
    """Length of the common beginning."""
    most = min(len(a), len(b))
    return next((i for i in range(most) if a[i] != b[i]), most)
