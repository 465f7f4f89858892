"""The format of a checkpoint is found from its template, and conversations with calls come out in that format."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from gateway.openai.constraints import read_constraint
from gateway.openai.conversation import template_messages
from gateway.openai.prompt import Prompter
from gateway.openai.reading import read_chat
from gateway.openai.tools import tool_use
from gateway.settings import DialectName, bundled_path
from grammars.dialects import DIALECTS
from tests.gateway.dialect_templates import HERMES, LLAMA, PLAIN, QWEN_CODER, TEMPLATES, XLAM_2, save_template

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Weather now.", "parameters": CITY}}]


def _call(name: str, arguments: str, id_: str) -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [_call("weather", '{"city":"Rome"}', "call_a"), _call("weather", '{"city":"Oslo"}', "call_b")],
    },
    {"role": "tool", "tool_call_id": "call_a", "content": "hot"},
    {"role": "tool", "tool_call_id": "call_b", "content": "cold"},
]


def rendered(prompter: Prompter, messages: list[dict[str, Any]], **fields: Any) -> str:
    """The prompt as text, control tokens included."""
    request = read_chat(json.dumps({"messages": messages, **fields}).encode()).request
    asked = read_constraint(request, tool_use(request), prompter.dialect)
    ids = prompter.tokens(template_messages(request.messages), asked)
    return prompter.tokenizer.hf.decode(ids)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("dialect", TEMPLATES)
def test_a_format_is_recognised_by_what_the_template_writes(folder: Path, dialect: str) -> None:
    assert Prompter.from_folder(save_template(folder, TEMPLATES[dialect])).dialect == dialect


def test_every_dialect_is_recognised_and_can_be_set() -> None:
    names = {dialect.name for dialect in DIALECTS}
    assert set(TEMPLATES) == names
    assert set(get_args(DialectName)) == names | {"auto"}


def test_the_bundled_models_are_recognised() -> None:
    for name in ("small", "large"):
        prompter = Prompter.from_folder(bundled_path(name))
        assert (prompter.dialect, prompter.shows_tools, prompter.shows_calls) == ("xlam", True, True)


def test_a_format_that_is_set_is_taken(folder: Path) -> None:
    assert Prompter.from_folder(save_template(folder, HERMES), "pythonic").dialect == "pythonic"


def test_tags_around_another_format_are_not_taken_for_hermes(folder: Path) -> None:
    assert Prompter.from_folder(save_template(folder, QWEN_CODER)).dialect == "generic"


def test_a_list_with_spaces_is_the_generic_one(folder: Path) -> None:
    assert Prompter.from_folder(save_template(folder, XLAM_2)).dialect == "generic"


@pytest.mark.parametrize(
    ("source", "dialect"),
    [
        ("<tool_call>{# #}", "hermes"),
        ("[TOOL_CALLS]", "mistral"),
        ("[TOOL_CALLS]x[ARGS]", "mistral_v11"),
        ("Environment: ipython\n", "llama3_json"),
        ("<|python_tag|>", "llama3_json"),
        ("<tool_call><function=f>", "generic"),
    ],
)
def test_a_template_that_knows_no_calls_is_searched_for_what_a_format_needs(
    folder: Path, source: str, dialect: str
) -> None:
    assert Prompter.from_folder(save_template(folder, source + PLAIN)).dialect == dialect


GOLDEN = {
    "hermes": (
        '<|im_start|>assistant\n<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nhot\n</tool_response><|im_end|>\n"
    ),
    "mistral_v11": (
        '[TOOL_CALLS]weather[ARGS]{"city": "Rome"}[TOOL_CALLS]weather[ARGS]{"city": "Oslo"}<|im_end|>[TOOL_RESULTS]'
    ),
    "generic": (
        '<|im_start|>assistant\n[{"name": "weather", "arguments": {"city": "Rome"}}, {"name": "weather", "arguments": '
        '{"city": "Oslo"}}]<|im_end|>\n<|im_start|>user\nweather returned: hot\nweather returned: cold<|im_end|>\n'
    ),
    "xlam_v1": (
        '<|im_start|>assistant\n{"tool_calls":[{"name":"weather","arguments":{"city":"Rome"}},{"name":"weather",'
        '"arguments":{"city":"Oslo"}}]}<|im_end|>\n'
    ),
    "pythonic": '[weather(city="Rome"), weather(city="Oslo")]<|im_end|>',
}


@pytest.mark.parametrize("dialect", GOLDEN)
def test_earlier_calls_come_out_as_the_model_writes_them(folder: Path, dialect: str) -> None:
    text = rendered(Prompter.from_folder(save_template(folder, TEMPLATES[dialect])), HISTORY)
    assert GOLDEN[dialect] in text
    for result in ("hot", "cold"):
        assert text.count(result) == 1


def test_ids_of_calls_fit_a_template_that_demands_nine_characters(folder: Path) -> None:
    text = rendered(Prompter.from_folder(save_template(folder, TEMPLATES["mistral"])), HISTORY)
    ids = [text.split('"id": "')[n].partition('"')[0] for n in (1, 2)]
    assert [len(one) for one in ids] == [9, 9]
    assert ids[0] != ids[1]
    assert [f'"call_id": "{one}"' in text for one in ids] == [True, True]
    own = json.loads(json.dumps(HISTORY).replace("call_a", "abcDEF123"))
    assert '"id": "abcDEF123"' in rendered(Prompter.from_folder(folder), own)


def test_a_single_call_is_shown_as_llama_writes_it(folder: Path) -> None:
    history = [HISTORY[0], HISTORY[1] | {"tool_calls": HISTORY[1]["tool_calls"][:1]}, HISTORY[2]]
    text = rendered(Prompter.from_folder(save_template(folder, LLAMA)), history)
    assert '{"name": "weather", "parameters": {"city": "Rome"}}<|im_end|>ipython: "hot"' in text


def test_a_template_that_takes_one_call_a_turn_gets_several_one_after_the_other(folder: Path) -> None:
    text = rendered(Prompter.from_folder(save_template(folder, LLAMA)), HISTORY)
    assert (
        '{"name": "weather", "parameters": {"city": "Rome"}}<|im_end|>ipython: "hot"<|im_end|>'
        '{"name": "weather", "parameters": {"city": "Oslo"}}<|im_end|>ipython: "cold"<|im_end|>'
    ) in text


@pytest.mark.parametrize("dialect", TEMPLATES)
def test_results_are_shown_in_the_order_of_the_calls(folder: Path, dialect: str) -> None:
    prompter = Prompter.from_folder(save_template(folder, TEMPLATES[dialect]))
    assert rendered(prompter, [*HISTORY[:2], HISTORY[3], HISTORY[2]]) == rendered(prompter, HISTORY)


@pytest.mark.parametrize("dialect", TEMPLATES)
def test_tools_are_shown_by_the_template_or_put_into_the_conversation(folder: Path, dialect: str) -> None:
    prompter = Prompter.from_folder(save_template(folder, PLAIN), dialect)
    text = rendered(prompter, HISTORY[:1], tools=TOOLS)
    assert "Weather now." in text
    assert text.count("Weather?") == 1
    own = [{"role": "system", "content": "Be brief."}, *HISTORY[:1]]
    assert rendered(prompter, own, tools=TOOLS).index("Be brief.") < rendered(prompter, own, tools=TOOLS).index("now.")


def test_xlam_v1_gets_its_four_blocks_with_properties_alone(folder: Path) -> None:
    text = rendered(Prompter.from_folder(save_template(folder, TEMPLATES["xlam_v1"])), HISTORY[:1], tools=TOOLS)
    blocks = ["TASK INSTRUCTION", "AVAILABLE TOOLS", "FORMAT INSTRUCTION", "QUERY"]
    places = [text.index(f"[BEGIN OF {block}]\n") for block in blocks]
    assert places == sorted(places)
    assert text.count("<|im_start|>") == 2
    tools = text.partition("[BEGIN OF AVAILABLE TOOLS]\n")[2].partition("\n[END OF")[0]
    assert json.loads(tools) == [
        {"name": "weather", "description": "Weather now.", "parameters": {"city": {"type": "string"}}}
    ]
    assert "[BEGIN OF QUERY]\nWeather?\n[END OF QUERY]" in text


@pytest.mark.parametrize("dialect", TEMPLATES)
def test_a_client_cannot_write_the_markers_of_calls(folder: Path, dialect: str) -> None:
    prompter = Prompter.from_folder(save_template(folder, TEMPLATES[dialect]))
    markers = set(prompter.tokenizer.encode("<tool_call></tool_call>[TOOL_CALLS][ARGS]"))
    assert len(markers) == 4
    assert prompter.tokenizer.decode(markers).count("TOOL_CALLS") == 1, "in an answer they are text"

    def count(content: str) -> int:
        request = read_chat(json.dumps({"messages": [{"role": "user", "content": content}]}).encode()).request
        asked = read_constraint(request, tool_use(request), prompter.dialect)
        return sum(token in markers for token in prompter.tokens(template_messages(request.messages), asked))

    assert count("a<tool_call>b</tool_call>[TOOL_CALLS]c[ARGS]d") == count("abcd")
