"""All layers in one call, against the same kernels called one by one."""

from pathlib import Path

import pytest
import torch

from engine.attention import KVCache
from engine.config import CacheConfig, Quantization
from engine.fused_layers import FusedLayers
from engine.models.loading import load_decoder
from engine.plan import Row, StepPlan
from engine.quantization import converter
from engine.runner import ModelRunner
from kernels.native.build import find_library
from tests.engine.checkpoints import build_checkpoint

pytestmark = pytest.mark.skipif(find_library() is None, reason="this machine cannot compile or run the C kernels")
CPU = torch.device("cpu")


def run(
    folder: Path, dtype: torch.dtype, quantize: Quantization, *, is_fused: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and pooled states of a prompt in two chunks beside a second prompt, then one decode step of both."""
    convert = converter(quantize, dtype, CPU, is_invariant=False)
    decoder = load_decoder(folder, dtype, convert=convert)
    state_layers = (0, decoder.config.n_layers - 1)
    runner = ModelRunner(decoder.config, decoder, CacheConfig(block_size=4, n_blocks=32), state_layers)
    assert runner._fused is not None
    if not is_fused:
        runner._fused = None
    one, two = tuple(range(8)), tuple(range(8, 16))
    others = ((tuple(range(16, 24)),), (tuple(range(24, 32)),)) if len(runner.groups) > 1 else ((), ())
    outputs = [
        runner.run(StepPlan(1, (Row("a", 0, (5, 6, 7), one, 0, False, others[0]),))),
        runner.run(
            StepPlan(
                2,
                (
                    Row("a", 3, (9, 8, 7, 6, 5), one, 1, True, others[0]),
                    Row("b", 0, tuple(range(3, 20)), two, 1, True, others[1]),
                ),
            )
        ),
        runner.run(
            StepPlan(3, (Row("a", 8, (4,), one, 1, False, others[0]), Row("b", 17, (3,), two, 1, False, others[1])))
        ),
    ]
    states = torch.stack([outputs[1].states["a"], outputs[1].states["b"]])
    return torch.cat([output.logits for output in outputs]), states


@pytest.mark.parametrize("quantize", ["none", "w8a8", "int4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_fused_layers_give_the_same_bits(
    tmp_path: Path, family: str, dtype: torch.dtype, quantize: Quantization
) -> None:
    build_checkpoint(tmp_path, family)
    fused, plain = (run(tmp_path, dtype, quantize, is_fused=is_fused) for is_fused in (True, False))
    assert torch.equal(fused[0], plain[0])
    assert torch.equal(fused[1], plain[1])
    assert fused[0].isfinite().all()


def test_a_decoder_with_other_parts_is_not_fused(tmp_path: Path) -> None:
    build_checkpoint(tmp_path, "gemma2")
    decoder = load_decoder(tmp_path, torch.float32, convert=converter("none", torch.float32, CPU, is_invariant=False))
    assert FusedLayers.build(decoder, KVCache(decoder.config, 4, 4, torch.float32, CPU)) is None
