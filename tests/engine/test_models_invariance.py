"""Invariant mode, in every family: the logits of a position are the same bits however its tokens were cut."""

import pytest
import torch

from engine.config import CacheConfig, Quantization
from engine.models.loading import load_decoder
from engine.quantization import converter
from engine.runner import ModelRunner
from tests.engine.checkpoints import FAMILIES, build_checkpoint
from tests.engine.driver import Driver, Sequence

CUTS = [(90,), (40, 1, 1, 48), (1,) * 12 + (78,), (17, 73)]
"""Long enough for torch's products to take another path for the first than for the others."""


@pytest.mark.parametrize(
    ("dtype", "quantize"), [(torch.float32, "none"), (torch.bfloat16, "none"), (torch.bfloat16, "w8a8")]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_logits_of_a_position_are_the_same_bits_in_any_cut(
    family: str, dtype: torch.dtype, quantize: Quantization, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp(family)
    normalised = {"norm_topk_prob": True} if family == "qwen3_moe" else {}
    build_checkpoint(folder, family, num_hidden_layers=2, **normalised)
    convert = converter(quantize, dtype, torch.device("cpu"), is_invariant=True)
    decoder = load_decoder(folder, dtype, convert=convert)
    runner = ModelRunner(decoder.config, decoder, CacheConfig(block_size=8, n_blocks=192), is_invariant=True)
    tokens = torch.randint(4, 512, (90,), generator=torch.Generator().manual_seed(5)).tolist()
    driver, found = Driver(runner), list[torch.Tensor]()
    for number, cut in enumerate(CUTS):
        sequence, parts = Sequence(f"s{number}", tokens), list[torch.Tensor]()
        for step, n in enumerate(cut):
            company = Sequence(f"c{number}-{step}", tokens[step : step + 5])
            rows = [driver.row(sequence, n, n)]
            if number and step < 4:
                rows.append(driver.row(company, len(company.tokens), 0))
            parts.append(driver.run(rows).logits)
        found.append(torch.cat(parts))
    assert all(torch.equal(found[0], other) for other in found[1:])
    assert found[0].isfinite().all()
