"""The arithmetic between two matrix products, written so that `torch.compile` fuses it.

Plain functions define the model; `compiled()` gives the same ones as fused loops. In bf16 on one core a matrix product
reaches some 490 GFLOP/s, so what stands between two of them costs more than they do unless it is fused.

Arrays of one microbatch: N tokens, A answer places, H heads of width D, width W = H D, vocabulary V. The residual
stream is fp32; what enters a matrix product has the weights' type.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

NORM_EPS = 1e-5


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    """RMSNorm in fp32, rounded to the weights' type."""
    x = x.float()
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPS)
    return (x * scale * weight.float()).to(weight.dtype)


def project(x: Tensor, norm: Tensor, qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Queries, keys and values, the first two turned by RoPE (transformers' rotate_half convention).

    x: [N, W]; qkv: [3 W, W]; cos, sin: [N, 3, 1, 2, D / 2], see `turns`; returns [N, 3, H, 2, D / 2].
    """
    y = F.linear(_norm(x, norm), qkv).view(len(x), 3, -1, 2, cos.shape[-1]).float()
    return (y * cos + y.flip(3) * sin).to(qkv.dtype)


def turns(angle: Tensor) -> tuple[Tensor, Tensor]:
    """(cos, sin) for `project` from angles [N, D / 2]: values are turned by nothing.

    With the signs in the table, a turn is one multiply-add of a row and the same row with its halves exchanged. Written
    with slices instead, the compiled backward was scalar code and took eight times as long.
    """
    cos, sin, one = angle.cos(), angle.sin(), torch.ones_like(angle)
    still = torch.stack([one, one], 1), torch.zeros(len(angle), 2, angle.shape[1])
    turned = torch.stack([cos, cos], 1), torch.stack([-sin, sin], 1)
    table = [torch.stack([t, t, s], 1)[:, :, None] for t, s in zip(turned, still, strict=True)]
    return table[0], table[1]


def finish(x: Tensor, attended: Tensor, out: Tensor, norm: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """The rest of a layer. x, attended: [tokens, W]; out: [W, W]; gate_up: [2 hidden, W]; down: [W, hidden]."""
    x = x + F.linear(attended, out)
    gate, up = F.linear(_norm(x, norm), gate_up).chunk(2, -1)
    return x + F.linear((F.silu(gate.float()) * up.float()).to(down.dtype), down)


def head(x: Tensor, norm: Tensor, embedding: Tensor) -> Tensor:
    """Logits in fp32, [A, V]."""
    return F.linear(_norm(x, norm), embedding).float()


def loss(x: Tensor, norm: Tensor, embedding: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The sum over places of weight times cross entropy. target, weight: [A]."""
    return (F.cross_entropy(head(x, norm, embedding), target, reduction="none") * weight).sum()


def probabilities(scores: Tensor, offset: Tensor, scale: float) -> Tensor:
    """Masked softmax. scores: [R, H, queries, keys]; in row r query i sees the keys 0 .. i + offset[r]."""
    queries, keys = scores.shape[-2:]
    last = torch.arange(queries)[None, :] + offset[:, None]  # [R, queries]
    visible = torch.arange(keys) <= last[:, None, :, None]
    return torch.softmax(torch.where(visible, scores.float() * scale, -torch.inf), -1).to(scores.dtype)


def score_gradient(p: Tensor, grad: Tensor, mean: Tensor, scale: float) -> Tensor:
    """Gradient of the scores from that of the probabilities `p`; both [R, H, queries, keys].

    mean: [R, H, queries, 1], the gradient's mean under p, which is the output times the output's gradient.
    """
    return (p.float() * (grad.float() - mean) * scale).to(p.dtype)


@dataclass(frozen=True, slots=True)
class Kernels:
    """The functions above, plain or compiled."""

    project: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] = project
    finish: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] = finish
    head: Callable[[Tensor, Tensor, Tensor], Tensor] = head
    loss: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] = loss
    probabilities: Callable[[Tensor, Tensor, float], Tensor] = probabilities
    score_gradient: Callable[[Tensor, Tensor, Tensor, float], Tensor] = score_gradient


PLAIN = Kernels()


def compiled() -> Kernels:
    """The same functions as fused loops. Needs a C++ compiler; takes some 40 s the first time, then a few.

    Widths are compiled in: with symbols in their place the loops are full of divisions and eight times slower. Numbers
    of tokens become symbols when they change, sizes of rectangles are symbols from the start.
    """
    return Kernels(
        torch.compile(project),
        torch.compile(finish),
        head,
        torch.compile(loss),
        torch.compile(probabilities, dynamic=True),
        torch.compile(score_gradient, dynamic=True),
    )
