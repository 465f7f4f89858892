"""Thoughts and answer are told apart wherever the stream is cut."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.openai.answer import Answer, ReasoningDelta
from grammars.dialects import TextDelta, get_dialect

PIECES = st.lists(st.text(alphabet="</>ab[{", max_size=6), max_size=12)


@given(pieces=PIECES, until=st.sampled_from(["</a>", "<<", "aba", "/"]))
def test_the_first_end_parts_thoughts_from_the_answer_at_any_cut(pieces: list[str], until: str) -> None:
    answer, thoughts, content = Answer(None, until), "", ""
    for piece in pieces:
        for event in answer.feed(piece):
            if isinstance(event, ReasoningDelta):
                assert not content
                thoughts += event.fragment
                # Nothing is shown that may still turn out to be a part of the end.
                assert until not in thoughts
            elif isinstance(event, TextDelta):
                content += event.fragment
    thoughts += "".join(event.fragment for event in answer.end() if isinstance(event, ReasoningDelta))
    before, _, after = "".join(pieces).partition(until)
    assert (thoughts, content) == (before, after)
    message = answer.message()
    assert (message.reasoning, message.content) == (before, after)


@given(st.integers(0, 60))
def test_calls_are_read_behind_the_thoughts(cut: int) -> None:
    text = 'I [think]</t>[{"name":"f","arguments":{"a":1}}]'
    answer = Answer(get_dialect("xlam"), "</t>")
    answer.feed(text[:cut])
    answer.feed(text[cut:])
    message = answer.message()
    assert message.reasoning == "I [think]"
    assert message.content is None
    assert isinstance(message.tool_calls, list)
    assert [(call.function.name, call.function.arguments) for call in message.tool_calls] == [("f", '{"a":1}')]


def test_without_thoughts_the_message_has_no_such_member() -> None:
    answer = Answer(None)
    answer.feed("</t>hi")
    assert answer.message().content == "</t>hi"
    assert not isinstance(answer.message().reasoning, str)
