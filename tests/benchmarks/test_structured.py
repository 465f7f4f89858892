"""The benchmark of constraints: what it compares is the same amount of work, and its clocks leave nothing behind."""

from dataclasses import dataclass
from typing import Any, cast

import pytest

from benchmarks.structured import CLOCKED, CONSTRAINTS, WAVES, Job, clocked
from engine import Engine
from engine.guarded_matcher import GrammarFault, GuardedMatcher


@dataclass
class Result:
    token_ids: list[int]


class Shortening:
    """An engine whose answers under a constraint lack so many tokens."""

    def __init__(self, missing: int) -> None:
        self._missing = missing

    def generate(self, prompts: list[list[int]], params: Any, constraint: Any = None) -> list[Result]:
        n = params.max_tokens - (0 if constraint is None else self._missing)
        return [Result([1] * n) for _ in prompts]


def test_answers_of_other_lengths_are_not_compared() -> None:
    job, schema = Job(streams=2, n_tokens=8, temperature=0.0), CONSTRAINTS["schema"]
    assert job.run(cast(Engine, Shortening(0)), schema).speed > 0.0
    with pytest.raises(RuntimeError, match=f"{2 * WAVES * 7} tokens instead of {2 * WAVES * 8}"):
        job.run(cast(Engine, Shortening(1)), schema)


class Refusing:
    def advance(self, _token_id: int) -> bool:
        return False


def test_clocks_count_what_is_called_and_are_taken_off_again() -> None:
    methods = [getattr(owner, attribute) for _, owner, attribute in CLOCKED]
    matcher = GuardedMatcher(cast(Any, Refusing()), frozenset(), 40)
    with pytest.raises(GrammarFault), clocked() as spent:
        matcher.advance(1)
    assert spent["advance matchers"] > 0.0
    assert spent["fill masks"] == 0.0
    assert [getattr(owner, attribute) for _, owner, attribute in CLOCKED] == methods
