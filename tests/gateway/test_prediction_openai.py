"""Predicted outputs through the official client, against a real server process: faster or not, never different."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from gateway.settings import bundled_path
from tests.gateway.server import Checkpoints, GatewayServer, run_server

MESSAGES: list[Any] = [{"role": "user", "content": "Write to Ada Okoye, ada@norrland.io, about the kiln."}]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 40}, "email": {"type": "string", "maxLength": 40}},
    "required": ["name", "email"],
    "additionalProperties": False,
}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "contact", "schema": SCHEMA, "strict": True}}
TOOL: Any = {"type": "function", "function": {"name": "write_to", "parameters": SCHEMA}}


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    """The bundled pair, whose answers are words, and come from texts as their tokens would be written."""
    pair = Checkpoints(bundled_path("small"), bundled_path("large"))
    with run_server(pair, tmp_path_factory.mktemp("bundled"), {"POINTSMAN_ENGINE_INVARIANT": "true"}) as running:
        yield running


def predicted(text: str) -> Any:
    return {"type": "content", "content": text}


def details(usage: Any) -> dict[str, Any]:
    found: dict[str, Any] = usage.to_dict()["completion_tokens_details"]
    return found


@pytest.mark.parametrize("model", ["small", "large"])
def test_an_answer_that_was_foreseen_is_verified_from_its_prediction(bundled: GatewayServer, model: str) -> None:
    def ask(**fields: Any) -> Any:
        with bundled.client() as client:
            return client.chat.completions.create(
                model=model, messages=MESSAGES, response_format=FORMAT, temperature=0, max_tokens=120, **fields
            )

    plain = ask()
    text = plain.choices[0].message.content
    foreseen = ask(prediction=predicted(text))
    assert foreseen.choices[0].message.content == text
    assert foreseen.usage.completion_tokens == plain.usage.completion_tokens
    assert details(plain.usage)["accepted_prediction_tokens"] == 0
    found = details(foreseen.usage)
    assert found["accepted_prediction_tokens"] > 0 == found["rejected_prediction_tokens"]
    ours = found["speculation"]["by_proposer"]["prediction"]
    assert (
        ours["accepted"]
        == found["accepted_prediction_tokens"]
        == foreseen.usage.completion_tokens_details.accepted_prediction_tokens
    )
    assert ours["wasted"] == found["rejected_prediction_tokens"]
    mistaken = ask(prediction=predicted(text.replace("a", "o")))
    assert mistaken.choices[0].message.content == text


@pytest.mark.parametrize("model", ["small", "large"])
def test_of_a_prediction_that_goes_on_behind_a_stop_string_what_comes_before_is_accepted(
    bundled: GatewayServer, model: str
) -> None:
    def ask(**fields: Any) -> Any:
        with bundled.client() as client:
            return client.chat.completions.create(
                model=model, messages=MESSAGES, temperature=0, max_tokens=40, **fields
            )

    text = ask().choices[0].message.content
    stop = text[20:24]
    cut = ask(stop=[stop])
    foreseen = ask(stop=[stop], prediction=predicted(text))
    assert foreseen.choices[0].message.content == cut.choices[0].message.content == text[: text.index(stop)]
    assert foreseen.usage.completion_tokens == cut.usage.completion_tokens
    # All but the first token, which the prompt's step yields: also the one that ends the answer.
    assert details(foreseen.usage)["accepted_prediction_tokens"] == foreseen.usage.completion_tokens - 1


@pytest.mark.parametrize("temperature", [0, 1])
def test_a_stream_says_the_same_and_counts_the_same(bundled: GatewayServer, temperature: float) -> None:
    def ask(**fields: Any) -> tuple[str, dict[str, Any]]:
        with bundled.client() as client:
            chunks = list(
                client.chat.completions.create(
                    model="large",
                    messages=MESSAGES,
                    response_format=FORMAT,
                    temperature=temperature,
                    seed=4,
                    max_tokens=120,
                    stream=True,
                    stream_options={"include_usage": True},
                    **fields,
                )
            )
        assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        return text, details(chunks[-1].usage)

    text, before = ask()
    again, found = ask(prediction=predicted(text))
    assert again == text
    assert before["accepted_prediction_tokens"] == 0 < found["accepted_prediction_tokens"]


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 3},
        {"logprobs": True, "top_logprobs": 2},
        {"presence_penalty": 1.5, "frequency_penalty": 0.5},
        {"tools": [TOOL], "tool_choice": "required"},
        {"max_completion_tokens": 9},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_openai_refuses_beside_a_prediction_holds_here(server: GatewayServer, fields: dict[str, Any]) -> None:
    body = {"max_tokens": None, "seed": 3, "temperature": 1.2, "max_completion_tokens": 40, **fields}

    def answer(**prediction: Any) -> list[Any]:
        reply = server.chat(**body, **prediction)
        assert reply.status == 200, reply.body
        assert "x-ignored-params" not in reply.headers
        choices: list[Any] = reply.json["choices"]
        for choice in choices:
            for call in choice["message"].get("tool_calls", ()):
                del call["id"]
            for token in (choice["logprobs"] or {}).get("content", ()):
                token["logprob"] = round(token["logprob"], 3)
                token["top_logprobs"] = [[top["token"], round(top["logprob"], 3)] for top in token["top_logprobs"]]
        return choices

    plain = answer()
    text = plain[0]["message"]["content"] or json.dumps(SCHEMA)
    assert answer(prediction=predicted(text)) == plain


def test_a_prediction_goes_on_with_the_prefill_that_the_router_made(routed_server: GatewayServer) -> None:
    body = {"model": "auto", "max_tokens": 30, "temperature": 0, "ignore_eos": True}
    resumed = routed_server.engine("small")["resumed"]
    plain = routed_server.chat(**body).json
    again = routed_server.chat(**body, prediction=predicted(plain["choices"][0]["message"]["content"]))
    assert again.status == 200, "a prediction is no unknown parameter"
    assert again.json["choices"] == plain["choices"]
    assert again.json["router"]["model"] == "small"
    assert routed_server.engine("small")["resumed"] == resumed + 2


def test_a_prediction_that_cannot_be_an_answer_is_a_400_that_names_it(server: GatewayServer) -> None:
    with server.client() as client, pytest.raises(openai.BadRequestError, match=r"window .* shorten it") as caught:
        client.chat.completions.create(model="small", messages=MESSAGES, prediction=predicted("no end. " * 9000))
    assert caught.value.param == "prediction"
    assert server.chat(prediction={"type": "tokens", "content": "x"}).json["error"]["param"] == "prediction.type"
