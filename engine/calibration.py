"""A model's first steps, before the first request comes: run so that kernels are compiled, and measured so that
predictions are right."""

import time
from collections.abc import Iterator

import torch

from engine.cost_model import CostModel, StepCost
from engine.plan import Row, StepPlan
from engine.runner import ModelRunner

__all__ = ["calibrate", "warm_up"]

DECODES = ((1, 64), (4, 64), (16, 256), (32, 64))
"""Rows of a decode step and their context."""
CHUNKS = ((8, 0), (16, 0), (64, 0), (64, 512), (256, 0), (512, 0))
"""Tokens of a prompt chunk, and the position where it starts."""
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Tokens of a chunk from one to the next of which a GPU may take another kernel, for attention or for a product."""
LONG_CONTEXT = 1024
"""Keys of a row that attention cuts into ranges."""


def warm_up(runner: ModelRunner) -> None:
    """Compute steps of all sizes that are not recorded, on a GPU, which compiles a kernel where it is first called:
    seconds, which neither a measurement nor a request should wait for. As `calibrate`, it leaves nothing behind."""
    usable = spare = runner.n_blocks - 1
    others = len(runner.groups) - 1
    drawn = torch.zeros(1, dtype=torch.int64, device=runner.device)
    for n in (size for size in SIZES if size <= usable * runner.block_size):
        chunk, long = (
            tuple(i % usable for i in range(-(-end // runner.block_size))) for end in (n, max(n, LONG_CONTEXT))
        )
        rows = (
            Row("chunk", 0, (0,) * n, chunk, n_logits=n, other_tables=(chunk,) * others),
            # Without logits, so that no graph holds the step. Its token may be one that the host has not seen.
            Row("long", LONG_CONTEXT - 1, (0 if n == 1 else -1,), long, n_logits=0, other_tables=(long,) * others),
        )
        runner.run(StepPlan(0, rows), None if n == 1 else drawn)
    used = min(usable, -(-LONG_CONTEXT // runner.block_size))
    runner.copy_blocks([spare] * used, list(range(used)))


def calibrate(runner: ModelRunner, cost_model: CostModel, limit_s: float) -> int:
    """Fit the cost model to steps that are run now, in about `limit_s` seconds; returns how many kinds were measured.

    A kind of step that would not fit into what is left of the time, by what is known then, is left out: a slow model
    is measured by its smallest steps alone, and a limit of 0 measures nothing. Every page that was written is cleared,
    so nothing of it is left; call it before the first request.
    """
    began = time.perf_counter()
    usable = spare = runner.n_blocks - 1  # the last page stays as it is, to clear the others with
    measured: list[tuple[StepCost, float]] = []
    used = 0
    for plan in _plans(runner, usable) if limit_s > 0 else ():
        cost = cost_model.step(plan.rows)
        left = limit_s - (time.perf_counter() - began)
        if measured and 2 * cost_model.seconds(cost) > left:
            continue
        used = max(used, 1 + max(page for row in plan.rows for page in row.block_table))
        seconds = _seconds(runner, plan)
        for _ in range(2):  # the first run of a shape also prepares kernels for it, and any run may be disturbed
            if not measured or 8 * seconds < left:
                seconds = min(seconds, _seconds(runner, plan))
        measured.append((cost, seconds))
        cost_model.calibrate(measured)
    runner.copy_blocks([spare] * used, list(range(used)))
    return len(measured)


def _plans(runner: ModelRunner, usable: int) -> Iterator[StepPlan]:
    """The smallest steps first, decodes and chunks by turns; what has no room in the cache is left out."""
    shapes = [[(context - 1, 1)] * n_rows for n_rows, context in DECODES] + [[(start, n)] for n, start in CHUNKS]
    for shape in sorted(shapes, key=lambda rows: sum(n for _, n in rows)):
        needed = [-(-(start + n) // runner.block_size) for start, n in shape]
        if max(needed) <= usable:
            rows, first = [], 0
            for index, ((start, n), n_blocks) in enumerate(zip(shape, needed, strict=True)):
                table = tuple((first + i) % usable for i in range(n_blocks))
                tokens = tuple(i % runner.config.vocab_size for i in range(n))
                # The groups may share pages here: what is read does not matter.
                others = (table,) * (len(runner.groups) - 1)
                rows.append(Row(f"calibration {index}", start, tokens, table, n_logits=1, other_tables=others))
                first += n_blocks
            yield StepPlan(0, tuple(rows))


def _seconds(runner: ModelRunner, plan: StepPlan) -> float:
    began = time.perf_counter()
    runner.run(plan).logits[0, 0].item()  # a GPU is only waited for by who reads what it computed
    return time.perf_counter() - began
