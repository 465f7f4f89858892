"""Earlier calls and their results, whatever order a client gives them in, as the templates of models take them."""

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from grammars.dialects import with_results_in_order, with_single_calls


def turn(*ids: str) -> dict[str, Any]:
    """A turn that calls `tool_ID` for each id."""
    calls = [{"id": one, "type": "function", "function": {"name": f"tool_{one}", "arguments": {}}} for one in ids]
    return {"role": "assistant", "content": "Hm.", "tool_calls": calls}


def result(id_: str) -> dict[str, Any]:
    """What the call answered."""
    return {"role": "tool", "tool_call_id": id_, "content": f"of {id_}"}


USER = {"role": "user", "content": "hi"}


@given(order=st.permutations(["a", "b", "c", "unknown"]))
def test_results_come_in_the_order_of_their_calls_and_are_named_after_them(order: list[str]) -> None:
    given_results = [result(one) for one in order]
    found = with_results_in_order([USER, turn("a", "b", "c"), *given_results, USER, result("a")])
    assert [one.get("tool_call_id") for one in found] == [None, None, "a", "b", "c", "unknown", None, "a"]
    names = [one.get("name") for one in found if one["role"] == "tool"]
    assert names == ["tool_a", "tool_b", "tool_c", None, "tool_a"]
    assert all("name" not in one for one in given_results)


@given(ids=st.lists(st.sampled_from("abcd"), unique=True), answered=st.sets(st.sampled_from("abcdx")))
def test_split_turns_hold_each_call_once_with_its_result_behind_it(ids: list[str], answered: set[str]) -> None:
    messages = with_results_in_order([USER, turn(*ids), *map(result, sorted(answered)), USER])
    found = with_single_calls(messages)
    calls = [one["tool_calls"] for one in found if one["role"] == "assistant"]
    assert [call["id"] for of_turn in calls for call in of_turn] == ids
    assert all(len(of_turn) <= 1 for of_turn in calls)
    assert [one["content"] for one in found if one["role"] == "assistant"] == ["Hm."] + [""] * (len(calls) - 1)
    assert sorted(one["tool_call_id"] for one in found if one["role"] == "tool") == sorted(answered)
    for before, after in pairwise(found):
        if after["role"] == "tool" and after["tool_call_id"] in ids:
            assert before["tool_calls"][0]["id"] == after["tool_call_id"]
