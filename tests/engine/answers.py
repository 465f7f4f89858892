"""Requests of every kind, and when two answers to one of them are the same."""

import msgspec
import pytest
import torch

from engine.messages import Submit
from grammars import Choice, JsonSchema, Regex
from tests.engine.harness import Seen, submit

SHARED = [(i * 37 + 11) % 480 + 8 for i in range(40)]
SCHEMA = JsonSchema(
    {
        "type": "object",
        "properties": {"name": {"enum": ["anna", "bob"]}, "count": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["name", "count"],
        "additionalProperties": False,
    }
)
SUBMITS = [
    submit("greedy", [5, 6, 7], max_tokens=20, ignore_eos=True),
    submit("shared", SHARED, max_tokens=12, ignore_eos=True),
    submit("shared longer", [*SHARED, 9, 10, 11], max_tokens=16, temperature=0.9, seed=3),
    submit("shared in part", [*SHARED[:17], 99], max_tokens=9, temperature=1.3, seed=-4, top_p=0.8, logprobs=3),
    submit("same, other seed", [5, 6, 7], max_tokens=20, temperature=1.0, seed=8, top_k=20),
    submit("penalised", [5, 6, 7, 8], max_tokens=24, repetition_penalty=1.4, frequency_penalty=0.6, ignore_eos=True),
    submit("stopped", SHARED[:9], max_tokens=30, temperature=1.5, seed=5, stop=("e", "a"), min_tokens=6),
    submit("json", SHARED[:21], max_tokens=40, temperature=1.0, seed=2, constraint=SCHEMA, logprobs=0),
    submit("json greedy", [7, 7, 7], max_tokens=40, constraint=SCHEMA),
    submit("json cut off", [8, 7, 7], max_tokens=7, temperature=1.0, seed=1, constraint=SCHEMA),
    submit("choice", [4, 5], constraint=Choice(("hello world", "hello there")), temperature=2.0, seed=9),
    submit("regex", SHARED[5:30], max_tokens=14, constraint=Regex("(ab|cd){3,8}"), temperature=1.0, seed=4),
]


def assert_same(seen: Seen, reference: Seen) -> None:
    """Tokens, text, log-probabilities up to rounding, and the end."""
    one, other = seen.finished, reference.finished
    assert (one.token_ids, one.text, one.reason) == (other.token_ids, other.text, other.reason)
    assert (one.stop_match, one.is_complete) == (other.stop_match, other.is_complete)
    assert [entry.token_id for entry in seen.logprobs] == [entry.token_id for entry in reference.logprobs]
    for mine, theirs in zip(seen.logprobs, reference.logprobs, strict=True):
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-3)
        assert [token for token, _ in mine.top] == [token for token, _ in theirs.top]


def assert_same_bits(found: dict[int, torch.Tensor], reference: dict[int, torch.Tensor]) -> None:
    """Logits of the positions that both computed: forced tokens need none, so one may have fewer."""
    assert found.keys() & reference.keys()
    for position in found.keys() & reference.keys():
        assert torch.equal(found[position], reference[position]), f"position {position} differs"


def renamed(each: Submit, name: str) -> Submit:
    """The same under another id."""
    return msgspec.structs.replace(each, id=name)
