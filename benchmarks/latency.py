"""How evenly tokens come: beside a long prompt, and beside a larger model that is saturated.

    python -m benchmarks.latency [--runs 3] [--large S] [--small T] [--json OUT]

Checkpoints have real shapes and random weights. Gaps are those between two tokens of one answer, as the step loop
hands them out. `long prompt`: 8 answers stream, then a prompt of 4,000 tokens joins; the ratio is the p99 of the gaps
while it is computed over the p99 of as many steps without it, in which the answers grow as long. `pair`: the large
model has 16 answers and as many prompts waiting, the small one 2 answers; the ratios are the p99 of the small one's
gaps over the large one's steps. `predictions`: seconds of steps that the calibration did not run, predicted over
measured. `scheduling`: schedule, commit and prediction of one step of 32 rows, without a model.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path

import torch

from benchmarks.checkpoints import SHAPES, build_checkpoint
from benchmarks.timing import Spread, machine, percentile
from engine.blocks import BlockPool
from engine.calibration import calibrate
from engine.chunk_limit import Shape
from engine.config import CacheConfig, EngineConfig, SchedulerConfig
from engine.core import EngineCore
from engine.cost_model import CostModel, WeightBytes
from engine.messages import Cancel, Delta, Finished, Submit
from engine.models.config import ModelConfig
from engine.models.loading import load_decoder
from engine.pair import load_engine
from engine.pair_config import InstanceOptions, PairConfig
from engine.plan import Accepted, Row, StepPlan, StepResult
from engine.request import Request, SamplingParams
from engine.runner import ModelRunner
from engine.scheduler import Scheduler

STREAMS, PROMPT, LONG_PROMPT, WARM_STEPS = 8, 64, 4000, 20
LARGE_STREAMS, LARGE_PROMPT, LARGE_ANSWER, SMALL_STREAMS = 16, 256, 48, 2
PAIR_STEPS = 400
ROWS, SCHEDULED_STEPS = 32, 2000
CACHE = CacheConfig(n_blocks=512)


class Load:
    """A core under load: submits greedy requests of random tokens, and notes when each token of an answer came."""

    def __init__(self, core: EngineCore) -> None:
        self.core, self._ids, self._draw = core, count(), random.Random(0)
        self.times: dict[str, list[float]] = {}
        self.finished: set[str] = set()
        self.step_s: dict[str, list[float]] = {info.name: [] for info in core.info()}

    def submit(self, model: str, n_prompt: int, n_answer: int) -> str:
        """Post a request; returns its id."""
        request_id = f"{model} {next(self._ids)}"
        tokens = [self._draw.randrange(8, 1000) for _ in range(n_prompt)]
        params = SamplingParams(temperature=0, max_tokens=n_answer, ignore_eos=True)
        self.times[request_id] = []
        self.core.post(Submit(id=request_id, model=model, params=params, tokens=tokens))
        return request_id

    def step(self) -> None:
        """One step of the loop."""
        before = {name: stats["steps"] for name, stats in self.core.stats().items()}
        began = time.perf_counter()
        events = self.core.step()
        now = time.perf_counter()
        for name, stats in self.core.stats().items():
            if stats["steps"] > before[name]:
                self.step_s[name].append(now - began)
        for event in events:
            if isinstance(event, Delta):
                self.times[event.id].append(now)
            elif isinstance(event, Finished):
                self.finished.add(event.id)

    def gaps(self, ids: list[str], since: float) -> list[float]:
        """Seconds between the tokens of these answers, those after `since`."""
        return [
            after - before
            for request_id in ids
            for before, after in zip(self.times[request_id], self.times[request_id][1:], strict=False)
            if before >= since
        ]

    def clear(self) -> None:
        """End everything."""
        for request_id in self.times.keys() - self.finished:
            self.core.post(Cancel(request_id))
        while self.core.has_work:
            self.step()
        self.times.clear()


def core_of(folders: dict[str, Path], scheduler: SchedulerConfig | None = None) -> EngineCore:
    """Models by name, without a prefix cache."""
    models = {
        name: EngineConfig(folder, cache=CACHE, scheduler=scheduler or SchedulerConfig())
        for name, folder in folders.items()
    }
    return load_engine(PairConfig(models, options=InstanceOptions(prefix_cache=False))).core


def long_prompt(core: EngineCore, runs: int) -> dict[str, Spread]:
    """The p99 of gaps while a long prompt is computed beside the answers and in as many steps without it, in ms, and
    the prompt's time to the first token."""
    beside, alone, ratio, ttft = list[float](), list[float](), list[float](), list[float]()
    for _ in range(runs):
        load, streams = streaming(core)
        joined, n_steps = time.perf_counter(), 0
        prompt = load.submit("large", LONG_PROMPT, 1)
        while prompt not in load.finished:
            load.step()
            n_steps += 1
        beside.append(percentile(load.gaps(streams, joined), 0.99))
        ttft.append(load.times[prompt][0] - joined)
        load.clear()
        load, streams = streaming(core)
        began = time.perf_counter()
        for _ in range(n_steps):
            load.step()
        alone.append(percentile(load.gaps(streams, began), 0.99))
        ratio.append(beside[-1] / alone[-1])
        load.clear()
    return {
        "p99 beside the prompt, ms": Spread.of([1000 * s for s in beside]),
        "p99 without it, ms": Spread.of([1000 * s for s in alone]),
        "p99 beside / without": Spread.of(ratio),
        "first token of the prompt, s": Spread.of(ttft),
    }


def streaming(core: EngineCore) -> tuple[Load, list[str]]:
    """A load of answers that have been streaming for a while, and their ids."""
    load = Load(core)
    streams = [load.submit("large", PROMPT, LONG_PROMPT) for _ in range(STREAMS)]
    while not all(load.times[request_id] for request_id in streams):
        load.step()
    for _ in range(WARM_STEPS):
        load.step()
    return load, streams


def beside_a_saturated_model(core: EngineCore, runs: int) -> dict[str, Spread]:
    """The p99 of the small model's gaps, in ms, and over the large model's steps: their median and their p99."""
    gaps, over_median, over_p99 = list[float](), list[float](), list[float]()
    for _ in range(runs):
        load = Load(core)
        small = [load.submit("small", PROMPT, LONG_PROMPT) for _ in range(SMALL_STREAMS)]
        while not all(load.times[request_id] for request_id in small):
            load.step()
        began = time.perf_counter()
        load.step_s = {name: [] for name in load.step_s}
        while len(load.step_s["large"]) < PAIR_STEPS:
            stats = core.stats()["large"]
            while stats["running_now"] + stats["waiting_now"] < 2 * LARGE_STREAMS:
                load.submit("large", LARGE_PROMPT, LARGE_ANSWER)
                stats["waiting_now"] += 1
            load.step()
        gap, steps = percentile(load.gaps(small, began), 0.99), load.step_s["large"]
        gaps.append(gap)
        over_median.append(gap / statistics.median(steps))
        over_p99.append(gap / percentile(steps, 0.99))
        load.clear()
    return {
        "p99 of the small one's gaps, ms": Spread.of([1000 * s for s in gaps]),
        "over the median large step": Spread.of(over_median),
        "over the p99 of large steps": Spread.of(over_p99),
    }


def predictions(folder: Path) -> dict[str, float]:
    """Predicted over measured seconds of steps that the calibration did not run."""
    dtype = torch.bfloat16
    decoder = load_decoder(folder, dtype)
    runner = ModelRunner(decoder.config, decoder, CACHE)
    *layers, head = (projection.n_bytes for projection in decoder.projections)
    weights = WeightBytes(sum(layers), head)
    model = CostModel(decoder.config, weights, itemsize=dtype.itemsize, block_size=runner.block_size)
    calibrate(runner, model, InstanceOptions().calibrate_s)
    found = {}
    for name, shapes in {
        "2 decodes": [(99, 1)] * 2,
        "8 decodes": [(199, 1)] * 8,
        "8 decodes at 1000": [(999, 1)] * 8,
        "24 decodes": [(299, 1)] * 24,
        "chunk of 32": [(0, 32)],
        "chunk of 128": [(0, 128)],
        "chunk of 100 at 2000": [(2000, 100)],
        "8 decodes, chunk of 12": [(199, 1)] * 8 + [(600, 12)],
        "8 decodes, chunk of 100": [(199, 1)] * 8 + [(600, 100)],
    }.items():
        plan = StepPlan(0, tuple(_rows(shapes, runner)))
        runner.run(plan)
        measured = min(_seconds(lambda plan=plan: runner.run(plan)) for _ in range(3))  # type: ignore[misc]
        found[name] = model.seconds(model.step(plan.rows)) / measured
    return found


def _rows(shapes: list[tuple[int, int]], runner: ModelRunner) -> Iterator[Row]:
    first = 0
    for index, (start, n) in enumerate(shapes):
        n_blocks = -(-(start + n) // runner.block_size)
        table = tuple((first + i) % runner.n_blocks for i in range(n_blocks))
        first += n_blocks
        yield Row(str(index), start, tuple(range(8, 8 + n)), table, n_logits=1)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def scheduling(config: ModelConfig, runs: int) -> dict[str, Spread]:
    """Milliseconds of schedule, commit and prediction for 32 rows: all decoding, and beside a prompt in chunks."""
    found: dict[str, list[float]] = {"decoding": [], "beside a prompt": []}
    for _ in range(runs):
        model = CostModel(config, WeightBytes(10**9, 10**8), itemsize=2, block_size=32)
        for n in (1, 16, 256):
            cost = model.step([Shape(0, n, 1)])
            model.observe(cost, 0.04 + 0.001 * n)
        pool = BlockPool(8192, 32)
        scheduler = Scheduler(SchedulerConfig(), pool, max_model_len=100_000, cost_model=model)
        for index in range(ROWS - 1):
            scheduler.add(Request(f"stream {index}", [8] * 500, root_key=b"root"))
        while any(request.computed < 500 for request in scheduler.requests()):
            _step(scheduler, model)
        for name, n_prompt in (("decoding", 1), ("beside a prompt", 50_000)):
            scheduler.add(Request(name, [9] * n_prompt, root_key=name.encode()))
            _step(scheduler, model)
            found[name].append(statistics.median(_step(scheduler, model) for _ in range(SCHEDULED_STEPS)))
            scheduler.finish(next(request for request in scheduler.requests() if request.id == name))
    return {name: Spread.of([1000 * s for s in seconds]) for name, seconds in found.items()}


def _step(scheduler: Scheduler, model: CostModel) -> float:
    """Seconds of everything in a step that is not the model's work, but for text."""
    began = time.perf_counter()
    plan = scheduler.schedule()
    assert plan is not None
    cost = model.step(plan.rows)
    model.seconds(cost)
    accepted = {row.request_id: Accepted((8,)) for row in plan.rows if row.n_logits}
    scheduler.commit(StepResult(plan.step_id, accepted))
    model.observe(cost, 0.04 + 0.001 * cost.n_tokens)
    return time.perf_counter() - began


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency", description=__doc__.split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--large", choices=SHAPES, default="S")
    parser.add_argument("--small", choices=SHAPES, default="T")
    parser.add_argument("--json", type=Path, metavar="OUT")
    given = parser.parse_args()
    found: dict[str, dict[str, Spread]] = {}
    with tempfile.TemporaryDirectory() as name:
        large = build_checkpoint(SHAPES[given.large], Path(name) / "large")
        small = build_checkpoint(SHAPES[given.small], Path(name) / "small")
        found["scheduling of 32 rows, ms"] = scheduling(ModelConfig.from_folder(large), given.runs)
        predicted = predictions(large)
        core = core_of({"large": large})
        found["long prompt"] = long_prompt(core, given.runs)
        core.close()
        core = core_of({"large": large}, SchedulerConfig(max_slowdown=None))
        found["long prompt, steps of any length"] = long_prompt(core, 1)
        core.close()
        core = core_of({"large": large, "small": small})
        found["pair"] = beside_a_saturated_model(core, given.runs)
        core.close()
    for title, spreads in found.items():
        print(title)
        for key, spread in spreads.items():
            print(f"  {key:32} {spread}")
    print("predicted over measured seconds")
    for key, ratio in predicted.items():
        print(f"  {key:32} {ratio:.2f}")
    if given.json:
        result = {
            "machine": machine(),
            "shapes": {"large": given.large, "small": given.small},
            "predicted_over_measured": predicted,
            **{title: {key: asdict(spread) for key, spread in spreads.items()} for title, spreads in found.items()},
        }
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
