"""Frozen configurations: what a checkpoint is, and how much of the machine an engine may use. Nothing changes them
after start.

This module does not import torch, so that the scheduler can be tested without it.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from engine.models.config import ModelConfig

__all__ = [
    "CacheConfig",
    "DtypeName",
    "EngineConfig",
    "KVDtype",
    "ModelConfig",
    "Quantization",
    "SchedulerConfig",
    "resolve_dtype",
]

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["none", "w8a8", "int8", "int4", "fp8"]
KVDtype = Literal["auto", "int8", "fp8"]
DEFAULT_KV_BYTES = 512 * 2**20
CPU_LIMITS = (512, 64)
"""Tokens and requests of a step on a CPU, where a step should not take long."""
GPU_LIMITS = (8192, 256)
"""The same on a GPU, which needs hundreds of tokens to be busy."""
CPU_CHUNK, GPU_CHUNK = 2, 256
"""Tokens of a prompt that a step computes whatever they cost. On a GPU so many take little longer than one: the weights
are read once, and a step with a prompt in it is no recorded one anyway."""


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """Size of one model's paged KV cache.

    block_size: tokens per page. At most one of kv_bytes (bytes over all layers) and n_blocks may be set; with neither
    the cache gets what is left of a GPU's memory, or on a CPU 512 MiB, which the operating system hands out page by
    page as they are first written. kv_dtype: what keys and values are rounded to in the pages: `auto` is the model's
    dtype; `int8` and `fp8` (GPU only) hold nearly twice as many tokens, with one scale for each token and head.
    """

    block_size: int = 32
    kv_bytes: int | None = None
    n_blocks: int | None = None
    kv_dtype: KVDtype = "auto"

    def __post_init__(self) -> None:
        """Raise ValueError with what was wrong and what is allowed."""
        if self.block_size < 1:
            raise ValueError(f"block_size is {self.block_size}: use 1 or more tokens per block")
        if self.kv_bytes is not None and self.n_blocks is not None:
            raise ValueError("kv_bytes and n_blocks are both set: give the cache's size once")
        if self.n_blocks is not None and self.n_blocks < 1:
            raise ValueError(f"n_blocks is {self.n_blocks}: use 1 or more")
        if self.kv_dtype not in get_args(KVDtype):
            raise ValueError(f"kv_dtype is {self.kv_dtype!r}: use {', '.join(get_args(KVDtype))}")

    def count_blocks(self, bytes_per_block: int) -> int:
        """Blocks that fit, given what one block of the model takes.

        Raises ValueError where not even one fits.
        """
        if self.n_blocks is not None:
            return self.n_blocks
        kv_bytes = DEFAULT_KV_BYTES if self.kv_bytes is None else self.kv_bytes
        if kv_bytes < bytes_per_block:
            raise ValueError(
                f"kv_bytes is {kv_bytes}, less than one block of this model: use {bytes_per_block} or more"
            )
        return kv_bytes // bytes_per_block


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """Limits of one step, and of the queue before it.

    token_budget: tokens computed in one step over all rows (None: 512 on a CPU, 8,192 on a GPU). max_rows: requests in
    one step (None: 64 on a CPU, 256 on a GPU). prefill_cap: most tokens one request gets in one step (None: the whole
    budget). max_slowdown: how many times as long as without prompts a step may take, by prediction, while answers are
    streaming (None: as long as the budget lasts); min_chunk: so many tokens of a prompt it computes even so (None: 2 on
    a CPU, 256 on a GPU). max_shared_step_s: how many seconds a step with prompts may take, by prediction, while another
    model's answers are streaming. priority_s: seconds of waiting that one level of priority is worth, so that a request
    is overtaken only by what arrives within that time for each level between them. max_waiting_tokens and
    max_waiting_requests: beyond either, admission refuses.
    """

    token_budget: int | None = None
    max_rows: int | None = None
    prefill_cap: int | None = None
    max_slowdown: float | None = 1.5
    min_chunk: int | None = None
    max_shared_step_s: float = 0.25
    priority_s: float = 0.25
    max_waiting_tokens: int = 262_144
    max_waiting_requests: int = 1024

    def __post_init__(self) -> None:
        """Raise ValueError with what was wrong and what is allowed."""
        for name in ("token_budget", "max_rows", "min_chunk", "max_waiting_tokens", "max_waiting_requests"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: use 1 or more")
        if self.prefill_cap is not None and self.prefill_cap < 1:
            raise ValueError(f"prefill_cap is {self.prefill_cap}: use 1 or more, or leave it out")
        if self.max_slowdown is not None and self.max_slowdown <= 1.0:
            raise ValueError(f"max_slowdown is {self.max_slowdown}: use more than 1, or None for no limit")
        if self.max_shared_step_s <= 0.0:
            raise ValueError(f"max_shared_step_s is {self.max_shared_step_s}: use more than 0")
        if self.priority_s <= 0.0:
            raise ValueError(f"priority_s is {self.priority_s}: use more than 0, or low priorities could wait for ever")

    @property
    def budget(self) -> int:
        """Tokens of a step."""
        return CPU_LIMITS[0] if self.token_budget is None else self.token_budget

    @property
    def rows(self) -> int:
        """Requests of a step."""
        return CPU_LIMITS[1] if self.max_rows is None else self.max_rows

    @property
    def least_chunk(self) -> int:
        """Tokens of a prompt that a step computes whatever they cost."""
        return CPU_CHUNK if self.min_chunk is None else self.min_chunk

    def for_gpu(self) -> "SchedulerConfig":
        """The same on a GPU, where what is left open means more."""
        token_budget = GPU_LIMITS[0] if self.token_budget is None else self.token_budget
        max_rows = GPU_LIMITS[1] if self.max_rows is None else self.max_rows
        min_chunk = GPU_CHUNK if self.min_chunk is None else self.min_chunk
        return replace(self, token_budget=token_budget, max_rows=min(max_rows, token_budget), min_chunk=min_chunk)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How one model is run.

    path: checkpoint folder. dtype: `auto` is bfloat16 where the device multiplies it natively, else float32; float16
    is for GPUs. device:
    `auto` is the first CUDA GPU, else the CPU. max_model_len: None is the model's own. state_layers: decoder layers
    whose hidden states `prepare` pools (None: the middle and the last one).

    quantize: what the weights are rounded to at load. `w8a8`: int8 per output, activations int8 per token. `int4`:
    groups of 32 weights, activations int8 per token on a CPU (needs the C kernels), as they are on a GPU. On a GPU
    also `int8` and `fp8` (compute capability 8.9), per output, activations as they are.
    invariant: the logits of a request are the same bits whatever it is batched with and however its prompt was cut or
    cached (slower in long prompts).
    """

    path: Path
    dtype: DtypeName = "auto"
    device: str = "auto"
    max_model_len: int | None = None
    state_layers: tuple[int, ...] | None = None
    quantize: Quantization = "none"
    invariant: bool = False
    cache: CacheConfig = field(default_factory=CacheConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)

    def model_len(self, model: ModelConfig) -> int:
        """Most tokens of prompt and answer together. Raises ValueError where more is asked than the model was made
        for."""
        if self.max_model_len is None:
            return model.max_position
        longest = model.longest_context
        if not 1 <= self.max_model_len <= longest:
            raise ValueError(
                f"max_model_len is {self.max_model_len}: this model has {longest} positions, use up to that"
            )
        return self.max_model_len

    def pooled_layers(self, model: ModelConfig) -> tuple[int, ...]:
        """The decoder layers whose states are pooled, ascending. Raises ValueError for a layer the model lacks."""
        if self.state_layers is None:
            return tuple(sorted({model.n_layers // 2, model.n_layers - 1}))
        unknown = [layer for layer in self.state_layers if not 0 <= layer < model.n_layers]
        if unknown:
            raise ValueError(f"state_layers names {unknown}: this model has layers 0 to {model.n_layers - 1}")
        return tuple(sorted(set(self.state_layers)))


def resolve_dtype(name: DtypeName, device: str = "cpu") -> Literal["float32", "bfloat16", "float16"]:
    """The dtype that `name` means on this machine.

    bfloat16 is native on a CPU with AVX512-BF16 or AMX and on every GPU that the kernels support; elsewhere it is
    emulated and slower than float32. Raises ValueError for an unknown name, and for float16 on a CPU.
    """
    is_gpu = device.startswith("cuda")
    if name in ("float32", "bfloat16") or (name == "float16" and is_gpu):
        return name
    if name == "float16":
        raise ValueError(f"dtype is 'float16', which is for GPUs, and the device is {device}: use auto or bfloat16")
    if name != "auto":
        raise ValueError(f"dtype is {name!r}: use auto, float32, bfloat16 or float16")
    if is_gpu:
        return "bfloat16"
    import torch

    capabilities = torch.cpu.get_capabilities()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16")
    return "bfloat16" if native else "float32"
