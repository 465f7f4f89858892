"""Growing a model keeps its function."""

from dataclasses import replace

import pytest
import torch

from bundled_models.growth import grow
from bundled_models.model import Shape, TinyLlama

SMALL = Shape(vocabulary=64, width=32, layers=3, heads=2, hidden=48)
LARGE = Shape(vocabulary=64, width=48, layers=4, heads=3, hidden=80)


def spread(model: TinyLlama) -> TinyLlama:
    """A model whose silent projections speak, so that equality means something."""
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn_like(weight)
        model.embed_tokens.weight *= 10  # so that the norms' epsilon, which growing does not scale, is nothing
    return model


def test_a_grown_model_says_what_the_small_one_says() -> None:
    torch.manual_seed(1)
    small, large = spread(TinyLlama(SMALL)), TinyLlama(LARGE)
    ids = torch.randint(0, 64, (3, 17), generator=torch.Generator().manual_seed(1))
    before = large.logits(ids)
    grow(small, large)
    with torch.no_grad():
        large.embed_tokens.weight[:, SMALL.width :] = 0  # their small random start is all that differs
        torch.testing.assert_close(large.logits(ids), small.logits(ids), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(before, small.logits(ids), atol=0.1)


def test_the_new_parts_can_learn() -> None:
    large = TinyLlama(LARGE)
    grow(spread(TinyLlama(SMALL)), large)
    logits = large.logits(torch.randint(0, 64, (2, 9)))
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.randint(0, 64, (18,))).backward()  # type: ignore[no-untyped-call]
    gradient = large.embed_tokens.weight.grad
    assert gradient is not None
    assert gradient[:, SMALL.width :].abs().max() > 0


@pytest.mark.parametrize(
    "unfit", [replace(LARGE, width=32, heads=2), replace(LARGE, layers=2), replace(LARGE, layers=2, heads=1)]
)
def test_a_shape_that_cannot_hold_the_small_model_is_refused(unfit: Shape) -> None:
    with pytest.raises(ValueError, match=r"grow"):
        grow(TinyLlama(replace(SMALL, width=48, heads=3)), TinyLlama(unfit))
