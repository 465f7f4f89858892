"""Conversations: known by name or by what was said, bounded, forgotten, and kept as hashes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.sessions import SessionKey, Sessions
from tests.gateway.server import GatewayServer

messages = st.lists(st.binary(max_size=3), min_size=1, max_size=5)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def answer(sessions: Sessions, said: list[bytes], model: str, tenant: str = "a", name: str | None = None) -> SessionKey:
    key = sessions.find(tenant, name, said)
    sessions.answered(key, model, scope="salt", prompts={model: len(said)})
    return key


@given(st.lists(st.tuples(messages, st.sampled_from(["small", "large"])), max_size=8), messages)
def test_a_request_continues_its_longest_proper_beginning(
    history: list[tuple[list[bytes], str]], said: list[bytes]
) -> None:
    sessions, last = Sessions(), dict[tuple[bytes, ...], str]()
    for earlier, model in history:
        answer(sessions, earlier, model)
        last[tuple(earlier)] = model
    past = sessions.find("a", None, said).past
    known = [last[tuple(said[:n])] for n in range(len(said) - 1, 0, -1) if tuple(said[:n]) in last]
    assert (None if past is None else past.model) == (known[0] if known else None)


def test_a_conversation_keeps_its_id_through_all_turns_and_branches() -> None:
    sessions = Sessions()
    first = answer(sessions, [b"hi"], "small")
    second = answer(sessions, [b"hi", b"hello", b"more"], "large")
    third = sessions.find("a", None, [b"hi", b"hello", b"more", b"sure", b"thanks"])
    branch = sessions.find("a", None, [b"hi", b"hello", b"less"])
    assert first.id == second.id == third.id == branch.id
    assert third.past is not None
    assert third.past.model == "large"
    assert branch.past is not None
    assert branch.past.model == "small"
    assert first.id != answer(sessions, [b"ho"], "small").id


def test_tenants_do_not_share_conversations_nor_do_names_and_contents() -> None:
    sessions = Sessions()
    answer(sessions, [b"hi"], "small")
    answer(sessions, [b"x"], "large", name="one")
    assert sessions.find("b", None, [b"hi", b"y", b"z"]).past is None
    assert sessions.find("b", "one", [b"x"]).past is None
    named = sessions.find("a", "one", [b"something", b"else"]).past
    assert named is not None
    assert named.model == "large"
    assert sessions.find("a", "two", [b"hi", b"y", b"z"]).past is None, "a name of its own is a conversation of its own"


def test_idle_conversations_are_forgotten_and_talking_ones_are_not() -> None:
    clock = Clock()
    sessions = Sessions(idle_s=10, clock=clock)
    answer(sessions, [b"hi"], "small", name="quiet")
    for _ in range(3):
        answer(sessions, [b"hi"], "small", name="talking")
        clock.now_s += 6
    assert sessions.find("a", "quiet", [b"hi"]).past is None
    assert sessions.find("a", "talking", [b"hi"]).past is not None
    answer(sessions, [b"hi"], "small", name="new")
    assert len(sessions) == 2


def test_the_number_of_conversations_is_bounded_and_the_oldest_go_first() -> None:
    sessions = Sessions(capacity=3)
    for i in range(5):
        answer(sessions, [b"hi"], "small", name=str(i))
    assert len(sessions) == 3
    assert [i for i in range(5) if sessions.find("a", str(i), [b"hi"]).past is not None] == [2, 3, 4]


def test_warm_tokens_are_those_of_the_last_prompt_under_the_same_salt() -> None:
    sessions = Sessions()
    key = sessions.find("a", "s", [b"hi"])
    sessions.answered(key, "large", scope="one", prompts={"small": 20, "large": 30})
    key = sessions.find("a", "s", [b"more"])
    assert key.past is not None
    assert [key.past.warm_tokens(alias, "one") for alias in ("small", "large")] == [20, 30]
    assert key.past.warm_tokens("large", "two") == 0
    sessions.answered(key, "small", scope="one", prompts={"small": 50})
    past = sessions.find("a", "s", [b"hi"]).past
    assert past is not None
    assert (past.model, past.warm_tokens("small", "one"), past.warm_tokens("large", "one")) == ("small", 50, 30)
    sessions.answered(key, "small", scope="two", prompts={"small": 7})
    past = sessions.find("a", "s", [b"hi"]).past
    assert past is not None
    assert (past.warm_tokens("small", "two"), past.warm_tokens("large", "two")) == (7, 0)


def test_ids_of_two_gateways_differ_so_that_texts_cannot_be_tried_out_on_them() -> None:
    assert Sessions().find("a", None, [b"hi"]).id != Sessions().find("a", None, [b"hi"]).id


# ---- on a real server ---------------------------------------------------------------------------------------------


def turn(server: GatewayServer, said: list[dict[str, Any]], model: str, **router: Any) -> dict[str, Any]:
    """One turn, whose answer is added to `said`; returns the `router` object with its explanation."""
    reply = server.chat(model=model, messages=said, max_tokens=4, router={"explain": True, **router})
    assert reply.status == 200, reply.json
    message = reply.json["choices"][0]["message"]
    said.append({"role": "assistant", "content": message["content"] or ""})
    found: dict[str, Any] = reply.json["router"]
    return found


@pytest.mark.parametrize("name", [None, "a conversation"])
def test_a_conversation_that_went_large_stays_large(routed_server: GatewayServer, name: str | None) -> None:
    said: list[dict[str, Any]] = [{"role": "user", "content": f"a long talk about {name} " * 90}]
    asked = {} if name is None else {"session": name}
    first = turn(routed_server, said, "large", **asked)
    assert first["explain"]["session"]["last_model"] is None
    said.append({"role": "user", "content": "go on"})
    second = turn(routed_server, said, "auto", **asked)
    assert second["explain"]["session"]["last_model"] == "large"
    assert second["explain"]["session"]["id"] == first["explain"]["session"]["id"]
    assert (second["model"], second["reason"], second["pinned"]) == ("large", "pinned", True)
    assert second["explain"]["expected"]["large"]["warm_tokens"] > 0


def test_a_conversation_goes_down_where_little_is_lost(routed_server: GatewayServer) -> None:
    said: list[dict[str, Any]] = [{"role": "user", "content": "a short talk"}]
    assert turn(routed_server, said, "large")["model"] == "large"
    said.append({"role": "user", "content": "go on"})
    second = turn(routed_server, said, "auto")
    assert second["explain"]["session"]["last_model"] == "large"
    assert (second["model"], second["pinned"]) == ("small", False)


def test_a_conversation_may_go_up(routed_server: GatewayServer) -> None:
    said: list[dict[str, Any]] = [{"role": "user", "content": "something to be raised"}]
    assert turn(routed_server, said, "auto")["model"] == "small"
    said.append({"role": "user", "content": "go on"})
    raised = turn(routed_server, said, "auto", quality=1)
    assert (raised["model"], raised["pinned"]) == ("large", False)


def test_a_tool_loop_stays_where_it_began(routed_server: GatewayServer) -> None:
    said: list[dict[str, Any]] = [{"role": "user", "content": "call something in a loop"}]
    assert turn(routed_server, said, "auto")["model"] == "small"
    call = {"id": "c1", "type": "function", "function": {"name": "ping", "arguments": "{}"}}
    said[-1] = {"role": "assistant", "content": None, "tool_calls": [call]}
    said.append({"role": "tool", "tool_call_id": "c1", "content": "pong"})
    inside = turn(routed_server, said, "auto", quality=1)
    assert inside["explain"]["session"]["in_tool_loop"]
    assert (inside["model"], inside["reason"]) == ("small", "pinned")
