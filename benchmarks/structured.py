"""What a constraint costs: tokens per second of structured over those of free output, and where the difference goes.

    python -m benchmarks.structured [--streams 16] [--shapes T S] [--json OUT]

The bundled large model, and random ones of real shapes. Every answer has exactly as many tokens with a constraint as
without: free ones may not end, and no answer of these constraints can be whole before. There are four times as many
answers as streams, so that one begins where another ends. Three tables:

    host work    CPU µs per step of one thread, with a runner that computes nothing: what a constraint adds to the step
                 loop, whatever the model, and hardly disturbed by other work on the machine
    over free    tokens per second, and per second of processor time (all threads), as ratios to free output; runs
                 alternate, and each ratio is of two that followed each other
    parts        µs per step, of free and of structured output: the counters of the engine, and inside them what only a
                 constraint needs (taken in runs of their own, since reading a clock takes time, too)

"masks only" samples the tokens of which there is no choice as well, so it has as many steps as free output.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
import torch

from benchmarks.bundled import LARGE
from benchmarks.checkpoints import SHAPES, build_checkpoint
from benchmarks.loop import PROMPT, StillRunner, prompts
from benchmarks.timing import Spread, machine
from engine import Engine, SamplingParams
from engine.config import CacheConfig, EngineConfig, SchedulerConfig
from engine.constrain import CompileFailure
from engine.guarded_matcher import GuardedMatcher
from engine.heartbeat import NoPulse
from engine.instance import ModelInstance
from engine.live_requests import LiveRequests
from engine.messages import Submit
from engine.pair import load_engine
from engine.pair_config import InstanceOptions, PairConfig
from engine.runner import ModelRunner
from engine.sampler import PreparedDraws, Sampler
from grammars import Tool, ToolCalls
from grammars.constraint import Constraint, JsonSchema

PARTS = ("schedule_s", "forward_s", "mask_s", "sample_s", "bookkeeping_s")
CLOCKED = (
    ("fill masks", GuardedMatcher, "_fill"),
    ("advance matchers", GuardedMatcher, "advance"),
    ("forced tokens", LiveRequests, "force"),
    ("bans and copies", Sampler, "_fill_masks"),
    ("draw", PreparedDraws, "draw"),
)
"""Methods of the step loop, by what they do. Forced tokens include their own masks and advances."""
WAVES = 4

RECORD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "kind": {"enum": ["invoice", "receipt", "order"]},
        "total": {"type": "number", "minimum": 0},
        "count": {"type": "integer", "minimum": 1, "maximum": 999},
        "is_paid": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 4},
    },
    "required": ["name", "kind", "total", "count", "is_paid", "tags"],
    "additionalProperties": False,
}
# No answer is whole within the tokens that are asked for.
ENDLESS: dict[str, Any] = {"type": "array", "items": RECORD, "minItems": 100}
TOOLS = (
    Tool(
        name="save_records",
        parameters={
            "type": "object",
            "properties": {"table": {"enum": ["sales", "purchases"]}, "records": ENDLESS},
            "required": ["table", "records"],
            "additionalProperties": False,
        },
    ),
    Tool(
        name="search_records",
        parameters={
            "type": "object",
            "properties": {"words": {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 300}},
            "required": ["words"],
            "additionalProperties": False,
        },
    ),
)
CONSTRAINTS: dict[str, Constraint] = {
    "schema": JsonSchema(ENDLESS),
    "tools": ToolCalls(tools=TOOLS, mode="required"),
}


@dataclass(frozen=True, slots=True)
class Run:
    """One batch of answers: tokens per second, and per second of processor time."""

    speed: float
    per_cpu_s: float


@dataclass(frozen=True, slots=True)
class Job:
    """WAVES times as many answers as there are streams, of so many tokens each."""

    streams: int
    n_tokens: int
    temperature: float

    def run(self, engine: Engine, constraint: Constraint | None) -> Run:
        """Raises RuntimeError where an answer is shorter than asked: what was compared would not be the same."""
        n_answers, n_least = self.streams * WAVES, self.n_tokens if constraint is None else 0
        params = SamplingParams(
            temperature=self.temperature,
            seed=1,
            max_tokens=self.n_tokens,
            min_tokens=n_least,
            ignore_eos=constraint is None,
        )
        began, cpu_began = time.perf_counter(), time.process_time()
        results = engine.generate(prompts(n_answers), params, constraint=constraint)
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        n = sum(len(result.token_ids) for result in results)
        if n != n_answers * self.n_tokens:
            raise RuntimeError(f"{n} tokens instead of {n_answers * self.n_tokens}: an answer ended early")
        return Run(n / seconds, n / cpu_s)


def host_work(folder: Path, job: Job) -> dict[str, float]:
    """CPU microseconds per step beside the forward pass, free and under each constraint: the median over steps that
    decode a token of every answer, none of them forced."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    loaded = load_engine(PairConfig({"model": EngineConfig(folder, cache=CacheConfig(n_blocks=1))}))
    model, found = loaded.core._instances["model"], dict[str, float]()
    length = PROMPT + job.n_tokens + 1
    for name, constraint in (("free", None), *CONSTRAINTS.items()):
        runner = StillRunner(model._runner, job.streams * (2 + length // model._runner.block_size))
        instance = ModelInstance(
            msgspec.structs.replace(model.info, max_model_len=length),
            cast(ModelRunner, runner),
            loaded.tokenizers["model"],
            scheduler=SchedulerConfig(
                token_budget=job.streams * PROMPT, max_rows=job.streams, max_waiting_tokens=job.streams * length
            ),
            cost_model=model.cost_model,
            end_ids=model.end_ids,
            options=InstanceOptions(forced_tokens=False),
        )
        for row, tokens in enumerate(prompts(job.streams)):
            outcome = None if constraint is None else loaded.core._compiler.compile("model", constraint)
            if isinstance(outcome, CompileFailure):
                raise outcome.error
            params = SamplingParams(temperature=job.temperature, seed=row, max_tokens=job.n_tokens)
            submit = Submit(id=str(row), model="model", params=params, tokens=tokens)
            instance.submit(submit, None if outcome is None else outcome.matcher)
        instance.step(NoPulse())
        steps = list[float]()
        for _ in range(job.n_tokens - 2):
            began = time.thread_time()
            instance.step(NoPulse())
            steps.append(time.thread_time() - began)
        found[name] = 1e6 * statistics.median(steps)
    loaded.core.close()
    torch.set_num_threads(threads)
    return found


def load(folder: Path, streams: int, threads: int | None, forced: bool) -> Engine:
    """An engine of so many streams, without a prefix cache, so that every run computes as much. threads: of one
    operation."""
    options = InstanceOptions(forced_tokens=forced, prefix_cache=False, calibrate_s=0.0)
    config = EngineConfig(folder, scheduler=SchedulerConfig(max_rows=streams))
    return Engine(load_engine(PairConfig({"model": config}, options=options, torch_threads=threads)))


@contextmanager
def clocked() -> Iterator[dict[str, float]]:
    """Seconds spent in the methods of CLOCKED while this is open, by what they do."""
    spent = {name: 0.0 for name, _, _ in CLOCKED}

    def timed(name: str, method: Any) -> Any:
        def call(*args: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*args)
            finally:
                spent[name] += time.perf_counter() - began

        return call

    with ExitStack() as stack:
        for name, owner, attribute in CLOCKED:
            method = getattr(owner, attribute)
            stack.callback(setattr, owner, attribute, method)
            setattr(owner, attribute, timed(name, method))
        yield spent


def parts(engine: Engine, job: Job, constraint: Constraint | None) -> dict[str, float]:
    """Microseconds per step by part, prefill included, with the counts of steps and forced tokens."""

    def counted(work: Any) -> dict[str, float]:
        before = engine.stats()
        work()
        after = engine.stats()
        return {name: after[name] - before[name] for name in (*PARTS, "compile_s", "steps", "tokens_forced")}

    found = counted(lambda: job.run(engine, constraint))
    per_step = {f"{name.removesuffix('_s')}": 1e6 * found[name] / found["steps"] for name in PARTS}
    with clocked() as spent:
        steps = counted(lambda: job.run(engine, constraint))["steps"]
    inside = {name: 1e6 * seconds / steps for name, seconds in spent.items()}
    return (
        per_step
        | inside
        | {"compile_ms": 1000 * found["compile_s"]}
        | {n: found[n] for n in ("steps", "tokens_forced")}
    )


def compare(engines: dict[bool, Engine], job: Job, constraint: Constraint, runs: int) -> dict[str, Spread]:
    """Structured over free output, run by run; which of them comes first alternates."""
    engines[True].generate(prompts(1), SamplingParams(max_tokens=1), constraint=constraint)  # compiles
    for engine in engines.values():
        job.run(engine, None), job.run(engine, constraint)
    ratios: dict[str, list[float]] = {name: [] for name in ("structured", "structured, CPU", "masks only, CPU")}
    for index in range(runs):
        order = (None, constraint) if index % 2 == 0 else (constraint, None)
        laps = {each is None: job.run(engines[True], each) for each in order}
        bare = {each is None: job.run(engines[False], each) for each in order}
        ratios["structured"].append(laps[False].speed / laps[True].speed)
        ratios["structured, CPU"].append(laps[False].per_cpu_s / laps[True].per_cpu_s)
        ratios["masks only, CPU"].append(bare[False].per_cpu_s / bare[True].per_cpu_s)
    return {name: Spread.of(values) for name, values in ratios.items()}


def measure(folder: Path, job: Job, runs: int, threads: int | None) -> dict[str, Any]:
    """Both tables of one checkpoint, printed as they come."""
    host = host_work(folder, job)
    print("  host work, CPU µs per step", *(f"{name} {us:.0f}" for name, us in host.items()), sep="  ", flush=True)
    found: dict[str, Any] = {"host_work_us": host}
    with ExitStack() as stack:
        engines = {forced: stack.enter_context(load(folder, job.streams, threads, forced)) for forced in (True, False)}
        for name, constraint in CONSTRAINTS.items():
            over_free = compare(engines, job, constraint, runs)
            tables = {"free": parts(engines[True], job, None), name: parts(engines[True], job, constraint)}
            for kind, spread in over_free.items():
                print(f"  {name:7} {kind:16} {spread}", flush=True)
            for kind, columns in tables.items():
                print(
                    f"  {name:7} µs per step, {kind:7}", *(f"{part} {us:.0f}" for part, us in columns.items()), sep="  "
                )
            found[name] = {"over_free": {kind: asdict(s) for kind, s in over_free.items()}, "us_per_step": tables}
    return found


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.structured", description=__doc__.split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128, help="of each answer")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, help="of the forward pass; 1 where others use the machine")
    parser.add_argument("--shapes", choices=sorted(SHAPES), nargs="*", default=["T"], help="random models, too")
    parser.add_argument("--json", type=Path, metavar="OUT")
    given = parser.parse_args()
    job = Job(given.streams, given.tokens, given.temperature)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = {"bundled large": LARGE}
        for shape in given.shapes:
            checkpoints[shape] = build_checkpoint(SHAPES[shape], Path(folder) / shape)
        for name, checkpoint in checkpoints.items():
            print(f"{name}, {job.streams} at once, over free output", flush=True)
            found[name] = measure(checkpoint, job, given.runs, given.threads)
    if given.json:
        settings = {
            "streams": job.streams,
            "tokens": job.n_tokens,
            "temperature": job.temperature,
            "threads": given.threads,
        }
        given.json.write_text(json.dumps({"machine": machine(), **settings, "models": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
