"""Grows a trained model into a wider and deeper one that computes the same function (Net2Net: Chen et al., 2016).

    embedding   [old | small]            norms     times sqrt(old width / new width): zeros dilute the mean square
    q k v rows  [old | 0] [new: random]  o columns [old | 0 for new heads], rows of new dimensions 0
    gate, up    [old | 0] [new: random]  down      [old | 0 for new units], rows of new dimensions 0
    new layers  random inside, silent outside (o and down at zero), after the old ones

Training narrow first is several times cheaper a token, and what it learnt is kept.
"""

import torch
from torch import Tensor, nn

from bundled_models.model import TinyLlama

NEW_EMBEDDING_STD = 0.02
OUTPUTS = ("o_proj", "down_proj")


def _widen(matrix: Tensor, old: Tensor, fresh: bool) -> None:
    """Put `old` into the top left of a larger matrix; zeros right of it and, unless `fresh`, below it."""
    rows, columns = old.shape
    matrix[:rows, :columns] = old
    matrix[:rows, columns:] = 0
    if not fresh:
        matrix[rows:] = 0


@torch.no_grad()
def grow(small: TinyLlama, large: TinyLlama) -> None:
    """Overwrite `large` so that it says what `small` says; heads of one width, and `large` no smaller anywhere.

    Raises ValueError where the shapes do not allow it.
    """
    a, b = small.shape, large.shape
    if a.head_width != b.head_width or a.vocabulary != b.vocabulary or a.theta != b.theta:
        raise ValueError(
            f"heads of {a.head_width} and {b.head_width}: growing needs one head width, vocabulary and theta"
        )
    if b.width < a.width or b.layers < a.layers or b.hidden < a.hidden:
        raise ValueError(f"{b} is smaller than {a}: grow into a larger shape")
    factor = (a.width / b.width) ** 0.5
    nn.init.normal_(large.embed_tokens.weight, 0, NEW_EMBEDDING_STD)
    large.embed_tokens.weight[:, : a.width] = small.embed_tokens.weight
    large.norm.fill_(factor)
    large.norm[: a.width] = small.norm * factor
    for index, block in enumerate(large.blocks):
        matrices = block.matrices()
        for name, matrix in matrices.items():
            nn.init.normal_(matrix, 0, 0.0 if name in OUTPUTS else b.width**-0.5)
        block.input_layernorm.fill_(1.0)
        block.post_attention_layernorm.fill_(1.0)
        if index >= a.layers:
            continue
        trained = small.blocks[index]
        for norm, kept in (
            (block.input_layernorm, trained.input_layernorm),
            (block.post_attention_layernorm, trained.post_attention_layernorm),
        ):
            norm.fill_(factor)
            norm[: a.width] = kept * factor
        for name, old in trained.matrices().items():
            _widen(matrices[name], old, fresh=name not in OUTPUTS)
