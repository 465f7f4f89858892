"""The second chance on a real server: an escalated answer is the large model's own, nothing of the small one's leaves.

Random models hardly ever end by themselves, so what escalates here are answers that reach their limit.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.prices import bundled_prices
from tests.engine.checkpoints import END_ID
from tests.gateway.collector import Collector
from tests.gateway.server import Checkpoints, GatewayServer, Reply, run_server

ASKED: list[Any] = [{"role": "user", "content": "how many fields does this form have, and which of them are empty?"}]
OFF = {"x-router-cascade": "off"}
GAUGES = ("num_requests_running", "num_requests_waiting", "kv_blocks_used", "held")


def environment(router: Path, **settings: str) -> dict[str, str]:
    """A server whose router sends everything to the small model."""
    return {
        "POINTSMAN_ROUTER": str(router),
        "POINTSMAN_ROUTING_QUALITY_TARGET": "0",
        "POINTSMAN_ROUTING_EXPLORATION": "0",
        **{f"POINTSMAN_{name}": value for name, value in settings.items()},
    }


@pytest.fixture(scope="module")
def cascading(
    checkpoints: Checkpoints, judging_router: Path, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayServer]:
    """A server that escalates after a failed validation, and holds 8 tokens of a stream back."""
    traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    settings = environment(judging_router, ROUTING_CASCADE="validation", ROUTING_HOLD_TOKENS="8")
    with run_server(checkpoints, tmp_path_factory.mktemp("cascading"), settings | traces) as running:
        yield running


def said(reply: Reply) -> tuple[Any, ...]:
    """What a whole answer says, and how it ended."""
    (choice,) = reply.json["choices"]
    message = choice["message"]
    calls = [call["function"] for call in message.get("tool_calls", [])]
    return message["content"], calls, choice["finish_reason"], reply.json["usage"]["completion_tokens"]


def events(reply: Reply) -> list[Any]:
    """The events of a stream, without the one that says it is done."""
    lines = [line.removeprefix("data: ") for line in reply.body.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def chunks(reply: Reply) -> list[dict[str, Any]]:
    """The chunks of a stream that ended in order."""
    assert reply.body.endswith(b"data: [DONE]\n\n"), reply.body
    return events(reply)


def streamed(reply: Reply) -> tuple[str, str | None, set[str]]:
    """A stream's text, how it ended, and the models that its chunks name."""
    text, reason = "", None
    for chunk in chunks(reply):
        for choice in chunk["choices"]:
            text += choice["delta"].get("content") or ""
            reason = choice["finish_reason"] or reason
    return text, reason, {chunk["model"] for chunk in chunks(reply)}


def is_idle(server: GatewayServer) -> bool:
    """Whether neither the engine nor the gateway has anything left to do or to hold."""
    text = server.fetch("/metrics").body.decode()
    mine = ("requests_in_flight", "engine_calls", "engine_handles")
    return all(server.engine(model)[name] == 0 for model in ("small", "large") for name in GAUGES) and all(
        f"\npointsman_{name} 0.0" in text for name in mine
    )


def escalations(server: GatewayServer, reason: str) -> float:
    """What the counter says."""
    name = f'pointsman_escalations_total{{reason="{reason}"}} '
    lines = server.fetch("/metrics").body.decode().splitlines()
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


SAMPLING = [
    {"temperature": 0},
    {"temperature": 1, "seed": 11},
    {"temperature": 0.7, "top_p": 0.9, "seed": 5, "presence_penalty": 0.5},
    {"temperature": 0, "logprobs": True, "top_logprobs": 2},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "n", "schema": {"type": "array", "items": {"type": "integer"}, "minItems": 99}},
}
CUT: dict[str, dict[str, Any]] = {
    "text": {"max_tokens": 24},
    "regex": {"max_tokens": 9, "structured_outputs": {"regex": "[a-z]{80}"}},
    "schema": {"max_tokens": 12, "response_format": SCHEMA},
    "tools": {"max_tokens": 6, "tools": [TOOL], "tool_choice": "required"},
}


@pytest.mark.parametrize("sampling", SAMPLING, ids=["greedy", "seed", "penalties", "logprobs"])
@pytest.mark.parametrize("cut", CUT)
def test_an_escalated_answer_is_the_large_models_own(
    cascading: GatewayServer, cut: str, sampling: dict[str, Any]
) -> None:
    fields = {"messages": ASKED, **CUT[cut], **sampling}
    escalated = cascading.chat(model="auto", **fields)
    large, small = cascading.chat(model="large", **fields), cascading.chat(model="small", **fields)
    assert escalated.status == large.status == 200, escalated.body
    assert said(escalated) == said(large)
    assert said(escalated)[0] != said(small)[0] or cut == "tools", "the models differ, or this shows nothing"
    if sampling.get("logprobs"):
        tokens, own = (reply.json["choices"][0]["logprobs"]["content"] for reply in (escalated, large))
        assert [token["token"] for token in tokens] == [token["token"] for token in own]
    else:
        assert escalated.json["choices"][0]["logprobs"] is None
    for name in ("model", "system_fingerprint"):
        assert escalated.json[name] == large.json[name] != small.json[name]
    router = escalated.json["router"]
    assert (router["choice"], router["model"]) == ("small", "large")
    assert (router["escalated"], router["escalate_reason"]) == (True, "length")
    assert escalated.headers["x-router-escalated"] == "true"
    assert escalated.headers["x-router-model"] == "large"
    cascading.until(lambda: is_idle(cascading))


def test_what_was_discarded_is_paid_for_once_and_is_in_no_count(cascading: GatewayServer) -> None:
    fields = {"messages": ASKED, "max_tokens": 20, "temperature": 0}
    before = cascading.engine("small")
    reply = cascading.chat(model="auto", cache_salt="once", **fields).json
    after = cascading.engine("small")
    large = cascading.chat(model="large", cache_salt="alone", **fields).json
    usage, router = reply["usage"], reply["router"]
    details = usage["completion_tokens_details"]
    discarded = details["discarded"]
    assert discarded["model"] == "small"
    assert (discarded["completion_tokens"], usage["completion_tokens"]) == (20, 20)
    assert after["resumed"] == before["resumed"] + 1, "the small answer continued the router's prefill"
    assert after["prompt_tokens_computed"] - before["prompt_tokens_computed"] == discarded["prompt_tokens"]
    prices = bundled_prices()
    small, dear = prices.price("small"), prices.price("large")
    drafted = details.get("speculation", {}).get("by_proposer", {}).get("draft_model", {"drafted": 0})["drafted"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    small_usd = (
        (discarded["prompt_tokens"] - discarded["cached_tokens"]) * small.input
        + discarded["cached_tokens"] * small.cached_input
        + 20 * small.output
    ) / 1e6
    large_usd = ((usage["prompt_tokens"] - cached) * dear.input + cached * dear.cached_input + 20 * dear.output) / 1e6
    assert router["cost_usd"] == pytest.approx(small_usd + large_usd + drafted * small.output / 1e6)
    assert router["cost_if_large_usd"] == pytest.approx(large_usd)
    assert large["router"]["cost_if_large_usd"] == pytest.approx(large_usd)
    assert "discarded" not in large["usage"]["completion_tokens_details"]


def test_the_small_answer_is_the_large_models_prediction(cascading: GatewayServer) -> None:
    """A constraint that leaves one answer, which the limit cuts: both say the same, so the prediction is right."""
    only = " ".join(f"step {number}" for number in range(40))
    fields = {"messages": ASKED, "max_tokens": 60, "structured_outputs": {"regex": f"[a-z]?{only}x*"}}
    details = cascading.chat(model="auto", prediction={"type": "content", "content": "other"}, **fields).json["usage"][
        "completion_tokens_details"
    ]
    assert details["discarded"]["completion_tokens"] == 60
    taken = details["speculation"]["by_proposer"].get("prediction", {"accepted": 0})["accepted"]
    assert taken + details["speculation"]["forced"] > 30


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"model": "small"}, {}),
        ({"model": "auto"}, OFF),
        ({"model": "auto", "router": {"cascade": "off"}}, {}),
        ({"model": "auto", "n": 2}, {}),
    ],
    ids=["explicit", "header", "body", "several answers"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_who_has_no_second_chance_gets_the_small_answer(
    cascading: GatewayServer, fields: dict[str, Any], headers: Mapping[str, str], stream: bool
) -> None:
    before = escalations(cascading, "length")
    asked = {"messages": ASKED, "max_tokens": 6, "temperature": 0}
    reply = cascading.chat(headers, stream=stream, **asked, **fields)
    small = cascading.chat(model="small", **asked)
    assert reply.headers["x-router-escalated"] == "false"
    if stream:
        text, _, models = streamed(reply)
        assert models == {small.json["model"]}
        assert text == small.json["choices"][0]["message"]["content"] * fields.get("n", 1) or fields.get("n")
    else:
        assert reply.json["choices"][0]["message"] == small.json["choices"][0]["message"]
        assert reply.json["router"]["escalate_reason"] is None
    assert escalations(cascading, "length") == before


def test_a_good_answer_stays_and_is_computed_once(cascading: GatewayServer) -> None:
    before = cascading.engine("large")["prompt_tokens_computed"]
    reply = cascading.chat(model="auto", messages=ASKED, structured_outputs={"choice": ["yes", "no"]})
    assert reply.json["router"]["model"] == "small"
    assert reply.json["choices"][0]["message"]["content"] in ("yes", "no")
    assert cascading.engine("large")["prompt_tokens_computed"] == before


def test_an_empty_answer_escalates(cascading: GatewayServer) -> None:
    reply = cascading.chat(model="auto", messages=ASKED, logit_bias={str(END_ID): 100}, max_tokens=50)
    assert reply.json["router"]["escalate_reason"] == "empty"
    assert reply.json["choices"][0]["message"]["content"] == "", "the large model says nothing either, but was asked"


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 1, "seed": 3}], ids=["greedy", "seed"])
def test_a_stream_that_ends_within_its_hold_may_escalate(cascading: GatewayServer, sampling: dict[str, Any]) -> None:
    fields = {"messages": ASKED, "max_tokens": 7, **sampling}
    options = {"stream_options": {"include_usage": True}}
    reply = cascading.chat(model="auto", stream=True, **options, **fields)
    large = cascading.chat(model="large", **fields)
    text, reason, models = streamed(reply)
    assert (text, reason) == (large.json["choices"][0]["message"]["content"], "length")
    assert models == {large.json["model"]}
    assert (reply.headers["x-router-model"], reply.headers["x-router-escalated"]) == ("large", "true")
    last = chunks(reply)[-1]
    assert last["usage"]["completion_tokens"] == 7
    assert last["usage"]["completion_tokens_details"]["discarded"]["completion_tokens"] == 7
    assert last["router"]["escalate_reason"] == "length"
    cascading.until(lambda: is_idle(cascading))


def test_a_stream_whose_text_has_left_stays(cascading: GatewayServer) -> None:
    fields = {"messages": ASKED, "max_tokens": 30, "temperature": 0}
    reply = cascading.chat(model="auto", stream=True, **fields)
    small = cascading.chat(model="small", **fields)
    assert streamed(reply) == (small.json["choices"][0]["message"]["content"], "length", {small.json["model"]})
    assert reply.headers["x-router-escalated"] == "false"


def test_limits_forbid_the_second_answer(cascading: GatewayServer) -> None:
    fields = {"messages": ASKED, "max_tokens": 16, "temperature": 0}
    paid = cascading.chat(model="auto", cache_salt="a", **fields).json["router"]
    own_usd = paid["cost_usd"] - paid["cost_if_large_usd"]
    reply = cascading.chat({"x-router-max-cost-usd": f"{own_usd * 1.5:.9f}"}, model="auto", cache_salt="b", **fields)
    small = cascading.chat(model="small", **fields)
    assert said(reply) == said(small)
    router = reply.json["router"]
    assert (router["escalated"], router["escalate_reason"]) == (False, "escalation_limited")
    assert router["cost_usd"] <= own_usd * 1.5


def test_rows_spans_and_counters_tell_of_both_answers(cascading: GatewayServer, collector: Collector) -> None:
    before = escalations(cascading, "length")
    reply = cascading.chat(model="auto", messages=ASKED, max_tokens=10, temperature=0)
    decision = reply.headers["x-router-decision-id"].replace("-", "")
    assert escalations(cascading, "length") == before + 1

    def row() -> sqlite3.Row | None:
        with contextlib.closing(sqlite3.connect(cascading.log.parent / "pointsman.sqlite3")) as database:
            database.row_factory = sqlite3.Row
            found = database.execute(
                "SELECT d.*, r.model_served AS served, r.cost_discarded_usd, r.cost_route_usd, r.trace_id AS trace,"
                " r.completion_tokens AS n FROM decisions d JOIN requests r ON d.request_id = r.id WHERE d.id = ?",
                (decision,),
            )
            kept: sqlite3.Row | None = found.fetchone()
            return kept

    cascading.until(lambda: row() is not None)
    kept = row()
    assert kept is not None
    assert (kept["action"], kept["model_served"], kept["served"]) == ("small", "large", "large")
    assert (kept["escalated"], kept["escalate_reason"], kept["propensity"]) == (1, "length", 1.0)
    assert kept["cost_discarded_usd"] > 0
    assert kept["cost_route_usd"] == 0
    assert kept["n"] == 10
    cascading.until(lambda: len(generations(collector, kept["trace"])) == 2)
    first, second = generations(collector, kept["trace"])
    assert [span["gen_ai.response.model"] for span in (first, second)] == ["small", "large"]
    assert first["pointsman.discarded"] is True
    assert "pointsman.discarded" not in second


def test_each_model_that_a_constraint_was_compiled_for_has_a_span(
    cascading: GatewayServer, collector: Collector
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    reply = cascading.chat(model="auto", messages=ASKED, max_tokens=4, temperature=0, response_format=form)
    assert reply.headers["x-router-escalated"] == "true"
    trace_id = reply.headers["traceparent"].split("-")[1]

    def compiled_for() -> list[str]:
        spans = [one for one in collector.spans if one.trace_id.hex() == trace_id and one.name == "grammar.compile"]
        spans.sort(key=lambda span: span.start_time_unix_nano)
        return [
            each.value.string_value for span in spans for each in span.attributes if each.key == "gen_ai.request.model"
        ]

    cascading.until(lambda: len(compiled_for()) == 2)
    assert compiled_for() == ["small", "large"]


def generations(collector: Collector, trace_id: str) -> list[dict[str, Any]]:
    """Attributes of the models' spans in a trace, in the order in which they began."""
    spans = [span for span in collector.spans if span.trace_id.hex() == trace_id and span.name == "chat auto"]
    spans.sort(key=lambda span: span.start_time_unix_nano)
    return [
        {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes} for span in spans
    ]
