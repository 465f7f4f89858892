"""A pair of different abilities behind `auto`: who cannot answer is left out with a reason, and nobody else suffers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.checkpoints import build_checkpoint
from tests.gateway.dialect_templates import LLAMA, PYTHONIC, save_template
from tests.gateway.server import HIDDEN, Checkpoints, GatewayServer, run_server

PICKY = LLAMA.replace(
    "{%- for m in messages %}",
    "{%- for m in messages %}{%- if m.content == 'Be brief.' %}{{ raise_exception('never brief') }}{%- endif %}",
    1,
)
HI: list[Any] = [{"role": "user", "content": "hi"}]
DASHED = {
    "type": "object",
    "properties": {"my-city": {"enum": ["Paris", "Rome"]}},  # no name in Python
    "required": ["my-city"],
    "additionalProperties": False,
}


def tool(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def pair_of(folder: Path, small: str, large: str, small_window: int = 4096) -> Checkpoints:
    made = Checkpoints(folder / "first", folder / "second")
    for path, template, seed, window in ((made.small, small, 1, small_window), (made.large, large, 2, 4096)):
        build_checkpoint(path, "llama", seed=seed, hidden_size=HIDDEN, max_position_embeddings=window)
        save_template(path, template)
    return made


@pytest.fixture(scope="module")
def python_small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    """The small model writes its calls as Python, in a window of 640 tokens; the large one as JSON."""
    made = pair_of(tmp_path_factory.mktemp("python-small"), PYTHONIC, PICKY, small_window=640)
    with run_server(made, tmp_path_factory.mktemp("python-small-server"), {}) as running:
        yield running


@pytest.fixture(scope="module")
def python_large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    """The other way round, and the small model's template refuses to be brief."""
    made = pair_of(tmp_path_factory.mktemp("python-large"), PICKY, PYTHONIC)
    with run_server(made, tmp_path_factory.mktemp("python-large-server"), {}) as running:
        yield running


def explained(server: GatewayServer, **fields: Any) -> tuple[str, str, dict[str, str]]:
    """(model, reason, why others are out), by the answer and the dry run alike."""
    asked = {"model": "auto", "messages": HI, "router": {"explain": True}, **fields}
    reply = server.chat(**asked)
    assert reply.status == 200, reply.json
    router = reply.json["router"]
    dry = server.decide(**asked).json
    assert [dry[name] for name in ("choice", "reason")] == [router[name] for name in ("choice", "reason")]
    assert dry["explain"]["ineligible"] == router["explain"]["ineligible"]
    return router["model"], router["reason"], router["explain"]["ineligible"]


@pytest.mark.parametrize("model", ["auto", "auto-quality", "auto-cost"])
def test_tools_that_one_format_cannot_express_go_to_the_other_model(
    python_small: GatewayServer, python_large: GatewayServer, model: str
) -> None:
    asked: Any = {"model": model, "tools": [tool("weather", DASHED)], "tool_choice": "required"}
    asked |= {"parallel_tool_calls": False, "max_tokens": 100}
    assert explained(python_small, **asked) == ("large", "only_eligible", {"small": "unsupported_tools"})
    assert explained(python_large, **asked) == ("small", "only_eligible", {"large": "unsupported_tools"})
    reply = python_large.chat(**asked)
    (call,) = reply.json["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"


def test_a_model_by_name_is_refused_for_what_it_cannot_express(python_small: GatewayServer) -> None:
    asked: Any = {"tools": [tool("weather", DASHED)], "tool_choice": "required"}
    reply = python_small.chat(model="small", **asked)
    assert (reply.status, reply.json["error"]["code"]) == (400, "constraint_refused")
    assert reply.json["error"]["param"] == "tools"


def test_what_no_model_can_express_is_refused_in_the_words_of_the_large_one(python_small: GatewayServer) -> None:
    bad = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(a"}}, "required": ["a"]}
    asked: Any = {"tools": [tool("weather", bad)], "tool_choice": "required"}
    auto, large = (python_small.chat(model=model, **asked) for model in ("auto", "large"))
    assert auto.status == large.status == 400
    assert auto.json["error"] == large.json["error"]


def test_a_conversation_that_one_template_refuses_goes_to_the_other_model(
    python_small: GatewayServer, python_large: GatewayServer
) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *HI]
    ours = explained(python_small, messages=messages)
    assert ours == ("small", "only_eligible", {"large": "unsupported_messages"})
    ours = explained(python_large, messages=messages)
    assert ours == ("large", "only_eligible", {"small": "unsupported_messages"})


def test_a_prompt_beyond_one_window_goes_to_the_other_model(python_small: GatewayServer) -> None:
    long = [{"role": "user", "content": "a question " * 200}]
    assert explained(python_small, messages=long, max_tokens=4) == ("large", "only_eligible", {"small": "too_long"})
    assert explained(python_small, max_tokens=900) == ("large", "only_eligible", {"small": "too_long"})
    reply = python_small.chat(model="auto", max_tokens=5000)
    assert (reply.status, reply.json["error"]["code"]) == (400, "context_length_exceeded")
    assert "window is 4096 tokens" in reply.json["error"]["message"]


def test_a_sampling_field_that_one_model_cannot_obey_rules_out_that_model_only(python_small: GatewayServer) -> None:
    found = explained(python_small, min_tokens=700, max_tokens=None)
    assert found == ("large", "only_eligible", {"small": "unsupported_sampling"})
    assert python_small.chat(model="small", min_tokens=700, max_tokens=None).status == 400
    both = python_small.chat(model="auto", temperature=9)
    assert (both.status, both.json["error"]["param"]) == (400, "temperature")


def test_the_least_model_that_may_answer_is_kept(python_small: GatewayServer) -> None:
    found = explained(python_small, model="auto-cost", router={"explain": True, "min_model": "large"})
    assert found == ("large", "only_eligible", {"small": "min_model"})
    messages = [{"role": "system", "content": "Be brief."}, *HI]
    reply = python_small.chat(model="auto", messages=messages, router={"min_model": "large"})
    assert (reply.status, reply.json["error"]["param"]) == (400, "messages"), "the large model's own refusal"


def test_a_pair_that_shares_everything_is_asked_once(server: GatewayServer) -> None:
    asked: Any = {"tools": [tool("weather", DASHED)], "tool_choice": "required", "max_tokens": 60}
    assert explained(server, **asked)[2] == {}
