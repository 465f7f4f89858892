"""Ways to fill the token masks of all streams after a step: one after another, or many rows in one call on threads.

    python -m benchmarks.mask_fills [--streams 16]

µs for a whole step of the bundled large model's vocabulary, along answers that the model wrote under a schema:

    matchers     what the engine does: `advance` and `fill_mask` of each matcher
    backend      the same calls of llguidance alone
    together     llguidance's executor: one call advances all, one fills all, on 1 or 2 threads of its own

Medians alone, and right after a product, while torch's threads still wait for the next one on the same cores, as they
do between two passes; the mean beside a busy Python thread, which gets the interpreter's lock when a call releases it.

An executor gives the lock back and wakes threads; one mask is too little work for either.
"""

import argparse
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.bundled import LARGE
from benchmarks.loop import load, prompts
from benchmarks.structured import CONSTRAINTS
from benchmarks.timing import machine
from engine import SamplingParams
from grammars import GrammarCompiler

Fill = Callable[[int], None]
STEPS = 64


def ways(answers: list[list[int]], matchers: Callable[[], list[Any]], n_words: int) -> dict[str, Callable[[], Fill]]:
    """By name: from nothing to a function that takes the tokens of one step and fills the masks after them."""
    import llguidance

    masks = torch.zeros(len(answers), n_words, dtype=torch.int32)
    rows, n_bytes = list(masks), n_words * masks.itemsize

    def by_matchers() -> Fill:
        found = matchers()

        def fill(step: int) -> None:
            for matcher, answer, row in zip(found, answers, rows, strict=True):
                matcher.advance(answer[step])
                matcher.fill_mask(row)

        return fill

    def by_backend() -> Fill:
        found = [matcher._state._matcher for matcher in matchers()]

        def fill(step: int) -> None:
            for matcher, answer, row in zip(found, answers, rows, strict=True):
                matcher.try_consume_tokens([answer[step]])
                matcher.unsafe_compute_mask_ptr(row.data_ptr(), n_bytes)

        return fill

    def together(n_threads: int) -> Fill:
        found, executor = [matcher._state._matcher for matcher in matchers()], llguidance.LLExecutor(n_threads)
        places = [(matcher, index) for index, matcher in enumerate(found)]

        def fill(step: int) -> None:
            executor.consume_token_par([(m, answer[step]) for m, answer in zip(found, answers, strict=True)])
            executor.unsafe_compute_mask_ptr(places, masks.data_ptr(), n_bytes, len(places))

        return fill

    return {
        "matchers": by_matchers,
        "backend": by_backend,
        "together, 1 thread": lambda: together(1),
        "together, 2 threads": lambda: together(2),
    }


def microseconds(fill: Fill, before: Callable[[], object]) -> list[float]:
    """Of each of STEPS steps. before: called ahead of each, and not counted."""
    steps = list[float]()
    for step in range(STEPS):
        before()
        began = time.perf_counter()
        fill(step)
        steps.append(1e6 * (time.perf_counter() - began))
    return steps


def beside_busy_thread(fill: Fill) -> list[float]:
    """The same while another thread runs Python code."""
    is_over = threading.Event()

    def spin() -> None:
        while not is_over.is_set():
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        return microseconds(fill, lambda: None)
    finally:
        is_over.set()
        thread.join()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mask_fills", description=__doc__.split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--streams", type=int, default=16)
    streams = parser.parse_args().streams
    constraint = CONSTRAINTS["schema"]
    with load(LARGE, 0, False) as engine:
        params = SamplingParams(temperature=1.0, seed=1, max_tokens=STEPS)
        answers = [r.token_ids for r in engine.generate(prompts(streams), params, constraint=constraint)]
        compiled = GrammarCompiler(engine.tokenizer, deadline_s=60).compile(constraint)
        n_words = compiled.matcher()._vocabulary.n_words
        x, weight = torch.randn(16, 2048), torch.randn(2048, 2048)
        print(machine())
        for name, build in ways(answers, lambda: [compiled.matcher() for _ in answers], n_words).items():
            alone = statistics.median(microseconds(build(), lambda: None))
            after = statistics.median(microseconds(build(), lambda: x @ weight))
            busy = statistics.mean(beside_busy_thread(build()))
            print(
                f"{name:20} {alone:7.0f}   after a product {after:7.0f}   beside a busy thread {busy:7.0f}", flush=True
            )


if __name__ == "__main__":
    main()
