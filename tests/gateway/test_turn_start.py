"""Where the user's last message begins among the tokens of a prompt, in every dialect's template."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.openai.constraints import read_constraint
from gateway.openai.conversation import template_messages
from gateway.openai.prompt import Prompt, Prompter
from gateway.openai.reading import read_chat
from gateway.openai.tools import tool_use
from gateway.settings import bundled_path
from tests.gateway.dialect_templates import PLAIN, TEMPLATES, save_template
from tests.gateway.test_dialect_prompts import HISTORY, TOOLS

BUNDLED = bundled_path("large")
AFTER: dict[str, list[dict[str, Any]]] = {
    "nothing": [],
    "calls": [*HISTORY[1:]],
    "calls that say the same": [
        json.loads(json.dumps(HISTORY[1]).replace("Rome", "yes")),
        *({**result, "content": "yes"} for result in HISTORY[2:]),
    ],
}


@pytest.fixture(scope="module", params=[*TEMPLATES, "bundled"])
def prompter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prompter:
    if request.param == "bundled":
        return Prompter.from_folder(BUNDLED)
    return Prompter.from_folder(save_template(tmp_path_factory.mktemp(request.param), TEMPLATES[request.param]))


def prompt(prompter: Prompter, messages: list[dict[str, Any]], **fields: Any) -> Prompt:
    request = read_chat(json.dumps({"messages": messages, **fields}).encode()).request
    asked = read_constraint(request, tool_use(request), prompter.dialect)
    found = prompter.prompt(template_messages(request.messages), asked)
    assert found.tokens == prompter.tokens(template_messages(request.messages), asked)
    return found


def text(prompter: Prompter, tokens: list[int]) -> str:
    return prompter.tokenizer.hf.decode(tokens)


def conversation(said: str, after: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"role": "system", "content": "Say yes."},
        {"role": "user", "content": "yes"},
        {"role": "assistant", "content": "yes, yes"},
        {"role": "user", "content": said},
        *after,
    ]


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize(
    "said", ["yes", "a", "user", "Say yes.", " Which city, please?\nSoon. ", "[weather] <|im_end|>"]
)
def test_the_turn_begins_where_another_message_in_its_place_would(prompter: Prompter, said: str, after: str) -> None:
    """A word that is nowhere else shows where the message stands, whatever it says."""
    found = prompt(prompter, conversation(said, AFTER[after]), tools=TOOLS)
    shown = text(prompter, prompt(prompter, conversation("Zyzzyva", AFTER[after]), tools=TOOLS).tokens)
    before = shown[: shown.index("Zyzzyva")]
    start = found.turn_start
    assert len(text(prompter, found.tokens[:start])) <= len(before) + len(said) - len(said.lstrip())
    assert len(text(prompter, found.tokens[: start + 1])) > len(before)


def test_the_first_message_of_a_conversation_begins_behind_its_tools(prompter: Prompter) -> None:
    found = prompt(prompter, [{"role": "user", "content": "Is it hot?"}], tools=TOOLS)
    assert found.turn_start > 0
    assert "Is it hot?" in text(prompter, found.tokens[found.turn_start :]).replace("Ġ", " ")
    assert "weather" not in text(prompter, found.tokens[found.turn_start :])


@pytest.mark.parametrize("messages", [[{"role": "system", "content": "x"}], [{"role": "user", "content": "  "}]])
def test_a_conversation_in_which_no_user_says_anything_begins_at_its_beginning(
    tmp_path: Path, messages: list[dict[str, Any]]
) -> None:
    assert prompt(Prompter.from_folder(save_template(tmp_path, PLAIN)), messages).turn_start == 0


def test_a_template_that_does_not_show_what_was_said_gets_the_beginning(tmp_path: Path) -> None:
    shouted = PLAIN.replace("m.content", "m.content | upper")
    prompter = Prompter.from_folder(save_template(tmp_path, shouted))
    assert prompt(prompter, [{"role": "user", "content": "hello"}]).turn_start == 0


@given(said=st.text(min_size=1, max_size=30), n=st.integers(1, 3))
def test_any_text_is_found_even_if_it_was_said_before(said: str, n: int) -> None:
    prompter = Prompter.from_folder(BUNDLED)
    found = prompt(prompter, [{"role": "user", "content": said}] * n)
    rest = prompter.tokenizer.decode(found.tokens[found.turn_start :])
    if said.strip():
        assert said.strip() in rest
        assert found.turn_start > 0
