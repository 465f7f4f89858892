"""Section `verify-…`: what a step costs that verifies drafts, beside one that yields a token of each request.

chain of N, batch B     a token and N - 1 drafted ones for each of B requests; beside it the ratio to one token each,
                        which is also how many tokens such a step must yield on average to pay
tree of N, batch B      the same where every node has two children, in steps recorded for trees
… of 8 at most          in steps that are recorded for 8 tokens of a request instead of 17
"""

from collections.abc import Iterator

from benchmarks.gpu.bench import Bench, Run, scaled
from benchmarks.gpu.serving import BLOCK_SIZE, GPU
from benchmarks.gpu.shapes import SHAPES
from benchmarks.timing import Spread
from engine.config import CacheConfig
from engine.models.decoder import Decoder
from engine.models.loading import random_decoder
from engine.plan import Row, StepPlan
from engine.quantization import converter
from engine.runner import ModelRunner

__all__ = ["verification"]

BATCHES, TOKENS, CONTEXT = (1, 8, 32), (2, 4, 8, 9, 17), 1000
KINDS = (("chain", 17, 1, ""), ("tree", 17, 2, ""), ("chain", 8, 1, " of 8 at most"))
"""Kind of draft, tokens of a request that steps are recorded for, width, what the figure is called more."""


def verification(shape: str) -> Run:
    """The section of one shape."""

    def run(bench: Bench) -> None:
        batches, sizes = bench.pick(BATCHES, (1, 2)), bench.pick(TOKENS, (2, 9))
        context = bench.pick(CONTEXT, 20)
        config = SHAPES[shape].config(is_toy=bench.is_toy)
        max_len = context + max(sizes)
        convert = converter("none", bench.dtype, GPU, is_invariant=False)
        decoder = random_decoder(config, bench.dtype, bench.device, convert, max_len)
        bench.tell(f"{decoder.n_parameters / 1e9:.2f} G weights drawn")
        for kind, most, width, more in KINDS:
            if not bench.has_time(f"{kind}{more}"):
                return
            _measure(bench, decoder, kind, [n for n in sizes if n <= most], batches, context, most, width, more)
            bench.free()

    return run


def _measure(
    bench: Bench,
    decoder: Decoder,
    kind: str,
    sizes: list[int],
    batches: tuple[int, ...],
    context: int,
    most: int,
    width: int,
    more: str,
) -> None:
    """Figures of one kind of draft. most: tokens of a request that steps are recorded for."""
    pages = -(-(context + most) // BLOCK_SIZE)
    cache = CacheConfig(block_size=BLOCK_SIZE, n_blocks=max(batches) * pages + 1)
    runner = ModelRunner(decoder.config, decoder, cache, platform=bench.platform)
    runner.record(max(batches), context + most, most - 1, width=width)

    def timed(plan: StepPlan) -> Spread:
        return bench.seconds_of(lambda _: runner.run(plan), 1, is_recorded=False)

    for batch in batches:
        plain = timed(_plan(batch, 1, context, pages, kind))
        bench.add(f"one token, batch {batch}, beside a {kind}{more}", scaled(plain, 1000), "ms")
        for n in sizes:
            spread = timed(_plan(batch, n, context, pages, kind))
            name, over_one = f"{kind} of {n}, batch {batch}{more}", spread.median / plain.median
            bench.add(name, scaled(spread, 1000), "ms", over_one=over_one)


def _plan(batch: int, n: int, context: int, pages: int, kind: str) -> StepPlan:
    """A step of `batch` requests behind a context, each with n tokens of which the last n - 1 are a draft."""
    parents = tuple((node - 2) // 2 for node in range(n - 1)) if kind == "tree" and n > 1 else ()

    def rows() -> Iterator[Row]:
        for row in range(batch):
            tokens = tuple(2 + (row * 31 + at) % 100 for at in range(n))
            table = tuple(range(row * pages, (row + 1) * pages))
            yield Row(f"{row}", context, tokens, table, n_logits=n, parents=parents)

    return StepPlan(0, tuple(rows()))
