"""The embedded engine against transformers' `generate`, structured against
free output on the bundled large model, and what it costs beside the small one.

    python -m benchmarks.bundled [--runs 5] [--json OUT]

Every figure is a ratio of two measurements that alternate in this run, with the median of its runs. Prompts are those
of the hand-written test sentences. Both sides decode greedily, in the same precision, exactly as many tokens as asked
(the end token is banned), so the work is the same; transformers gets its best simple form, one padded batch.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks.timing import Spread, machine
from bundled_models.cases import HANDWRITTEN, Case, written
from bundled_models.evaluation import constraint_of
from engine import Engine, SamplingParams

SMALL, LARGE = (Path(__file__).parents[1] / "bundled_models" / size for size in ("small", "large"))
TOKENS = 64


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def ratios(runs: int, ours: Callable[[], object], theirs: Callable[[], object]) -> Spread:
    """theirs / ours in wall time, pair by pair, after one warm-up of each: above 1 means that ours is faster."""
    ours(), theirs()
    return Spread.of([1 / (seconds(ours) / seconds(theirs)) for _ in range(runs)])


class Peer:
    """transformers' `generate` on the same checkpoint."""

    def __init__(self, folder: Path) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    def generate(self, prompts: list[list[int]]) -> None:
        """TOKENS greedy tokens for every prompt, padded on the left."""
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        with torch.inference_mode():
            self._model.generate(
                ids, attention_mask=mask, do_sample=False, min_new_tokens=TOKENS, max_new_tokens=TOKENS, pad_token_id=0
            )


def against_transformers(engine: Engine, cases: list[Case], runs: int) -> dict[str, Spread]:
    """One stream and 16 at once, prefill included; the engine's prefix cache is off."""
    peer = Peer(LARGE)
    prompts = [engine.tokenizer.encode(case.prompt) for case in cases]
    exact = SamplingParams(temperature=0, max_tokens=TOKENS, min_tokens=TOKENS, ignore_eos=True)
    found = {}
    for name, batch in (("1 stream", prompts[:1]), ("16 at once", prompts[:16])):
        tokens: list[Any] = list(batch)
        found[name] = ratios(runs, partial(engine.generate, tokens, exact), partial(peer.generate, batch))
    return found


def structured_against_free(engine: Engine, cases: list[Case], runs: int) -> dict[str, Spread]:
    """Seconds of free output of the same length over seconds of structured output, at 1 and 16 streams."""
    found = {}
    for name, batch in (("1 stream", cases[:1]), ("16 at once", cases[:16])):
        prompts: list[Any] = [engine.tokenizer.encode(case.prompt) for case in batch]
        constraints = [constraint_of(case) for case in batch]
        params = SamplingParams(temperature=0, max_tokens=256)
        lengths = [len(r.token_ids) for r in engine.generate(prompts, params, constraint=constraints)]
        free = [SamplingParams(temperature=0, max_tokens=n, min_tokens=n, ignore_eos=True) for n in lengths]
        found[name] = ratios(
            runs,
            partial(engine.generate, prompts, params, constraint=constraints),
            partial(engine.generate, prompts, free),
        )
    return found


def large_over_small(large: Engine, small: Engine, cases: list[Case], runs: int) -> dict[str, Spread]:
    """Wall time of the large model over that of the small one for the same prompts and lengths, at 1 and 16 streams."""
    exact = SamplingParams(temperature=0, max_tokens=TOKENS, min_tokens=TOKENS, ignore_eos=True)
    found = {}
    for name, count in (("1 stream", 1), ("16 at once", 16)):
        prompts: list[Any] = [large.tokenizer.encode(case.prompt) for case in cases[:count]]
        found[name] = ratios(runs, partial(small.generate, prompts, exact), partial(large.generate, prompts, exact))
    return found


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bundled", description=__doc__.split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="OUT")
    given = parser.parse_args()
    cases = [case for case in written(HANDWRITTEN) if case.kind in ("call", "extract")]
    with Engine.from_pretrained(LARGE, prefix_cache=False) as engine:
        speed = against_transformers(engine, cases, given.runs)
        structure = structured_against_free(engine, cases, given.runs)
        with Engine.from_pretrained(SMALL, prefix_cache=False) as small:
            gap = large_over_small(engine, small, cases, given.runs)
    for title, found in (
        ("faster than transformers generate (ratio of wall times)", speed),
        ("structured against free output of the same length (1 = no cost)", structure),
        ("cost of the large model, prompt and answer, in those of the small one", gap),
    ):
        print(title)
        for name, spread in found.items():
            print(f"  {name:12} {spread}")
    if given.json:
        result = {
            "machine": machine(),
            "over_transformers": {n: asdict(s) for n, s in speed.items()},
            "structured_over_free": {n: asdict(s) for n, s in structure.items()},
            "large_over_small": {n: asdict(s) for n, s in gap.items()},
        }
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
