"""Answers that are a JSON text of calls from their first character on, or text: the reader of the formats without a
marker."""

from grammars.cursor import Event, JsonCursor
from grammars.dialects.call_reader import CallReader
from grammars.dialects.dialect import CallEvent, TextDelta


class CallListParser:
    """Reads an answer: the calls of one JSON text, or text when it does not begin with `opening`.

    Where an answer that is no call may begin so as well, it is held back until its first members tell.
    """

    def __init__(
        self,
        opening: str,
        at: tuple[str, ...] | None,
        arguments: str = "arguments",
        *,
        tells: tuple[str, ...] = (),
    ) -> None:
        """at, arguments: as `CallReader` takes them. tells: the members that calls begin with, where they must tell."""
        self._opening, self._tells = opening, tells
        self._reader = CallReader(at, arguments)
        self._is_text: bool | None = None
        self._members: list[str] = []  # read so far, while they do not tell
        self._held = ""
        self._cursor = JsonCursor()

    def feed(self, text: str) -> list[CallEvent]:
        """The events of the next characters; neighbouring fragments of one call are joined."""
        if not text:
            return []
        if self._is_text is None:
            text = self._told(text)
        if self._is_text is None or not text:
            return []
        if self._is_text:
            return [TextDelta(text)]
        events: list[CallEvent] = []
        for char in text:
            self._reader.read(char, events)
        return events

    def end(self) -> list[CallEvent]:
        """An answer that was cut before it was known what it is: text."""
        held, self._held = self._held, ""
        return [TextDelta(held)] if held else []

    def _told(self, text: str) -> str:
        """Decide what the answer is, where that is known by now; the text to go on with."""
        begins = (self._held or text).startswith(self._opening)
        if not begins or not self._tells:
            self._is_text = not begins
            return text
        for char in text:
            self._look(char)
        self._held += text
        if self._is_text is not None:
            text, self._held = self._held, ""
        return text

    def _look(self, char: str) -> None:
        for byte in char.encode("utf-8", "surrogatepass"):
            event = self._cursor.advance(byte)
            if event is Event.KEY_ENDED and self._cursor.depth == 1 and self._is_text is None:
                self._members.append(self._cursor.last_text)
                if self._members[-1] != self._tells[len(self._members) - 1]:
                    self._is_text = True
                elif len(self._members) == len(self._tells):
                    self._is_text = False
            elif self._cursor.is_complete and self._is_text is None:
                self._is_text = True
