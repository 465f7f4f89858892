"""Sections `decode-…`: a model end to end, through the step loop that serves.

tokens/s, batch N            beside it the bytes of weights and KV pages that its steps read, as a share of the
                             copy bandwidth; ms of a step by part, from the engine's counters
TTFT, ITL, context N         one request; beside it the ratio to the short context
GPU busy, batch N            kernels' time over all time, by the profiler and by those events
masked over unmasked, …      tokens/s of both, in turns
"""

import statistics
from collections.abc import Callable, Sequence

import torch

from benchmarks.gpu.bench import Bench, Run
from benchmarks.gpu.serving import Serving
from benchmarks.gpu.shapes import SHAPES
from engine.config import Quantization
from engine.request import SamplingParams

__all__ = ["BUSY_BATCH", "CONTEXT", "decode"]

BATCHES, BUSY_BATCH, CONTEXT, LONG_CONTEXT = (1, 8, 64, 256), 32, 200, 2000
STEPS, RUNS = 40, 5


def decode(shape: str, quantize: Quantization = "none", *, is_long: bool = True) -> Run:
    """The section of one shape. is_long: with more than tokens per second."""

    def run(bench: Bench) -> None:
        batches = bench.pick(BATCHES, (1, 2))
        short, long = bench.pick((CONTEXT, LONG_CONTEXT), (8, 20))
        steps, runs = bench.pick((STEPS, RUNS), (1, 1))
        added = steps * runs + 64
        config = SHAPES[shape].config(is_toy=bench.is_toy)
        serving = Serving(
            bench,
            config,
            quantize,
            max_rows=max(batches),
            max_len=long + added,
            n_tokens=max(max(batches) * (short + added), long + added),
        )
        _tokens(bench, serving, batches, short, steps, runs)
        if is_long:
            _latency(bench, serving, (short, long), steps, runs)
            batch = bench.pick(BUSY_BATCH, 2)
            _busy(bench, serving, batch, short, steps)
            _masked(bench, serving, batch, short, steps, runs)

    return run


def _tokens(bench: Bench, serving: Serving, batches: tuple[int, ...], context: int, steps: int, runs: int) -> None:
    for batch in batches:
        if not bench.has_time(f"batch {batch}"):
            return
        serving.start(batch, context)
        serving.on_device()
        seconds, shares, before = list[float](), list[float](), serving.counted()
        for _ in range(runs):
            reading = serving.step_bytes()
            seconds.append(sum(serving.steps(steps)) / steps)
            reading = (reading + serving.step_bytes()) / 2
            shares.append(reading / seconds[-1] / bench.copy_bytes_per_s)
        after = serving.counted()
        parts = {f"{name} ms": 1000 * (after[name] - before[name]) / (steps * runs) for name in after}
        parts |= {f"GPU {name} ms": 1000 * value / (steps * runs) for name, value in serving.on_device().items()}
        serving.stop()
        bench.add(
            f"batch {batch}",
            [batch / each for each in seconds],
            "tokens/s",
            of_copy=statistics.median(shares),
            **{"step ms": 1000 * statistics.median(seconds)},
            **parts,
        )


def _latency(bench: Bench, serving: Serving, contexts: tuple[int, int], steps: int, runs: int) -> None:
    found: dict[int, list[float]] = {context: [] for context in contexts}
    waits: dict[int, list[float]] = {context: [] for context in contexts}
    for _ in range(min(runs, 3)):
        for context in contexts:
            waits[context].append(1000 * serving.start(1, context))
            found[context].append(1000 * statistics.median(serving.steps(steps)))
            serving.stop()
    bench.add(f"TTFT, context {contexts[1]}", waits[contexts[1]], "ms")
    short = statistics.median(found[contexts[0]])
    for context, values in found.items():
        bench.add(f"ITL, context {context}", values, "ms", over_short=statistics.median(values) / short)


def _busy(bench: Bench, serving: Serving, batch: int, context: int, steps: int) -> None:
    serving.start(batch, context)
    serving.on_device()
    wall = sum(serving.steps(2 * steps))
    bench.add(f"GPU busy by events, batch {batch}", [sum(serving.on_device().values()) / wall], "of the time")
    if bench.is_cuda:
        try:
            share = _kernel_share(lambda: serving.steps(max(1, steps // 2)))
            bench.add(f"GPU busy by the profiler, batch {batch}", [share], "of the time")
        except Exception as error:  # the profiler is not allowed, or not built in, everywhere
            bench.leave_out(f"GPU busy by the profiler: {type(error).__name__}: {error}")
    serving.stop()


def _kernel_share(work: Callable[[], object]) -> float:
    """For how much of the time between the first and the last of them kernels and copies were under way."""
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        torch.cuda.synchronize()
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in profile.events() or ()
        if event.device_type.name == "CUDA"
    ]
    if not spans:
        raise RuntimeError("the profiler saw no kernel")
    return covered(spans)


def covered(spans: Sequence[tuple[float, float]]) -> float:
    """For how much of the time from the first beginning to the last end at least one of (begin, end) was under way."""
    ordered = sorted(spans)
    first, reached = ordered[0]
    idle = 0.0
    for begin, end in ordered:
        idle += max(0.0, begin - reached)
        reached = max(reached, end)
    return 1.0 - idle / (reached - first)


def _masked(bench: Bench, serving: Serving, batch: int, context: int, steps: int, runs: int) -> None:
    params = SamplingParams(temperature=0.8, seed=1)
    rates: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(runs):
        for is_masked, found in rates.items():
            serving.start(batch, context, is_masked=is_masked, params=params)
            found.append(batch * steps / sum(serving.steps(steps)))
            serving.stop()
    bench.add(f"unmasked, batch {batch}", rates[False], "tokens/s")
    ratio = statistics.median(masked / free for masked, free in zip(rates[True], rates[False], strict=True))
    bench.add(f"masked, batch {batch}", rates[True], "tokens/s", over_unmasked=ratio)
