"""Models without a checkpoint: the shapes of a loaded one, converted linear by linear."""

import pytest
import torch

from engine.models.config import ModelConfig
from engine.models.layers import Linear, Projection
from engine.models.loading import RANDOM_STD, random_decoder
from engine.models.names import places_of

RAW = {
    "model_type": "qwen2", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip


def weights(is_tied: bool, seed: int = 0) -> list[torch.Tensor]:
    decoder = random_decoder(
        ModelConfig.from_dict(RAW | {"tie_word_embeddings": is_tied}), torch.float32, seed=seed
    )  # fmt: skip
    held = [getattr(place.holder, place.attribute) for place in places_of(decoder)]
    linears = [each for each in held if isinstance(each, Linear)]
    biases = [each.bias for each in linears if each.bias is not None]
    vectors = [each for each in held if isinstance(each, torch.Tensor)]
    assert all(bool((each == 1.0).all()) for each in vectors)
    assert len(biases) == 2
    assert isinstance(decoder.head, Linear)
    assert (decoder.head.weight is decoder.embedding) == is_tied
    drawn = [decoder.embedding, *(each.weight for each in linears), *biases]
    assert decoder.n_parameters == sum(each.numel() for each in [*drawn, *vectors])
    return drawn


@pytest.mark.parametrize("is_tied", [False, True])
def test_every_weight_is_drawn_and_follows_from_the_seed(is_tied: bool) -> None:
    drawn, same, other = weights(is_tied), weights(is_tied), weights(is_tied, seed=1)
    for one, again, unlike in zip(drawn, same, other, strict=True):
        assert torch.equal(one, again)
        assert not torch.equal(one, unlike)
        assert 0.5 < float(one.std()) / RANDOM_STD < 1.5


def test_linears_are_converted_once_each_and_whole() -> None:
    seen = list[Linear]()

    def convert(linear: Linear) -> Projection:
        assert linear.weight.isfinite().all()
        assert float(linear.weight[-1].abs().max()) > 0.0
        seen.append(linear)
        return linear

    decoder = random_decoder(ModelConfig.from_dict(RAW), torch.float32, convert=convert)
    assert len({id(each) for each in seen}) == len(seen)
    assert {id(each) for each in seen} == {id(each) for each in decoder.projections}
