"""What the step loop does more for drafts, with a model that computes nothing and answers that nobody can guess."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import msgspec
import torch

from benchmarks.loop import PROMPT, StillRunner, prompts
from benchmarks.structured import CONSTRAINTS
from engine.config import CacheConfig, EngineConfig, SchedulerConfig
from engine.constrain import CompileFailure
from engine.heartbeat import NoPulse
from engine.instance import ModelInstance
from engine.messages import Submit
from engine.pair import LoadedEngine, load_engine
from engine.pair_config import PairConfig
from engine.plan import Row
from engine.request import SamplingParams
from engine.runner import ModelRunner
from engine.speculation.config import SpeculationConfig
from engine.speculation.proposer import Source

__all__ = ["host_work"]

FREE_SOURCES = SpeculationConfig(sources=(Source.FORCED, Source.PREDICTION, Source.NGRAM))


@dataclass(frozen=True, slots=True)
class _Steps:
    """Microseconds of a step, of a token and of drafting in a step; drafted and accepted tokens of a step."""

    step_us: float
    token_us: float
    draft_us: float
    drafted: float
    accepted: float


class _Still(StillRunner):
    """One that also settles drafts at once."""

    def settle(self, accepted: Sequence[tuple[Row, tuple[int, ...]]]) -> None:
        """Nothing was written that could be moved."""


def host_work(folder: Path, n_steps: int, streams: Sequence[int]) -> dict[str, dict[str, float]]:
    """CPU microseconds of one thread, by workload and number of streams: of the median step and for each token, without
    speculation and with the sources that cost no model, and what the latter drafted and had accepted in a step.

    Tokens are drawn at temperature 1 from logits that say next to nothing, so that of free text hardly any can be
    guessed; of a schema only what is forced. The cost model learns that a forward pass costs nothing, which makes
    drafts look cheap: more of them are tried than a real model would be given.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = EngineConfig(folder, cache=CacheConfig(n_blocks=1))
    loaded = load_engine(PairConfig({"model": model}, speculation=FREE_SOURCES))
    found = dict[str, dict[str, float]]()
    for n in streams:
        for kind in ("free", "schema"):
            without = _steps(loaded, n, n_steps, kind, is_drafting=False)
            with_drafts = _steps(loaded, n, n_steps, kind, is_drafting=True)
            found[f"{kind}, {n} streams"] = {
                "us per step without": without.step_us,
                "with": with_drafts.step_us,
                "us more per stream": (with_drafts.step_us - without.step_us) / n,
                "us per token without": without.token_us,
                "with drafts": with_drafts.token_us,
                "us of drafting per step": with_drafts.draft_us,
                "drafted per step": with_drafts.drafted,
                "accepted per step": with_drafts.accepted,
            }
    loaded.core.close()
    torch.set_num_threads(threads)
    return found


def _steps(
    loaded: LoadedEngine, streams: int, n_steps: int, kind: str, *, is_drafting: bool
) -> _Steps:  # fmt: skip
    model = loaded.core._instances["model"]
    length = PROMPT + n_steps + 2
    runner = _Still(model._runner, streams * (2 + length // model._runner.block_size))
    instance = ModelInstance(
        msgspec.structs.replace(model.info, max_model_len=length),
        cast(ModelRunner, runner),
        loaded.tokenizers["model"],
        scheduler=SchedulerConfig(token_budget=streams * PROMPT, max_rows=streams, max_waiting_tokens=streams * length),
        cost_model=model.cost_model,
        end_ids=frozenset() if kind == "free" else model.end_ids,
    )
    if is_drafting:
        instance.speculator = model.speculator
    for row, tokens in enumerate(prompts(streams)):
        matcher = None
        if kind != "free":
            outcome = loaded.core._compiler.compile("model", CONSTRAINTS[kind])
            if isinstance(outcome, CompileFailure):
                raise outcome.error
            matcher = outcome.matcher
        params = SamplingParams(temperature=1.0, seed=row, max_tokens=n_steps + 1)
        instance.submit(Submit(id=f"{row}", model="model", params=params, tokens=tokens), matcher)
    instance.step(NoPulse())
    counters, seconds = model.counters, list[float]()  # where the speculator counts
    before, n_tokens = replace(counters), instance.counters.tokens_generated
    for _ in range(n_steps - 2):
        if not instance.has_work:
            break
        began = time.thread_time()
        instance.step(NoPulse())
        seconds.append(time.thread_time() - began)
    n = len(seconds)
    return _Steps(
        step_us=1e6 * statistics.median(seconds),
        token_us=1e6 * sum(seconds) / (instance.counters.tokens_generated - n_tokens),
        draft_us=1e6 * (counters.draft_s - before.draft_s) / n,
        drafted=(counters.tokens_drafted - before.tokens_drafted) / n,
        accepted=(counters.tokens_accepted - before.tokens_accepted) / n,
    )
