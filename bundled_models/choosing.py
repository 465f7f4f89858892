"""Puts into a trained model the circuit that chooses a tool: whose words does the request repeat?

Training alone does not find it: three heads must fit together before any of them helps. After 41 M tokens the large
model still chose by chance among tools of random words (`matching.py`); four minutes after this was put in, it was
right in four of five.

    layer 1, head A   a word of a tool's line -> the name of that line    codes of its words, averaged, written to N
    layer 2, head B   a word of the request   -> what followed it before  reads N there, writes it to M
    layer 3, head C   a token inside a name   -> the words of the request reads M: each word votes for its line's name

What a head must recognise is read off the model's own activations by ridge regression (Hoerl and Kennard, 1970). N and
M are the directions in which the residual stream varies least. The heads that are overwritten are those that the model
misses least; everything is trained on afterwards.
"""

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from bundled_models.generator import Example, Generator
from bundled_models.kernels import NORM_EPS
from bundled_models.model import TinyLlama
from bundled_models.packing import END, USER, encode, pack

CODE = 56  # numbers that stand for a word, of a head's 64
RIDGE = 1e-2
NEAR, FAR = 10, 14  # pairs of RoPE whose turning makes A prefer the nearest line's name, and not wrap around
STILL = -1  # the pair that hardly turns
SHARPNESS = {"A": 25.0, "B": 1.4, "C": 12.0}
GAIN = {"A": 12.0, "B": 12.0, "C": 15.0}
LONGEST = 400
NAME_IN_LINE = re.compile(r"(?:(?<=<\|tools\|>)|(?<=\n))[^(\n]+")
NAME_IN_ANSWER = re.compile(r'(?<="name":")[^"]*')


@dataclass(frozen=True, slots=True)
class Marked:
    """The tokens of one example and what they are. All: [tokens], bool but `ids`."""

    ids: Tensor
    in_name: Tensor  # of a tool, where it is defined
    requested: Tensor  # said by the user last
    before_name: Tensor  # the next token belongs to the name in a call


@torch.no_grad()
def install(model: TinyLlama, tokenizer: Tokenizer, examples: int = 260) -> None:
    """Overwrite three heads of `model`. Raises ValueError where it has under four layers, or heads of another width."""
    if model.shape.layers < 4 or model.shape.head_width != 64:
        raise ValueError(f"{model.shape}: choosing needs four layers and heads of 64")
    generator = Generator(3, matching=0.6)
    marked = list(_drawn(generator, tokenizer, examples))
    heads = [_least(model, tokenizer, layer) for layer in (1, 2, 3)]
    tokens = [tokenizer.id_to_token(i) or "" for i in range(model.shape.vocabulary)]
    words = torch.tensor([t.isalpha() and len(t) > 1 for t in tokens])
    ids = torch.cat([m.ids for m in marked])
    codes, decoder = _codes(model)
    one, two, three = (torch.cat(rows) for rows in zip(*(layer_inputs(model, m.ids)[1:4] for m in marked), strict=True))
    names, notes = _quiet(torch.cat([two / _scale(model, 2), three / _scale(model, 3)]))

    def head(layer: int) -> tuple[dict[str, Tensor], slice]:
        rows = slice(64 * heads[layer - 1], 64 * (heads[layer - 1] + 1))
        block = model.blocks[layer].matrices()
        for name in ("q_proj", "k_proj", "v_proj"):
            block[name][rows] = 0
        block["o_proj"][:, rows] = 0
        return block, rows

    in_name = (torch.cat([m.in_name for m in marked]) & words[ids]).float()
    finder = _ridge(two, one @ model.blocks[1].matrices()["q_proj"][:64].T, RIDGE / 10)
    found = _ridge(two, one @ model.blocks[1].matrices()["k_proj"][:64].T, RIDGE / 10)

    block, rows = head(1)
    for pair in (NEAR, FAR):
        block["q_proj"][rows.start + pair] = SHARPNESS["A"] * 8 * _ridge(one, torch.ones(len(one), 1))[0]
        block["k_proj"][rows.start + pair] = _ridge(one, in_name[:, None], weight=1 + 4 * in_name)[0]
    block["v_proj"][rows][:CODE] = _ridge(one, codes[ids], weight=in_name + 0.02)
    block["o_proj"][:, rows][:, :CODE] = GAIN["A"] * names

    block, rows = head(2)
    block["q_proj"][rows], block["k_proj"][rows] = SHARPNESS["B"] * finder, found
    block["v_proj"][rows][:CODE] = names.T / _scale(model, 2)
    block["o_proj"][:, rows][:, :CODE] = GAIN["B"] * notes

    three = torch.cat([layer_inputs(model, m.ids)[3] for m in marked])
    asked = (torch.cat([m.requested for m in marked]) & words[ids]).float()
    naming = torch.cat([m.before_name for m in marked]).float()
    block, rows = head(3)
    pair = rows.start + 32 + STILL
    block["q_proj"][pair] = SHARPNESS["C"] * 8 * _ridge(three, naming[:, None], weight=1 + 20 * naming)[0]
    block["k_proj"][pair] = _ridge(three, asked[:, None])[0]
    block["v_proj"][rows][:CODE] = notes.T / _scale(model, 3)
    block["o_proj"][:, rows][:, :CODE] = GAIN["C"] * decoder


def layer_inputs(model: TinyLlama, ids: Tensor) -> list[Tensor]:
    """What each layer's projections read, [layers][tokens, width], for one sequence. ids: [tokens]; fp32, plain."""
    x, count, width = model.embed_tokens.weight[ids], len(ids), model.shape.head_width
    angle = torch.outer(torch.arange(count).float(), model.frequencies)
    cos, sin = (torch.cat([t, t], -1)[:, None] for t in (angle.cos(), angle.sin()))
    unseen = torch.full((count, count), -1e9).triu(1)
    found = []
    for block in model.blocks:
        w = block.matrices()
        found.append(h := _norm(x) * block.input_layernorm)
        q, k, v = (F.linear(h, w[name]).view(count, -1, width) for name in ("q_proj", "k_proj", "v_proj"))
        q, k = (t * cos + torch.cat([-t[..., width // 2 :], t[..., : width // 2]], -1) * sin for t in (q, k))
        scores = torch.softmax(torch.einsum("qhd,khd->hqk", q, k) * width**-0.5 + unseen, -1)
        x = x + F.linear(torch.einsum("hqk,khd->qhd", scores, v).flatten(1), w["o_proj"])
        h = _norm(x) * block.post_attention_layernorm
        x = x + F.linear(F.silu(F.linear(h, w["gate_proj"])) * F.linear(h, w["up_proj"]), w["down_proj"])
    return found


def _norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), None, NORM_EPS)


def _scale(model: TinyLlama, layer: int) -> Tensor:
    return model.blocks[layer].input_layernorm.detach()


def _ridge(x: Tensor, y: Tensor, strength: float = RIDGE, weight: Tensor | None = None) -> Tensor:
    """W with x W^T near y, by least squares. x: [rows, width]; y: [rows, outputs]; returns [outputs, width]."""
    weighted = x if weight is None else x * weight[:, None]
    gram = weighted.T @ x
    gram += strength * gram.diagonal().mean() * torch.eye(len(gram))
    solved: Tensor = torch.linalg.solve(gram, weighted.T @ y)
    return solved.T


def _codes(model: TinyLlama) -> tuple[Tensor, Tensor]:
    """(a unit vector for each token, [vocabulary, CODE]; what turns one into the token's logit, [width, CODE])."""
    embedding = model.embed_tokens.weight.detach()
    centred = embedding - embedding.mean(0)
    _, sizes, axes = torch.linalg.svd(centred, full_matrices=False)
    white = F.normalize(centred @ axes.T / sizes, dim=1)
    chosen = torch.linalg.qr(torch.randn(len(axes), len(axes)))[0][:CODE]
    decoder = (axes.T / sizes) @ chosen.T / model.norm.detach()[:, None]
    return F.normalize(white @ chosen.T, dim=1), decoder / decoder.norm(dim=0).mean()


def _quiet(stream: Tensor) -> tuple[Tensor, Tensor]:
    """Two sets of CODE orthonormal directions, [width, CODE], in which the residual stream varies least."""
    _, axes = torch.linalg.eigh(stream.T @ stream)
    mixed = axes[:, : 2 * CODE] @ torch.linalg.qr(torch.randn(2 * CODE, 2 * CODE))[0]
    return mixed[:, :CODE], mixed[:, CODE:]


def _least(model: TinyLlama, tokenizer: Tokenizer, layer: int) -> int:
    """The head of a layer without which the loss on ordinary examples is lowest."""
    generator = Generator(17)
    rows = [encode(tokenizer, generator.group(1)) for _ in range(60)]
    batch = pack([r for r in rows if len(r) < LONGEST], model.shape.heads)
    losses = []
    for head in range(model.shape.heads):
        without = copy.deepcopy(model)
        without.blocks[layer].matrices()["o_proj"][:, 64 * head : 64 * (head + 1)] = 0
        losses.append(float(without.loss(batch)))
    return losses.index(min(losses))


def _drawn(generator: Generator, tokenizer: Tokenizer, count: int) -> Iterator[Marked]:
    while count:
        example = generator.group(1)[0]
        if example.tools and example.kind in ("call", "calls", "none"):
            marked = _mark(example, tokenizer)
            if len(marked.ids) < LONGEST:
                count -= 1
                yield marked


def _mark(example: Example, tokenizer: Tokenizer) -> Marked:
    before, turns, answer = (tokenizer.encode(text) for text in (example.preamble, example.turns, example.answer))
    ids = torch.tensor([*before.ids, *turns.ids, *answer.ids, END])
    in_name, requested, before_name = (torch.zeros(len(ids), dtype=torch.bool) for _ in range(3))
    in_name[: len(before.ids)] = _inside(before.offsets, NAME_IN_LINE, example.preamble)
    said = max(i for i, token in enumerate(turns.ids) if token == USER)
    requested[len(before.ids) + said + 1 : len(before.ids) + len(turns.ids) - 1] = True
    start = len(before.ids) + len(turns.ids) - 1  # one token before the answer
    before_name[start : start + len(answer.ids)] = _inside(answer.offsets, NAME_IN_ANSWER, example.answer)
    return Marked(ids, in_name, requested, before_name)


def _inside(offsets: Sequence[tuple[int, int]], pattern: re.Pattern[str], text: str) -> Tensor:
    """For each token whether it begins inside a match."""
    spans = [found.span() for found in pattern.finditer(text)]
    return torch.tensor([any(start <= begin < end for start, end in spans) for begin, _ in offsets])
