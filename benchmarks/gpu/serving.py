"""A random model behind the real step loop: scheduler, graphs, sampler and bookkeeping, as the engine runs them."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import cast

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.device_clock import DeviceClock
from benchmarks.gpu.stand_ins import ScatteredMatcher, StandInTokenizer
from engine.chunk_limit import Shape
from engine.config import CacheConfig, Quantization, SchedulerConfig
from engine.cost_model import CostModel, WeightBytes
from engine.heartbeat import NoPulse
from engine.instance import ModelInstance
from engine.messages import Delta, ModelInfo, Submit
from engine.models.config import ModelConfig
from engine.models.loading import random_decoder
from engine.pair_config import InstanceOptions
from engine.quantization import converter
from engine.request import SamplingParams
from engine.runner import ModelRunner
from engine.tokenizer import Tokenizer
from kernels import Kernels

__all__ = ["Serving"]

BLOCK_SIZE = 32
GPU = torch.device("cuda")
"""Whose forms of weights are measured, also where its kernels are interpreted."""
WARM_STEPS = 4
"""Steps between the last first token and the first step that counts."""


class Serving:
    """One model, one step ahead. Batches are started, timed step by step, and ended."""

    def __init__(
        self, bench: Bench, config: ModelConfig, quantize: Quantization, *, max_rows: int, max_len: int, n_tokens: int
    ) -> None:
        """max_len: positions of a request; n_tokens: that the cache must hold at least. Raises ValueError for a
        quantisation that the device lacks."""
        self._bench, self._clock = bench, DeviceClock(bench.device)
        platform = replace(bench.platform, kernels=self._timed_kernels)
        convert = converter(quantize, bench.dtype, GPU, is_invariant=False)
        decoder = random_decoder(config, bench.dtype, bench.device, convert, max_len)
        bench.tell(f"{decoder.n_parameters / 1e9:.2f} G weights drawn")
        n_blocks = n_tokens // BLOCK_SIZE + 2 * max_rows + 1
        cache = CacheConfig(block_size=BLOCK_SIZE, n_blocks=n_blocks)
        runner = ModelRunner(config, decoder, cache, platform=platform)
        runner.record(max_rows, max_len)
        runner.run = self._clock.around("forward", runner.run)  # type: ignore[method-assign]
        bench.tell(f"steps of up to {max_rows} rows recorded, pages for {n_blocks * BLOCK_SIZE} tokens")
        *layers, head = (projection.n_bytes for projection in decoder.projections)
        self.weight_bytes = sum(layers) + head
        cost_model = CostModel(
            config, WeightBytes(sum(layers), head), itemsize=decoder.dtype.itemsize, block_size=BLOCK_SIZE
        )
        info = ModelInfo(
            name="model",
            path="",
            n_parameters=decoder.n_parameters,
            vocab_size=config.vocab_size,
            max_model_len=max_len,
            dtype=str(decoder.dtype).removeprefix("torch."),
            kv_bytes=runner.kv_bytes,
            n_blocks=n_blocks,
            block_size=BLOCK_SIZE,
            fingerprint="random",
        )
        self._instance = ModelInstance(
            info,
            runner,
            cast(Tokenizer, StandInTokenizer(config.vocab_size)),
            scheduler=SchedulerConfig(
                token_budget=max(8192, max_rows), max_rows=max_rows, max_slowdown=None, max_waiting_tokens=2**30
            ),
            cost_model=cost_model,
            end_ids=frozenset(),
            options=InstanceOptions(overlap_depth=1),
        )
        self._masks = ScatteredMatcher.masks_over(config.vocab_size)
        self._ids = itertools.count()
        self._live = list[str]()
        self.contexts = list[int]()
        """Tokens of each live request, about."""

    def start(
        self, batch: int, context: int, *, is_masked: bool = False, params: SamplingParams | None = None
    ) -> float:  # fmt: skip
        """Begin `batch` requests with different prompts of `context` tokens, and step until all of them decode; returns
        after how many seconds the last one had its first token."""
        generator = torch.Generator().manual_seed(next(self._ids))
        prompts = torch.randint(0, self._instance.info.vocab_size, (batch, context), generator=generator).tolist()
        waiting = set[str]()
        for row, prompt in enumerate(prompts):
            name = f"{next(self._ids)}"
            matcher = ScatteredMatcher(self._masks, 7 * row) if is_masked else None
            chosen = params or SamplingParams(temperature=0.0)
            self._instance.submit(Submit(id=name, model="model", params=chosen, tokens=prompt), matcher)
            waiting.add(name)
        self._live, began = sorted(waiting), time.perf_counter()
        while waiting:
            waiting -= {event.id for event in self._instance.step(NoPulse()) if isinstance(event, Delta)}
        seconds = time.perf_counter() - began
        self.contexts = [context] * batch
        self.steps(self._bench.pick(WARM_STEPS, 1))
        return seconds

    def steps(self, n: int) -> list[float]:
        """Seconds of each of n steps."""
        seconds = []
        for _ in range(n):
            began = time.perf_counter()
            self._instance.step(NoPulse())
            seconds.append(time.perf_counter() - began)
        self.contexts = [context + n for context in self.contexts]
        return seconds

    def counted(self) -> dict[str, float]:
        """The engine's counters of seconds so far, by name without the unit."""
        counted = asdict(self._instance.counters)
        return {name[:-2]: value for name, value in counted.items() if name.endswith("_s") and name != "compile_s"}

    def on_device(self) -> dict[str, float]:
        """Seconds that the device took for `forward` passes and for `draw`ing since the last time. Waits for it."""
        return self._clock.take()

    def _timed_kernels(self, dtype: torch.dtype, is_invariant: bool) -> Kernels:
        kernels = self._bench.platform.kernels(dtype, is_invariant)
        return replace(kernels, sample=self._clock.around("draw", kernels.sample))

    def step_bytes(self) -> float:
        """Bytes of weights, keys and values that a step reads now, by the engine's cost model."""
        shapes: Sequence[Shape] = [Shape(context, 1, 1) for context in self.contexts]
        cost = self._instance.cost_model.step(shapes)
        return cost.weight_bytes + cost.kv_read_bytes

    def stop(self) -> None:
        """End what was started."""
        for name in self._live:
            self._instance.cancel(name)
        while self._instance.has_work:
            self._instance.step(NoPulse())
        self._live, self.contexts = [], []
