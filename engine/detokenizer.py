"""Streaming text: bytes of tokens to deltas that never break a character, and never let a part of a stop string out."""

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.tokenizer import Tokenizer


class IncrementalDecoder:
    """Text of a growing list of tokens. The deltas, with the flush, are together `tokenizer.decode` of all tokens.

    An incomplete UTF-8 character is held back, so U+FFFD appears only where the whole text has it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_ids: Iterable[int]) -> str:
        """What the tokens add to the text, as far as it is certain."""
        return self._decoder.decode(b"".join(map(self._tokenizer.token_bytes, token_ids)))

    def flush(self) -> str:
        """What was held back, at the end of the tokens: U+FFFD for a character that was never completed."""
        return self._decoder.decode(b"", final=True)


@dataclass(frozen=True, slots=True)
class StopMatch:
    """A stop string was found. text: what may still go out before it."""

    text: str
    stop: str


class StopMatcher:
    """Looks for stop strings in a stream. Only the longest suffix that could still become one is held back.

    Where several match, the one completed first wins; of those completed at the same character, the longest, so that no
    part of any goes out.
    """

    def __init__(self, stops: Sequence[str], *, include_stop: bool = False) -> None:
        """include_stop: the stop string that is found goes out too, with the text before it."""
        self._stops, self._include_stop = tuple(stops), include_stop
        self._held = ""

    def push(self, text: str) -> str | StopMatch:
        """The text that may go out now, or the match that ends the stream."""
        text = self._held + text
        ends = [(at + len(stop), -len(stop), stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            end, negative_length, stop = min(ends)
            self._held = ""
            return StopMatch(text[:end] if self._include_stop else text[: end + negative_length], stop)
        n_held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]

    def skip(self, text: str) -> str:
        """Let text pass in which no stop string may begin or end (an answer still below its minimum)."""
        text, self._held = self._held + text, ""
        return text

    def flush(self) -> str:
        """What was held back, at the end of a stream without a match."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of text that is a proper prefix of stop."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
