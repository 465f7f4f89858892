"""Answers while they grow: cut anywhere they come out the same, and none is passed off as valid unchecked."""

import itertools
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.messages import Delta, Finished
from engine.request import FinishReason, RequestTimeline
from engine.tokenizer import Tokenizer
from gateway.accounts.authenticator import Principal
from gateway.openai.answer import Answer
from gateway.openai.choices import Choices
from gateway.openai.constraints import read_constraint
from gateway.openai.errors import ApiError
from gateway.openai.job import Arrival, Job
from gateway.openai.reading import read_chat
from gateway.openai.run import Piece
from gateway.openai.tools import tool_use
from gateway.routing.catalogue import Target, Wanted
from gateway.routing.decision import Decision
from gateway.routing.eligibility import Eligibility
from gateway.routing.outcome import Outcome
from gateway.routing.sessions import SessionKey
from grammars.dialects import get_dialect
from tests.engine.checkpoints import save_tokenizer

TOOLS = [
    {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "g"}},
]
DIGITS = {"structured_outputs": {"regex": "[0-9]+"}}
TEXTS = st.sampled_from(
    ['[{"name":"f","arguments":{"a":"]}{["}},{"name":"g","arguments":{}}]', "plain text", '{"a":1}', "", "naïve ☃ 🙂"]
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return Tokenizer.from_folder(folder)


def job(**fields: Any) -> Job:
    body = msgspec.json.encode({"messages": [{"role": "user", "content": "hi"}], **fields})
    reading = read_chat(body)
    return Job(
        arrival=Arrival(),
        principal=Principal(None, "anonymous"),
        reading=reading,
        asked=read_constraint(reading.request, tool_use(reading.request), "xlam"),
        wanted=Wanted("auto", target=Target.AUTO),
        eligibility=Eligibility(("small",), {}),
        prompts={"small": [1, 2, 3]},
        salt="",
        deadline_s=10.0,
        session=SessionKey(b""),
    )


def choices(tokenizer: Tokenizer, **fields: Any) -> Choices:
    decision = Decision(id=uuid.uuid4(), model="small", reason="explicit", policy="rule-1", eligible=("small",))
    return Choices(job(**fields), tokenizer, "xlam", Outcome(decision=decision, prompt_tokens=3))


def finished(text: str, reason: FinishReason = FinishReason.STOP, ids: list[int] | None = None, **fields: Any) -> Piece:
    ids = [5] * len(text) if ids is None else ids
    return Piece(0, Finished(id="1", reason=reason, text=text, token_ids=ids, timeline=RequestTimeline(), **fields))


def answer(reader: Choices, text: str, **end: Any) -> str | None:
    reader.take(Piece(0, Delta("1", text, [5] * len(text))))
    return reader.take(finished(text, **end)).finish_reason


@settings(deadline=None)
@given(text=TEXTS, cuts=st.lists(st.integers(0, 60), max_size=8), offered=st.booleans())
def test_a_message_does_not_depend_on_where_its_text_was_cut(text: str, cuts: list[int], offered: bool) -> None:
    whole, pieces = (Answer(get_dialect("xlam") if offered else None) for _ in range(2))
    whole.feed(text)
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        pieces.feed(text[start:end])
    assert pieces.message().content == whole.message().content
    assert [call.function for call in pieces.calls] == [call.function for call in whole.calls]
    if not offered:
        assert whole.message().content == text


def test_calls_are_read_only_where_tools_were_offered(tokenizer: Tokenizer) -> None:
    text = '[{"name":"g","arguments":{}}]'
    with_tools, without = choices(tokenizer, tools=TOOLS), choices(tokenizer)
    assert answer(with_tools, text) == "tool_calls"
    assert answer(without, text) == "stop"
    assert with_tools.completed()[0].message.content is None
    assert without.completed()[0].message.content == text


@pytest.mark.parametrize(
    ("fields", "good", "bad"),
    [
        (DIGITS, "123", "12a"),
        ({"structured_outputs": {"choice": ["yes"]}}, "yes", "no"),
        ({"response_format": {"type": "json_object"}}, '{"a":1}', "[1]"),
        ({"tools": TOOLS, "tool_choice": "required"}, '[{"name":"f","arguments":{}}]', '[{"name":"h","arguments":{}}]'),
    ],
)
def test_an_answer_that_breaks_its_constraint_is_a_500_not_an_answer(
    tokenizer: Tokenizer, fields: dict[str, Any], good: str, bad: str
) -> None:
    kept, broken = choices(tokenizer, **fields), choices(tokenizer, **fields)
    answer(kept, good)
    assert kept.outcome.valid is True
    with pytest.raises(ApiError) as caught:
        answer(broken, bad)
    assert (caught.value.status, caught.value.detail.code) == (500, "constraint_violated")
    assert broken.outcome.valid is False


def test_a_cut_answer_says_length_and_is_not_judged(tokenizer: Tokenizer) -> None:
    by_limit, by_stop = choices(tokenizer, **DIGITS), choices(tokenizer, **DIGITS)
    assert answer(by_limit, "12", reason=FinishReason.LENGTH, is_complete=False) == "length"
    assert answer(by_stop, "", is_complete=False, stop_match="1") == "length"
    assert by_limit.outcome.valid is by_stop.outcome.valid is None


@pytest.mark.parametrize(
    ("fields", "text", "stop", "reason"),
    [
        ({"tools": TOOLS, "tool_choice": "required"}, '[{"name":"g","arguments":{}}', "]", "length"),
        ({"tools": TOOLS, "tool_choice": "required"}, '[{"name":"g","arguments":{}}]', "\n", "tool_calls"),
        ({"response_format": {"type": "json_object"}}, '{"a":1', "}", "length"),
        (DIGITS, "", 7, "length"),
        (DIGITS, "12", 7, "stop"),
        ({"tools": TOOLS}, "Hello ", "you", "stop"),
    ],
)
def test_an_answer_is_judged_without_the_stop_that_was_taken_off_its_end(
    tokenizer: Tokenizer, fields: dict[str, Any], text: str, stop: str | int, reason: str
) -> None:
    ids = tokenizer.encode(f"{text}{stop}") if isinstance(stop, str) else None
    assert answer(choices(tokenizer, **fields), text, stop_match=stop, ids=ids) == reason


def test_a_stop_does_not_hide_that_the_answer_before_it_breaks_the_constraint(tokenizer: Tokenizer) -> None:
    with pytest.raises(ApiError) as caught:
        answer(choices(tokenizer, **DIGITS), "1x", stop_match="2", ids=tokenizer.encode("1x2"))
    assert (caught.value.status, caught.value.detail.code) == (500, "constraint_violated")


@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [(FinishReason.DEADLINE, 504, "deadline_exceeded"), (FinishReason.CANCELLED, 503, "cancelled")],
)
def test_an_answer_that_ended_out_of_order_is_an_error(
    tokenizer: Tokenizer, reason: FinishReason, status: int, code: str
) -> None:
    with pytest.raises(ApiError) as caught:
        answer(choices(tokenizer), "abc", reason=reason)
    assert (caught.value.status, caught.value.detail.code) == (status, code)


def test_tokens_of_an_unfinished_choice_are_counted(tokenizer: Tokenizer) -> None:
    reader = choices(tokenizer, n=2)
    reader.take(Piece(0, Delta("1", "abc", [5, 6, 7])))
    reader.take(Piece(1, Delta("2", "x", [8])))
    assert reader.outcome.completion_tokens == 4
    reader.take(finished("abc"))
    assert reader.outcome.completion_tokens == 4
    assert reader.outcome.first_token_s is not None
