"""A routed stream whose first token was drawn while it was decided is the stream of the model that answers."""

import json
from typing import Any

import pytest

from tests.gateway.server import GatewayServer

PROMPT = [{"role": "user", "content": "how many question marks are there in this long question " * 5}]
ASKED: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "drawn": {"temperature": 1.0, "seed": 4},
    "with logprobs": {"temperature": 0, "logprobs": True, "top_logprobs": 2},
    "one token": {"max_tokens": 1, "temperature": 0},
    "stopped": {"temperature": 1.0, "seed": 7, "stop": ["e"]},
    "several": {"n": 3, "seed": 3, "temperature": 1.0},
    "constrained": {"structured_outputs": {"regex": "[a-z]{3,9}"}, "temperature": 0},
}


def streamed(server: GatewayServer, model: str, fields: dict[str, Any]) -> tuple[dict[int, Any], dict[str, Any], str]:
    """Of each choice the text, the logprobs and why it ended; the usage; and the model that answered."""
    asked = {"messages": PROMPT, "max_tokens": 12} | fields
    reply = server.chat(model=model, stream=True, stream_options={"include_usage": True}, **asked)
    assert reply.status == 200
    lines = [line[6:] for line in reply.body.decode().splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    choices: dict[int, list[Any]] = {}
    usage: dict[str, Any] = {}
    for chunk in map(json.loads, lines[:-1]):
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            told = choices.setdefault(choice["index"], ["", [], None])
            told[0] += choice["delta"].get("content") or ""
            told[1] += (choice.get("logprobs") or {}).get("content") or []
            told[2] = choice["finish_reason"] or told[2]
    return choices, usage, reply.headers["x-router-model"]


@pytest.mark.parametrize("name", ASKED)
def test_a_routed_stream_is_that_of_the_model_by_name(routed_server: GatewayServer, name: str) -> None:
    routed, routed_usage, model = streamed(routed_server, "auto", ASKED[name])
    explicit, usage, _ = streamed(routed_server, "small", ASKED[name])
    assert model == "small"
    assert routed == explicit
    assert all(finish is not None for _, _, finish in routed.values())
    for count in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert routed_usage[count] == usage[count]
    routed_server.until(lambda: all(routed_server.engine("small")[gauge] == 0 for gauge in ("held", "kv_blocks_used")))


def test_a_stream_that_goes_to_the_large_model_forgets_the_small_ones_first_token(routed_server: GatewayServer) -> None:
    routed, _, model = streamed(routed_server, "auto-quality", ASKED["greedy"])
    explicit, _, _ = streamed(routed_server, "large", ASKED["greedy"])
    assert model == "large"
    assert routed == explicit
    routed_server.until(lambda: all(routed_server.engine("small")[gauge] == 0 for gauge in ("held", "kv_blocks_used")))
