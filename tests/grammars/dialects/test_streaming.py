"""What each format looks like, what its stream says after every character, and what reading it costs."""

from typing import Any

import pytest

from grammars import ArgumentsDelta, Call, CallStarted, GrammarCompiler, TextDelta, ToolCalls, get_dialect
from grammars.cursor import JsonCursor
from grammars.dialects.marked import MarkedParser
from tests.grammars.answers import takes
from tests.grammars.dialects.offered import NAMES, TOOLS

GOLDEN = {
    "xlam": '[{"name":"get_weather","arguments":{"city":"Rome","unit":null}},{"name":"ping","arguments":{}}]',
    "xlam_v1": (
        '{"tool_calls":[{"name":"get_weather","arguments":{"city":"Rome","unit":null}},{"name":"ping","arguments":{}}]}'
    ),
    "generic": (
        '[{"name": "get_weather", "arguments": {"city": "Rome", "unit": null}}, {"name": "ping", "arguments": {}}]'
    ),
    "hermes": (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome", "unit": null}}\n</tool_call>\n'
        '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'
    ),
    "llama3_json": '{"name": "get_weather", "parameters": {"city": "Rome", "unit": null}}',
    "pythonic": '[get_weather(city="Rome", unit=None), ping()]',
    "mistral": (
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Rome", "unit": null}}, '
        '{"name": "ping", "arguments": {}}]'
    ),
    "mistral_v11": '[TOOL_CALLS]get_weather[ARGS]{"city": "Rome", "unit": null}[TOOL_CALLS]ping[ARGS]{}',
}


@pytest.mark.parametrize("dialect", NAMES)
def test_calls_are_written_as_the_models_of_a_format_were_taught(compiler: GrammarCompiler, dialect: str) -> None:
    text, format_ = GOLDEN[dialect], get_dialect(dialect)
    assert takes(compiler, ToolCalls(TOOLS, dialect=dialect), text)
    space = " " if format_.is_spaced else ""
    calls = [
        Call("get_weather", f'{{"city":{space}"Rome",{space}"unit":{space}null}}'),
        Call("ping", "{}"),
    ][: text.count("get_weather") + text.count("ping")]
    assert format_.parse(text) == calls
    assert format_.write(calls) == text.replace("[TOOL_CALLS] ", "[TOOL_CALLS]")


@pytest.mark.parametrize("dialect", NAMES)
def test_a_name_goes_out_when_it_is_whole_and_arguments_character_by_character(dialect: str) -> None:
    text, format_ = GOLDEN[dialect], get_dialect(dialect)
    parser, name_at = format_.stream(), text.index("get_weather")
    seen: list[Any] = []
    whole = (format_.parse(text) or [])[0].arguments
    for i, char in enumerate(text):
        events = parser.feed(char)
        if not events:
            continue
        # The name ends with a quote, a parenthesis or a mark: nothing goes out before that, and it goes out then.
        if not seen:
            assert isinstance(events[0], CallStarted)
            assert 0 < i - name_at - len("get_weather") + 1 <= len("[ARGS]")
        seen += events
    fragments = [event.fragment for event in seen if isinstance(event, ArgumentsDelta) and event.index == 0]
    assert "".join(fragments) == whole
    assert max(map(len, fragments)) <= len(', "unit": '), "arguments were held back"
    assert not any(isinstance(event, TextDelta) for event in seen)


@pytest.mark.parametrize("dialect", [name for name in NAMES if name != "pythonic"])
@pytest.mark.parametrize("n", [50, 200])
def test_each_byte_of_a_stream_is_read_once(dialect: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0
    advance = JsonCursor.advance

    def counted(cursor: JsonCursor, byte: int) -> Any:
        nonlocal read
        read += 1
        return advance(cursor, byte)

    monkeypatch.setattr(JsonCursor, "advance", counted)
    format_ = get_dialect(dialect)
    call = Call("get_weather", '{"city": "' + "é x" * n + '"}')
    text = format_.write([call] if dialect == "llama3_json" else [call] * 3)
    parser = format_.stream()
    for at in range(0, len(text), 2):
        parser.feed(text[at : at + 2])
    assert read <= len(text.encode())


@pytest.mark.parametrize("piece", ["word ", "<tool_call", "   ", "<", "\n<tool"])
def test_long_text_is_looked_through_once_and_hardly_held_back(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0
    outside = MarkedParser._outside

    def counted(parser: MarkedParser, text: str, events: Any) -> str:
        nonlocal looked_at
        looked_at += len(parser._begun) + len(text)
        return outside(parser, text, events)

    monkeypatch.setattr(MarkedParser, "_outside", counted)
    parser, fed, said = get_dialect("hermes").stream(), 0, 0
    for _ in range(500):
        said += sum(len(event.fragment) for event in parser.feed(piece) if isinstance(event, TextDelta))
        fed += len(piece)
        assert fed - said <= 2 * len("<tool_call>") + len(piece) or not piece.strip()
    assert looked_at <= fed + 500 * len("<tool_call>")
    assert said + sum(len(event.fragment) for event in parser.end() if isinstance(event, TextDelta)) == fed
