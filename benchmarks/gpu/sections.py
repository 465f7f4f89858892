"""All sections, the most telling first."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.gpu import peer
from benchmarks.gpu.attention import decode_attention, prefill_attention
from benchmarks.gpu.bench import Run
from benchmarks.gpu.ceilings import ceilings
from benchmarks.gpu.decode import decode
from benchmarks.gpu.linear import linear
from benchmarks.gpu.sampling import sampling
from benchmarks.gpu.small_kernels import small_kernels
from benchmarks.gpu.verification import verification

__all__ = ["LIMIT_S", "SECTIONS", "SectionPlan"]

LIMIT_S = 150.0
"""A section begins no further measurement after that."""


@dataclass(frozen=True, slots=True)
class SectionPlan:
    """estimate_s: what the section takes on an H200 whose Triton cache is empty."""

    name: str
    run: Run
    estimate_s: float


def _sections() -> Iterator[SectionPlan]:
    yield SectionPlan("ceilings", ceilings, 5)
    yield SectionPlan("decode-llama-8b-bf16", decode("llama-8b"), 90)
    yield SectionPlan("verify-llama-8b-bf16", verification("llama-8b"), 90)
    yield SectionPlan("attention-decode", decode_attention, 45)
    yield SectionPlan("attention-prefill", prefill_attention, 40)
    yield SectionPlan("sampling", sampling, 40)
    yield SectionPlan("decode-qwen3-0.6b-bf16", decode("qwen3-0.6b"), 60)
    yield SectionPlan("decode-qwen3-1.7b-bf16", decode("qwen3-1.7b", is_long=False), 40)
    yield SectionPlan("decode-llama-8b-int8", decode("llama-8b", "int8", is_long=False), 60)
    yield SectionPlan("decode-qwen3-0.6b-int8", decode("qwen3-0.6b", "int8", is_long=False), 40)
    yield SectionPlan("decode-qwen3-1.7b-int8", decode("qwen3-1.7b", "int8", is_long=False), 40)
    yield SectionPlan("linear", linear, 60)
    yield SectionPlan("transformers-llama-8b", peer.transformers("llama-8b"), 150)
    yield SectionPlan("transformers-qwen3-0.6b", peer.transformers("qwen3-0.6b"), 150)
    yield SectionPlan("transformers-qwen3-1.7b", peer.transformers("qwen3-1.7b"), 150)
    yield SectionPlan("small-kernels", small_kernels, 30)
    yield SectionPlan("decode-llama-8b-int4", decode("llama-8b", "int4", is_long=False), 60)
    yield SectionPlan("decode-llama-8b-w8a8", decode("llama-8b", "w8a8", is_long=False), 60)


SECTIONS = {plan.name: plan for plan in _sections()}
