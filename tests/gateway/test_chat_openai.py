"""Chat completions through the official client, against a real server process."""

import asyncio
import json
import re
from typing import Any, Literal

import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from tests.gateway.server import GatewayServer

HI: list[Any] = [{"role": "user", "content": "hi"}]


class Order(BaseModel):
    """A closed schema whose every value is bounded, so that random weights answer it in few tokens."""

    size: Literal["small", "large"]
    count: int = Field(ge=1, le=9)
    express: bool


def test_a_pydantic_model_comes_back_parsed(server: GatewayServer) -> None:
    with server.client() as client:
        reply = client.chat.completions.parse(model="small", messages=HI, response_format=Order, max_tokens=100)
    message = reply.choices[0].message
    assert isinstance(message.parsed, Order)
    assert message.refusal is None
    assert message.content is not None
    assert Order.model_validate_json(message.content) == message.parsed
    assert reply.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("model", ["small", "large", "auto", "auto-cost", "tiny-large"])
def test_every_name_answers_and_the_response_says_who_did(server: GatewayServer, model: str) -> None:
    with server.client() as client:
        raw = client.chat.completions.with_raw_response.create(model=model, messages=HI, max_tokens=4)
    reply = raw.parse()
    expected = "small" if model in ("small", "auto-cost") else "large"
    assert reply.model == f"tiny-{expected}"
    router = reply.to_dict()["router"]
    assert isinstance(router, dict)
    assert router["requested"] == model
    assert router["model"] == expected == raw.headers["x-router-model"]
    assert (
        router["reason"] == ("no_router" if model.startswith("auto") else "explicit") == raw.headers["x-router-reason"]
    )
    assert router["decision_id"] == raw.headers["x-router-decision-id"]
    assert router["cost_usd"] > 0
    assert float(raw.headers["x-router-cost-usd"]) == pytest.approx(router["cost_usd"], rel=1e-4)
    assert router["cost_if_large_usd"] > 0
    # The large model's answer alone; what the small one drafted for it comes on top.
    assert (router["cost_if_large_usd"] > router["cost_usd"]) == (expected == "small")
    assert reply.system_fingerprint is not None


def test_usage_counts_tokens_with_all_details(server: GatewayServer) -> None:
    prompt = "the same long prompt, again and again, " * 8
    with server.client() as client:
        replies = [
            client.chat.completions.create(
                model="large",
                messages=[{"role": "user", "content": prompt}],
                max_tokens=5,
                extra_body={"ignore_eos": True},
            )
            for _ in range(2)
        ]
    for reply in replies:
        usage = reply.usage
        assert usage is not None
        assert usage.completion_tokens == 5
        assert usage.total_tokens == usage.prompt_tokens + 5
        assert usage.prompt_tokens_details is not None
        assert usage.completion_tokens_details is not None
    cached = [
        reply.usage.prompt_tokens_details.cached_tokens
        for reply in replies
        if reply.usage and reply.usage.prompt_tokens_details
    ]
    assert cached[0] is not None
    assert cached[1] is not None
    assert cached[0] < 10, "the template's own beginning, at most, is known from other requests"
    assert cached[1] > 50, "the second request finds the first one's pages"


def test_usage_says_why_no_more_of_the_prompt_was_cached(server: GatewayServer) -> None:
    def miss(content: str, salt: str) -> str:
        messages = [{"role": "user", "content": content}]
        usage = server.chat(messages=messages, cache_salt=salt, max_tokens=1).json["usage"]
        reason: str = usage["prompt_tokens_details"]["cache_miss"]
        return reason

    prompt = "the beginning that two prompts have in common, long enough for a page or two, " * 4
    assert miss(prompt + "a", "tenant of its own") == "cold"
    assert miss(prompt + "b", "tenant of its own") == "diverged"


def test_another_cache_salt_shares_nothing(server: GatewayServer) -> None:
    def cached(salt: str) -> int:
        messages = [{"role": "user", "content": "a prompt that two tenants happen to share, word by word, " * 4}]
        usage = server.chat(messages=messages, cache_salt=salt).json["usage"]
        count: int = usage["prompt_tokens_details"]["cached_tokens"]
        return count

    assert (cached("one"), cached("two")) == (0, 0)
    assert cached("one") > 0


def test_choices_differ_and_repeat_with_their_seed(server: GatewayServer) -> None:
    with server.client() as client:
        first, second = (
            client.chat.completions.create(model="small", messages=HI, n=3, seed=7, max_tokens=12) for _ in range(2)
        )
    texts = [choice.message.content for choice in first.choices]
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert texts == [choice.message.content for choice in second.choices]
    assert first.usage is not None
    assert first.usage.completion_tokens <= 36


def test_logprobs_name_each_token_and_its_rivals(server: GatewayServer) -> None:
    with server.client() as client:
        reply = client.chat.completions.create(
            model="small",
            messages=HI,
            logprobs=True,
            top_logprobs=3,
            max_tokens=6,
            temperature=0,
            extra_body={"ignore_eos": True},
        )
    choice = reply.choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert len(choice.logprobs.content) == 6
    spelled = b"".join(bytes(token.bytes or []) for token in choice.logprobs.content)
    assert spelled.decode("utf-8", "replace") == choice.message.content
    for token in choice.logprobs.content:
        rivals = [rival.logprob for rival in token.top_logprobs]
        assert rivals == sorted(rivals, reverse=True)
        assert len(rivals) == 3
        assert token.logprob == pytest.approx(rivals[0]), "greedy takes the best"


def test_a_stop_string_ends_the_answer_and_stays_out_of_it(server: GatewayServer) -> None:
    with server.client() as client:
        whole = client.chat.completions.create(model="small", messages=HI, seed=3, max_tokens=40)
        text = whole.choices[0].message.content or ""
        stop = text[6:8]
        cut = client.chat.completions.create(model="small", messages=HI, seed=3, max_tokens=40, stop=[stop, "never"])
    assert cut.choices[0].message.content == text[: text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_a_cut_answer_says_length_even_under_a_schema(server: GatewayServer) -> None:
    with server.client() as client:
        reply = client.chat.completions.create(
            model="small", messages=HI, max_tokens=3, extra_body={"ignore_eos": True}
        )
        assert reply.choices[0].finish_reason == "length"
        with pytest.raises(openai.LengthFinishReasonError):
            client.chat.completions.parse(model="small", messages=HI, response_format=Order, max_tokens=3)


@pytest.mark.parametrize(
    ("constraint", "pattern"),
    [
        ({"structured_outputs": {"regex": "[a-c]{2}[0-9]"}}, "[a-c]{2}[0-9]"),
        ({"structured_outputs": {"choice": ["yes", "no", "maybe"]}}, "yes|no|maybe"),
        ({"structured_outputs": {"grammar": 'root ::= "x" [0-9] "y"'}}, "x[0-9]y"),
        ({"guided_regex": "(ab){3}"}, "(ab){3}"),
        ({"guided_choice": ["left", "right"]}, "left|right"),
    ],
)
def test_every_constraint_holds_under_random_weights(
    server: GatewayServer, constraint: dict[str, Any], pattern: str
) -> None:
    reply = server.chat(**constraint, max_tokens=40, temperature=2)
    assert reply.status == 200
    choice = reply.json["choices"][0]
    assert re.fullmatch(pattern, choice["message"]["content"])
    assert choice["finish_reason"] == "stop"
    assert ("deprecation" in reply.headers) == any(name.startswith("guided") for name in constraint)


def test_a_schema_without_strict_is_enforced_all_the_same(server: GatewayServer) -> None:
    schema = {
        "type": "object",
        "properties": {
            "kind": {"enum": ["a", "b"]},
            "flags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
        },
        "required": ["kind", "flags"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for seed in range(5):
        choice = server.chat(response_format=form, max_tokens=60, seed=seed, temperature=1.5).json["choices"][0]
        assert choice["finish_reason"] == "stop"
        jsonschema.validate(json.loads(choice["message"]["content"]), schema)


async def test_sixteen_requests_at_once_are_all_valid(server: GatewayServer) -> None:
    async with server.async_client() as client:
        replies = await asyncio.gather(
            *(
                client.chat.completions.parse(
                    model=("small", "large", "auto")[i % 3], messages=HI, response_format=Order, max_tokens=100
                )
                for i in range(16)
            )
        )
    assert all(isinstance(reply.choices[0].message.parsed, Order) for reply in replies)
