"""Sections `transformers-…`: the same shapes in transformers' generate, with a static cache and a compiled forward."""

import os
import statistics
import time

import torch

from benchmarks.gpu.bench import Bench, Run
from benchmarks.gpu.shapes import SHAPES

__all__ = ["BATCHES", "transformers"]

BATCHES, CONTEXT, TOKENS, RUNS = (1, 64, 8), 200, 100, 3
COMPILATION_S = 60.0
"""About how long it takes for one batch size."""
WARM_TOKENS = 8
"""The first ones of an answer are not timed: the prompt, and graphs that are still to be recorded."""


class _Clock:
    """A streamer that notes when each token is there."""

    def __init__(self) -> None:
        self.times = list[float]()

    def put(self, value: torch.Tensor) -> None:
        """Called with the prompt, then with the tokens of each step, on the host."""
        value.cpu()
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Called at the end."""


def transformers(shape: str) -> Run:
    """The section of one shape: tokens per second while decoding, greedily."""

    def run(bench: Bench) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        from transformers import AutoConfig, AutoModelForCausalLM
        from transformers.generation.configuration_utils import CompileConfig

        raw = dict(SHAPES[shape].raw(is_toy=bench.is_toy))
        config = AutoConfig.for_model(raw.pop("model_type"), **raw)
        with torch.device(bench.device):
            model = AutoModelForCausalLM.from_config(config, dtype=bench.dtype).eval()
        model.generation_config.eos_token_id = None  # so that nothing but the length ends an answer
        bench.tell(f"{sum(p.numel() for p in model.parameters()) / 1e9:.2f} G weights drawn")
        context, tokens, warm = bench.pick((CONTEXT, TOKENS, WARM_TOKENS), (8, 6, 1))
        for batch in bench.pick(BATCHES, (2,)):
            if not bench.has_time(f"batch {batch}", COMPILATION_S * bench.is_cuda):
                break
            rates = list[float]()
            generator = torch.Generator().manual_seed(batch)
            # Two more, which compile and record.
            for index in range(bench.pick(RUNS, 1) + 2 * bench.is_cuda):
                prompt = torch.randint(2, config.vocab_size, (batch, context), generator=generator).to(bench.device)
                clock = _Clock()
                model.generate(
                    prompt,
                    attention_mask=torch.ones_like(prompt),
                    max_new_tokens=tokens,
                    do_sample=False,
                    pad_token_id=0,
                    cache_implementation="static",
                    compile_config=CompileConfig(mode="reduce-overhead", dynamic=False),
                    streamer=clock,
                )
                times = clock.times[1 + warm :]
                step_s = (times[-1] - times[0]) / (len(times) - 1)
                bench.tell(f"batch {batch}, run {index}: {1000 * step_s:.3g} ms a step")
                if index >= 2 * bench.is_cuda:
                    rates.append(batch / step_s)
            bench.add(f"batch {batch}", rates, "tokens/s", **{"step ms": 1000 * batch / statistics.median(rates)})
            torch.compiler.reset()  # so that no batch is compiled for sizes that vary
        del model
        bench.free()

    return run
