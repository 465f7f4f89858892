"""The tasks, on a contestant that only notes what it is asked."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers.contestant import Contestant, Tokens
from benchmarks.peers.tasks import OWN, SHARED, TASKS, run

VOCAB_SIZE = 1000


class Scribe(Contestant):
    """Answers with the right number of tokens, less `n_missing`."""

    def __init__(self, n_missing: int = 0) -> None:
        super().__init__(Path("none"), "none")
        self.asked: list[tuple[list[Tokens], int, bool]] = []
        self._n_missing = n_missing

    def load(self) -> None:
        """Nothing."""

    def generate(self, prompts: list[Tokens], n_tokens: int, schema: dict[str, Any] | None = None) -> list[Tokens]:
        self.asked.append((prompts, n_tokens, schema is not None))
        return [[7] * (n_tokens - self._n_missing) for _ in prompts]


@pytest.mark.parametrize("task", TASKS)
def test_two_contestants_are_asked_the_same_and_another_round_asks_anew(task: str) -> None:
    one, other, next_round = Scribe(), Scribe(), Scribe()
    run(task, one, 1, VOCAB_SIZE)
    run(task, other, 1, VOCAB_SIZE)
    run(task, next_round, 2, VOCAB_SIZE)
    assert one.asked == other.asked != next_round.asked
    assert all(0 <= token < VOCAB_SIZE for prompts, _, _ in one.asked for prompt in prompts for token in prompt)


def test_no_prompt_of_one_task_is_a_prompt_of_another() -> None:
    scribe = Scribe()
    for task in TASKS:
        run(task, scribe, 1, VOCAB_SIZE)
    prompts = [tuple(prompt[:16]) for asked, _, _ in scribe.asked for prompt in asked]
    shared = 2 * 16 - 1  # beginnings of the shared task that are equal by intent
    assert len(set(prompts)) == len(prompts) - shared


@pytest.mark.parametrize("task", TASKS)
def test_an_answer_of_another_length_is_no_measurement(task: str) -> None:
    with pytest.raises(ValueError, match="asked for"):
        run(task, Scribe(n_missing=1), 1, VOCAB_SIZE)


def test_sharing_is_768_tokens_in_both_runs_and_nothing_else() -> None:
    scribe = Scribe()
    run("shared", scribe, 1, VOCAB_SIZE)
    cold, warm = (asked[0] for asked in scribe.asked[-2:])
    assert {len(prompt) for prompt in cold + warm} == {SHARED + OWN}
    assert len({tuple(prompt[:SHARED]) for prompt in cold + warm}) == 1
    assert len({tuple(prompt[SHARED:]) for prompt in cold + warm}) == 32


def test_a_contestant_without_a_grammar_is_left_out_and_not_asked() -> None:
    scribe = Scribe()
    scribe.has_json = False
    assert run("json_8", scribe, 1, VOCAB_SIZE) == {"left_out": "has_json"}
    assert not scribe.asked
