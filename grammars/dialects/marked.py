"""Answers in which a marker says that a call follows: free text up to the first marker, then calls and no more text."""

from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from grammars.dialects.beginnings import n_begun
from grammars.dialects.dialect import CallEvent, TextDelta


class MarkedReader(Protocol):
    """Reads what stands behind one marker, up to the end of its JSON text."""

    @property
    def n_calls(self) -> int:
        """Calls whose names are known."""

    @property
    def is_complete(self) -> bool:
        """Whether the JSON text has ended."""

    def read(self, char: str, events: list[CallEvent]) -> None:
        """Take a character."""


class _Place(Enum):
    TEXT = auto()
    CALL = auto()  # behind a marker
    BETWEEN = auto()  # behind a JSON text


class MarkedParser:
    """Holds back what may still become a marker, and the white space before it: content is not to end in that."""

    def __init__(self, marker: str, reader: Callable[[int], MarkedReader], *, after_text: bool) -> None:
        """reader: of one marker's calls, given the number of the first. after_text: text may come before a marker."""
        self._marker, self._new_reader, self._after_text = marker, reader, after_text
        self._place = _Place.TEXT
        self._blanks: list[str] = []  # white space that no other text has followed yet
        self._begun = ""  # of a marker
        self._has_text = False
        self._n_calls = 0
        self._reader: MarkedReader | None = None

    def feed(self, text: str) -> list[CallEvent]:
        """The events of the next characters; neighbouring fragments of one call are joined."""
        events: list[CallEvent] = []
        while text:
            if self._place is _Place.CALL:
                text = self._call(text, events)
            else:
                text = self._outside(text, events)
        return events

    def end(self) -> list[CallEvent]:
        """The text that was held back."""
        held = "".join(self._blanks) + self._begun
        self._blanks, self._begun = [], ""
        return [TextDelta(held)] if held and self._place is _Place.TEXT else []

    def _outside(self, text: str, events: list[CallEvent]) -> str:
        """Look for the next marker; what stands behind it is returned."""
        text, self._begun = self._begun + text, ""
        end = text.find(self._marker)
        if end >= 0 and self._may_follow(text[:end]):
            self._text(text[:end].rstrip(), events)
            self._blanks = []
            self._place, self._reader = _Place.CALL, self._new_reader(self._n_calls)
            return text[end + len(self._marker) :]
        n = n_begun(text, self._marker)
        if n and self._may_follow(text[:-n]):
            text, self._begun = text[:-n], text[-n:]
        stripped = text.rstrip()
        self._text(stripped, events)
        self._blanks.append(text[len(stripped) :])
        return ""

    def _may_follow(self, text: str) -> bool:
        """Whether a marker may come right behind `text`: anywhere, or only before any other text."""
        if self._after_text or self._place is _Place.BETWEEN:
            return True
        return not self._has_text and not text.strip()

    def _text(self, text: str, events: list[CallEvent]) -> None:
        if not text or self._place is not _Place.TEXT:
            return
        self._has_text = True
        events.append(TextDelta("".join(self._blanks) + text))
        self._blanks = []

    def _call(self, text: str, events: list[CallEvent]) -> str:
        reader = self._reader
        if reader is None:
            return ""
        for i, char in enumerate(text):
            reader.read(char, events)
            if reader.is_complete:
                self._n_calls += reader.n_calls
                self._place, self._reader = _Place.BETWEEN, None
                return text[i + 1 :]
        return ""
