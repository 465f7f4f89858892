"""What the step loop costs beside the forward pass, and what doing it beside the forward pass gains.

    python -m benchmarks.loop [--runs 5] [--shape S] [--json OUT]

Three tables, on the bundled large model or a random one of a real shape:

    host work    ms per step with a runner that computes nothing, 32 rows, at short and long context
    shares       where the time of a step goes, one thing after the other (overlap depth 0)
    variants     tokens per second of structured and of free output, as ratios to free output at depth 0; all variants
                 of a batch alternate in one run, over the same number of tokens

"unforced" samples tokens of which there is no choice, too, so it differs from "free" by the masks alone.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import msgspec
import torch

from benchmarks.bundled import LARGE
from benchmarks.checkpoints import SHAPES, build_checkpoint
from benchmarks.peers.tasks import SCHEMA
from benchmarks.timing import Spread, machine
from engine import Engine, SamplingParams
from engine.config import CacheConfig, EngineConfig, SchedulerConfig
from engine.heartbeat import NoPulse
from engine.instance import ModelInstance
from engine.messages import Submit
from engine.pair import load_engine
from engine.pair_config import InstanceOptions, PairConfig
from engine.plan import StepPlan
from engine.runner import ModelRunner, RunnerOutput
from grammars.constraint import Constraint, JsonSchema

PARTS = ("schedule_s", "forward_s", "mask_s", "sample_s", "bookkeeping_s")
ROWS, CONTEXTS, STEPS = 32, (200, 8000), 200
BATCHES = (1, 8, 32)
PROMPT = 32


class StillRunner:
    """A runner that answers at once, with the same logits for every row."""

    def __init__(self, runner: ModelRunner, n_blocks: int) -> None:
        self.config, self.block_size, self.groups = runner.config, runner.block_size, runner.groups
        self.n_blocks = n_blocks
        self.state_layers, self.runs_beside = (), False
        self.kernels, self.device = runner.kernels, runner.device
        self._logits = torch.randn(1, runner.config.vocab_size, generator=torch.Generator().manual_seed(0))

    def run(self, plan: StepPlan, _drawn: torch.Tensor | None = None) -> RunnerOutput:
        """Logits for all rows that ask, without computing anything."""
        return RunnerOutput(self._logits.repeat(sum(row.n_logits for row in plan.rows), 1))


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to generate. constraint: of the answer, or None for free text."""

    name: str
    depth: int
    forced: bool = True
    constraint: Constraint | None = None


JSON = JsonSchema(SCHEMA)
FREE = Variant("free, depth 0", 0)
VARIANTS = (
    FREE,
    Variant("free, depth 1", 1),
    Variant("structured, unforced, depth 0", 0, False, JSON),
    Variant("structured, depth 0", 0, True, JSON),
    Variant("structured, depth 1", 1, True, JSON),
)


def load(folder: Path, depth: int, forced: bool) -> Engine:
    """An engine of the checkpoint, without a prefix cache, so that every run computes as much."""
    options = InstanceOptions(forced_tokens=forced, prefix_cache=False, overlap_depth=depth, calibrate_s=0.0)
    return Engine(load_engine(PairConfig({"model": EngineConfig(folder)}, options=options)))


def host_work(folder: Path) -> dict[str, dict[str, float]]:
    """Milliseconds per step by part, by context: the median over steps that decode ROWS rows, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    loaded = load_engine(PairConfig({"model": EngineConfig(folder, cache=CacheConfig(n_blocks=1))}))
    model = loaded.core._instances["model"]
    found = {}
    for context in CONTEXTS:
        length = context + STEPS + 1
        runner = StillRunner(model._runner, ROWS * (2 + length // model._runner.block_size))
        instance = ModelInstance(
            msgspec.structs.replace(model.info, max_model_len=length),
            cast(ModelRunner, runner),
            loaded.tokenizers["model"],
            scheduler=SchedulerConfig(token_budget=ROWS * context, max_rows=ROWS, max_waiting_tokens=ROWS * length),
            cost_model=model.cost_model,
            end_ids=frozenset(),
        )
        for row in range(ROWS):
            tokens = [5 + (row * 7 + at) % 1000 for at in range(context)]
            instance.submit(
                Submit(id=str(row), model="model", params=SamplingParams(temperature=0.0), tokens=tokens), None
            )
        instance.step(NoPulse())
        parts: dict[str, list[float]] = {part: [] for part in (*PARTS, "whole")}
        for _ in range(STEPS - 1):
            before, began = asdict(instance.counters), time.perf_counter()
            instance.step(NoPulse())
            parts["whole"].append(time.perf_counter() - began)
            after = asdict(instance.counters)
            for part in PARTS:
                parts[part].append(after[part] - before[part])
        found[f"{ROWS} rows, context {context}"] = {part: 1000 * statistics.median(s) for part, s in parts.items()}
    loaded.core.close()
    torch.set_num_threads(threads)
    return found


def prompts(n: int) -> list[list[int]]:
    """Different prompts of PROMPT tokens."""
    return [[300 + (row * 131 + at * 17) % 1500 for at in range(PROMPT)] for row in range(n)]


def generate(engine: Engine, batch: int, variant: Variant, n_tokens: int) -> float:
    """Tokens per second of one batch."""
    params = SamplingParams(temperature=0.0, max_tokens=n_tokens, min_tokens=n_tokens, ignore_eos=True)
    began = time.perf_counter()
    results = engine.generate(prompts(batch), params, constraint=variant.constraint)
    return sum(len(result.token_ids) for result in results) / (time.perf_counter() - began)


def shares(engine: Engine, batch: int, n_tokens: int) -> dict[str, float]:
    """Milliseconds per step by part, prefill included, of structured output."""
    structured = Variant("", 0, constraint=JSON)
    generate(engine, batch, structured, n_tokens)
    before = engine.stats()
    generate(engine, batch, structured, n_tokens)
    after = engine.stats()
    return {part: 1000 * (after[part] - before[part]) / (after["steps"] - before["steps"]) for part in PARTS}


def compare(engines: dict[tuple[int, bool], Engine], batch: int, runs: int, n_tokens: int) -> dict[str, Spread]:
    """Tokens per second of each variant over those of free output at depth 0, run by run."""

    def lap() -> Iterator[tuple[str, float]]:
        for variant in VARIANTS:
            yield variant.name, generate(engines[variant.depth, variant.forced], batch, variant, n_tokens)

    dict(lap())  # warms up
    laps = [dict(lap()) for _ in range(runs)]
    return {variant.name: Spread.of([lap[variant.name] / lap[FREE.name] for lap in laps]) for variant in VARIANTS}


def print_parts(title: str, rows: dict[str, dict[str, float]]) -> None:
    """A table of milliseconds, with the share of all but the forward pass."""
    print(title)
    for name, parts in rows.items():
        total = sum(parts[part] for part in PARTS)
        columns = "  ".join(f"{part.removesuffix('_s')} {ms:.3f}" for part, ms in parts.items())
        beside = 100 * (1 - parts["forward_s"] / total)
        print(f"  {name:24} {columns}  beside the forward pass {beside:.1f} %")


def measure(folder: Path, batches: Sequence[int], runs: int, n_tokens: int) -> dict[str, object]:
    """All tables of one checkpoint, printed as they come."""
    host = host_work(folder)
    print_parts("host work, ms per step, a runner that computes nothing", host)
    with ExitStack() as stack:
        kinds = sorted({(variant.depth, variant.forced) for variant in VARIANTS})
        engines = {kind: stack.enter_context(load(folder, *kind)) for kind in kinds}
        parted = {f"{batch} structured": shares(engines[0, True], batch, n_tokens) for batch in batches}
        print_parts("shares of a step, ms", parted)
        compared = {}
        print(f"tokens per second, over {FREE.name}")
        for batch in batches:
            compared[f"{batch} at once"] = compare(engines, batch, runs, n_tokens)
            for name, spread in compared[f"{batch} at once"].items():
                print(f"  {batch:2} at once  {name:30} {spread}", flush=True)
    return {
        "host_work_ms": host,
        "shares_ms": parted,
        "over_free": {batch: {name: asdict(s) for name, s in found.items()} for batch, found in compared.items()},
    }


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loop", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="a random model of this shape, not the bundled one")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, metavar="N")
    parser.add_argument("--json", type=Path, metavar="OUT")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = build_checkpoint(SHAPES[given.shape], Path(folder)) if given.shape else LARGE
        found = measure(checkpoint, given.batches, given.runs, given.tokens)
    if given.json:
        result = {"machine": machine(), "model": given.shape or "bundled large", **found}
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
