"""What the prefix cache saves, and costs, in the time to the first token.

    python -m benchmarks.first_token [--shape S] [--quantize w8a8] [--runs 5]

On random weights of a real shape: a prompt of 768 + 32 tokens is computed cold, then with other last 32 tokens (the
ratio is warm over cold); and prompts that share nothing, with the cache over without it, in pairs.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

from benchmarks.checkpoints import SHAPES, build_checkpoint
from benchmarks.timing import Spread
from engine import Engine, SamplingParams

SHARED, OWN = 768, 32


def main() -> None:
    """Print both ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="S")
    parser.add_argument("--quantize", choices=("none", "w8a8", "int4"), default="w8a8")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    source, one = random.Random(0), SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)

    def tokens(n: int) -> list[int]:
        return [source.randrange(300, 8000) for _ in range(n)]

    def seconds(engine: Engine, prompt: list[int]) -> float:
        began = time.perf_counter()
        engine.generate(prompt, one)
        return time.perf_counter() - began

    with tempfile.TemporaryDirectory() as folder:
        path = build_checkpoint(SHAPES[options.shape], Path(folder))
        cached, plain = (
            Engine.from_pretrained(path, quantize=options.quantize, prefix_cache=is_on) for is_on in (True, False)
        )
        warm, cost = [], []
        for run in range(options.runs + 1):  # the first one warms up
            prefix = tokens(SHARED)
            cold = seconds(cached, prefix + tokens(OWN))
            ratio = seconds(cached, prefix + tokens(OWN)) / cold
            without = seconds(plain, tokens(SHARED + OWN))
            if run:
                warm.append(ratio)
                cost.append(seconds(cached, tokens(SHARED + OWN)) / without)
    print(f"first token, warm over cold                     {Spread.of(warm)}")
    print(f"nothing shared, with the cache over without it  {Spread.of(cost)}")


if __name__ == "__main__":
    main()
