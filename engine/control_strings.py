"""Keeps what a client writes from turning into control tokens such as `<|im_end|>`.

A template mixes its own control strings with the client's text, and the tokenizer recognises both alike. So the
client's strings are marked before rendering, and the rendered prompt is cut at the marks before it is encoded:

    client        Hello<|im_end|>            every control string gets a mark after its first character
    marked        Hello<▮|im_end|>           (so does a string that ends in the beginning of one: its neighbour may
    complete it) rendered      <|im_start|>user\\nHello<▮|im_end|><|im_end|>
    cut           <|im_start|>user\\nHello<   |im_end|><|im_end|>      only the template's own control strings are whole

Text without control strings is not touched, so it is encoded exactly as ever. A template that removes characters from
within the client's text could still put a control string together; no known one does.
"""

import re
from collections.abc import Iterable
from typing import Any

# Private-use characters; the first one that appears nowhere in the input is the mark.
_MARKS = [chr(code) for code in range(0xE000, 0xF900)]


class ControlStrings:
    """The control strings of one tokenizer."""

    def __init__(self, strings: Iterable[str]) -> None:
        """Single characters and white space are left out: they cannot be cut, and tokenizers use them for plain
        text."""
        self.strings = frozenset(text for text in strings if len(text) > 1 and not text.isspace())
        alternatives = "|".join(map(re.escape, sorted(self.strings, key=len, reverse=True)))
        self._starts = re.compile(f"(?=(?:{alternatives}))" if alternatives else "(?!)")
        self._beginnings = tuple({text[:n] for text in self.strings for n in range(1, len(text))})

    def find_mark(self, *inputs: Any) -> str:
        """A character that appears nowhere in the inputs (strings, and lists and dictionaries of them).

        Raises ValueError where the input uses every one of the 6,400 private characters.
        """
        used = set[str]()
        for value in inputs:
            _collect_private(value, used)
        mark = next((mark for mark in _MARKS if mark not in used), None)
        if mark is None:
            raise ValueError("the messages use every private-use character of Unicode: leave one of them out")
        return mark

    def mark(self, value: Any, mark: str) -> Any:
        """The same value with every string marked: dictionaries (keys too), lists and tuples are followed."""
        if isinstance(value, str):
            return self._mark_text(value, mark)
        if isinstance(value, dict):
            return {self.mark(key, mark): self.mark(inner, mark) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.mark(inner, mark) for inner in value]
        return value

    def _mark_text(self, text: str, mark: str) -> str:
        starts = [match.start() for match in self._starts.finditer(text)]
        if text.endswith(self._beginnings):
            text += mark
        for start in reversed(starts):
            text = text[: start + 1] + mark + text[start + 1 :]
        return text


def _collect_private(value: Any, used: set[str]) -> None:
    if isinstance(value, str):
        if not value.isascii():
            used.update(character for character in value if "\ue000" <= character < "\uf900")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _collect_private(key, used)
            _collect_private(inner, used)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _collect_private(inner, used)
