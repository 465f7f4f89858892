"""The cursor's path and position against a plain walk over the parsed document."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from grammars.cursor import Event, JsonCursor

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Any]]:
    """Every value with its path, in document order."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(path, value), *(pair for step, member in inner for pair in _paths(member, (*path, step)))]


@given(value=VALUES, compact=st.booleans(), ascii_only=st.booleans())
def test_values_start_and_end_where_the_parsed_document_has_them(value: Any, compact: bool, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":") if compact else None).encode() + b" "
    cursor = JsonCursor()
    starts: list[tuple[tuple[str | int, ...], int]] = []
    found: list[tuple[tuple[str | int, ...], Any]] = []
    for i, byte in enumerate(text):
        before = cursor.path
        event = cursor.advance(byte)
        if event is Event.VALUE_STARTED:
            starts.append((before, i))
        for _ in range({Event.VALUE_ENDED: 1, Event.TWO_VALUES_ENDED: 2}.get(event, 0)):
            path, start = starts.pop()
            is_delimited = text[start] in b'"[{'
            found.append((path, json.loads(text[start : i + is_delimited])))
    assert cursor.is_complete or not isinstance(value, str | list | dict)
    expected = _paths(value)
    assert starts == []
    assert sorted(map(repr, found)) == sorted(map(repr, expected))


@given(text=st.text())
def test_the_end_of_a_string_is_seen_and_its_text_decoded(text: str) -> None:
    cursor = JsonCursor()
    encoded = json.dumps(text).encode()
    events = [cursor.advance(byte) for byte in encoded[:-1]]
    assert events == [Event.VALUE_STARTED, *[Event.NONE] * (len(encoded) - 2)]
    assert cursor.is_in_string
    assert cursor.advance(encoded[-1]) is Event.VALUE_ENDED
    assert (cursor.last_text, cursor.is_in_string, cursor.is_complete) == (text, False, True)
