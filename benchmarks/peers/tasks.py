"""The tasks: which prompts a contestant gets, and what is timed.

Prompts are random tokens drawn from the task's name and seed, so that every contestant gets the same ones, and no
prefix cache has seen them before, except where sharing is the task.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.contestant import MAX_SEQUENCES, Contestant, Tokens

Figures = dict[str, Any]
FIRST_TOKEN = 300
SHARED, OWN = 768, 32
SCHEMA = {
    "type": "array",
    "minItems": 50,  # no answer ends within the tokens that are asked for
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "kind": {"enum": ["alpha", "beta", "gamma"]},
            "count": {"type": "integer", "minimum": 0, "maximum": 99},
            "is_public": {"type": "boolean"},
        },
        "required": ["name", "kind", "count", "is_public"],
        "additionalProperties": False,
    },
}


@dataclass(frozen=True, slots=True)
class Task:
    """measure: prompts are drawn from the random source. needs: the contestant's attribute without which the task is
    left out. rounds: at most so many, for what takes long."""

    measure: Callable[[Contestant, "Prompts"], Figures]
    needs: str = ""
    rounds: int = 100


class Prompts:
    """A source of prompts that never repeat."""

    def __init__(self, seed: str, vocab_size: int) -> None:
        """Equal seeds give equal prompts."""
        self._random, self._vocab_size = random.Random(seed), vocab_size

    def draw(self, n: int, length: int) -> list[Tokens]:
        """n prompts of `length` tokens."""
        last = self._vocab_size - FIRST_TOKEN
        return [[self._random.randrange(FIRST_TOKEN, last) for _ in range(length)] for _ in range(n)]


def timed(
    contestant: Contestant, prompts: list[Tokens], n_tokens: int, schema: dict[str, Any] | None = None
) -> tuple[float, list[Tokens]]:
    """Seconds and answers. Raises ValueError where an answer has another length than was asked for."""
    begun = time.perf_counter()
    answers = contestant.generate(prompts, n_tokens, schema)
    seconds = time.perf_counter() - begun
    lengths = sorted({len(answer) for answer in answers})
    if len(answers) != len(prompts) or lengths != [n_tokens]:
        raise ValueError(f"{len(answers)} answers of {lengths} tokens, asked for {len(prompts)} of {n_tokens}")
    return seconds, answers


def warm_up(contestant: Contestant, prompts: Prompts) -> Figures:
    """One small run of each size, so that nothing is compiled or allocated for the first time later."""
    timed(contestant, prompts.draw(1, 1024), 2)
    if contestant.has_batching:
        timed(contestant, prompts.draw(MAX_SEQUENCES, 128), 2)
    if contestant.has_json:
        for n in (1, 8) if contestant.has_batching else (1,):
            timed(contestant, prompts.draw(n, 32), 3, SCHEMA)
    return {}


def decode(contestant: Contestant, prompts: Prompts, n_tokens: int = 64) -> Figures:
    """Seconds per token of one stream: a run of n + 1 tokens less a run of one, divided by n."""
    first, _ = timed(contestant, prompts.draw(1, 32), 1)
    whole, _ = timed(contestant, prompts.draw(1, 32), n_tokens + 1)
    return {"decode": (whole - first) / n_tokens}


def prefill(contestant: Contestant, prompts: Prompts, length: int = 1024) -> Figures:
    """Seconds per prompt token, up to the first token of the answer. The first tokens of the answers tell whether
    contestants compute the same model."""
    seconds, [answer] = timed(contestant, prompts.draw(1, length), 1)
    return {"prefill": seconds / length, "answer": answer}


def batch(contestant: Contestant, prompts: Prompts, n_tokens: int = 64) -> Figures:
    """Seconds per generated token over all of 16 requests at once, 128 tokens in each, prefill included."""
    seconds, answers = timed(contestant, prompts.draw(MAX_SEQUENCES, 128), n_tokens)
    return {"batch": seconds / (MAX_SEQUENCES * n_tokens), "answer": [answer[0] for answer in answers]}


def shared(contestant: Contestant, prompts: Prompts) -> Figures:
    """Seconds until 16 requests that share 768 tokens and have 32 of their own all have two tokens: cold, then warm,
    with the same prefix and other own tokens. Not one token: transformers caches nothing of requests that end so
    soon."""
    [prefix] = prompts.draw(1, SHARED)
    cold, _ = timed(contestant, [prefix + own for own in prompts.draw(MAX_SEQUENCES, OWN)], 2)
    warm, _ = timed(contestant, [prefix + own for own in prompts.draw(MAX_SEQUENCES, OWN)], 2)
    return {"shared_cold": cold, "shared_warm": warm}


def unshared(contestant: Contestant, prompts: Prompts) -> Figures:
    """The same seconds for as many tokens of which nothing is shared."""
    return {"unshared": timed(contestant, prompts.draw(MAX_SEQUENCES, SHARED + OWN), 2)[0]}


def structured(n: int) -> Callable[[Contestant, Prompts], Figures]:
    """Seconds per token of n requests whose answers are JSON of one schema, compiled before, and of free ones."""

    def measure(contestant: Contestant, prompts: Prompts, n_tokens: int = 48) -> Figures:
        free, _ = timed(contestant, prompts.draw(n, 32), n_tokens)
        json_s, _ = timed(contestant, prompts.draw(n, 32), n_tokens, SCHEMA)
        return {f"json_{n}": json_s / (n * n_tokens), f"free_{n}": free / (n * n_tokens)}

    return measure


WARM_UP = "warm_up"
TASKS = {
    WARM_UP: Task(warm_up),
    "decode": Task(decode),
    "prefill": Task(prefill),
    "batch": Task(batch, "has_batching"),
    "shared": Task(shared, "has_prefix_cache"),
    "unshared": Task(unshared, "has_batching", rounds=1),
    "json_1": Task(structured(1), "has_json"),
    "json_8": Task(structured(8), "has_json"),
}


def run(name: str, contestant: Contestant, seed: int, vocab_size: int) -> Figures:
    """The figures of one run of a task; `left_out` where the contestant cannot do it."""
    task = TASKS[name]
    if task.needs and not getattr(contestant, task.needs):
        return {"left_out": task.needs}
    prompts = Prompts(f"{name} {seed}", vocab_size)
    contestant.generate(prompts.draw(1, 32), 3)  # the process was stopped: bring its weights back before the clock runs
    return task.measure(contestant, prompts)
