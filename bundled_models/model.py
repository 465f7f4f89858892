"""The training-time model: plain Llama (RMSNorm, RoPE, SwiGLU, no biases, tied embeddings) born with look-up heads.

Layer 0 head 0 starts by attending to the previous token, layers 1 and 2 head 0 by finding where the current token came
before and copying what followed (Olsson et al. 2022, "In-context Learning and Induction Heads"). Left to chance this
circuit takes thousands of steps, far more than these models are trained for.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

NORM_EPS = 1e-5
CONTEXT = 2048
HIDDEN = -30_000.0


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a model."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    hidden: int
    theta: float = 50_000.0

    @property
    def head_width(self) -> int:
        """Dimensions of one attention head."""
        return self.width // self.heads


Size = Literal["small", "large"]
SHAPES: dict[Size, Shape] = {
    "small": Shape(2048, 128, 3, 2, 320),
    "large": Shape(2048, 192, 4, 3, 512),
}


@dataclass(frozen=True, slots=True)
class Bucket:
    """Places that attend together, padded to one rectangle.

    query: [rows, queries] and keys: [rows, keys], indices of tokens; bias: [rows, 1, queries, keys] in bf16, zero where
    a query may look and very negative where not.
    """

    query: Tensor
    keys: Tensor
    bias: Tensor

    @classmethod
    def masked(cls, query: Tensor, keys: Tensor, mask: Tensor) -> "Bucket":
        """From a mask that is True where a query may look."""
        return cls(query, keys, torch.zeros(mask.shape, dtype=torch.bfloat16).masked_fill(~mask, HIDDEN))


@dataclass(frozen=True, slots=True)
class Look:
    """Which token looks at which. `inverse`: for each query its place among all buckets' outputs, padding included."""

    buckets: tuple[Bucket, ...]
    inverse: Tensor

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention. q: [queries, heads, head_width]; k, v: [tokens, heads, head_width]; returns [queries, width]."""
        shape, flat = q.shape[1:], [t.flatten(1) for t in (q, k, v)]
        found = []
        for bucket in self.buckets:
            # F.embedding: its backward adds rows several times faster than index_select's does on a CPU
            queries, keys, values = (
                F.embedding(index, t).view(*index.shape, *shape).transpose(1, 2)
                for index, t in zip((bucket.query, bucket.keys, bucket.keys), flat, strict=True)
            )
            # by hand: at these lengths torch's fused kernel takes twice as long in bf16 on a CPU
            scores = (queries * shape[-1] ** -0.5) @ keys.transpose(-1, -2) + bucket.bias.to(q.dtype)
            y = torch.softmax(scores, -1) @ values
            found.append(y.transpose(1, 2).flatten(0, 1).flatten(1))
        return F.embedding(self.inverse, torch.cat(found))


@dataclass(frozen=True, slots=True)
class Packed:
    """Tokens of shared prefixes and their branches, flat and without padding.

    ids, positions: [tokens]; where, target: [answers], the places whose logits count and the tokens that belong there.
    `everywhere` is for all tokens, `answers` has only those places as queries.
    """

    ids: Tensor
    positions: Tensor
    everywhere: Look
    answers: Look
    where: Tensor
    target: Tensor


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), NORM_EPS)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE in the rotate_half convention of transformers. x: [tokens, heads, head_width]."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Block(nn.Module):
    """One Llama layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, hidden = shape.width, shape.hidden
        self.heads = shape.heads
        self.input_layernorm = nn.Parameter(torch.ones(width))
        self.post_attention_layernorm = nn.Parameter(torch.ones(width))
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(len(x), self.heads, -1)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, look: Look, where: Tensor | None = None) -> Tensor:
        """x: [tokens, width]. With `where` only those places are computed and returned."""
        h = _norm(x, self.input_layernorm)
        k = _rotate(self._split(self.k_proj(h)), cos, sin)
        v = self._split(self.v_proj(h))
        if where is not None:
            x, h, cos, sin = x[where], h[where], cos[where], sin[where]
        q = _rotate(self._split(self.q_proj(h)), cos, sin)
        x = x + self.o_proj(look.attend(q, k, v))
        h = _norm(x, self.post_attention_layernorm)
        out: Tensor = x + self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))
        return out


class TinyLlama(nn.Module):
    """The whole model."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.Parameter(torch.ones(shape.width))
        half = shape.head_width // 2
        self.frequencies = shape.theta ** (-torch.arange(half).float() / half)
        angle = torch.outer(torch.arange(CONTEXT).float(), self.frequencies)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """Silent blocks (output projections at zero, so tokens stay clean), then the look-up circuit."""
        shape, blocks = self.shape, [b for b in self.layers if isinstance(b, Block)]
        nn.init.normal_(self.embed_tokens.weight, 0, 0.1)
        for block in blocks:
            for linear in (block.q_proj, block.k_proj, block.v_proj, block.gate_proj, block.up_proj):
                nn.init.normal_(linear.weight, 0, shape.width**-0.5)
            nn.init.zeros_(block.o_proj.weight)
            nn.init.zeros_(block.down_proj.weight)
        if shape.layers < 3:
            return
        head, half = shape.head_width, shape.head_width // 2

        slow = self.frequencies < 0.006  # matching uses the pairs that hardly turn
        matching = slow.repeat(2).nonzero()[:, 0]
        rank = len(matching)
        directions = torch.linalg.qr(torch.randn(shape.width - 1, shape.width - 1))[0]
        directions = torch.cat([torch.zeros(shape.width - 1, 1), directions], 1)  # [width - 1, width], column 0 free
        previous, rest = directions[:rank], directions[rank:]
        self.embed_tokens.weight[:, 0] = 0.3  # a constant, in place of the bias that Llama lacks
        first = blocks[0]
        for distance in range(1, min(shape.heads, 3) + 1):  # head 0 looks one token back, head 1 two, head 2 three
            rows = slice(head * (distance - 1), head * distance)
            query, key = torch.zeros(2, head, shape.width)
            query[:half, 0] = 2.0  # q.k = sum of cos((i - j - distance) * frequency): largest at `distance`
            key[:half, 0] = 2 * (distance * self.frequencies).cos()
            key[half:, 0] = 2 * (distance * self.frequencies).sin()
            first.q_proj.weight[rows], first.k_proj.weight[rows] = query, key
            if distance > 1:  # a space is a token, so the word before stands two tokens back and more
                room = min(head, (shape.width - 1 - 2 * rank) // (min(shape.heads, 3) - 1))
                note, rest = rest[:room], rest[room:]
                first.v_proj.weight[rows] = torch.randn(head, shape.width) * shape.width**-0.5
                first.v_proj.weight[rows, 0] = 0
                first.o_proj.weight[:, head * (distance - 1) : head * (distance - 1) + room] = 0.1 * note.T
        own = rest[:rank]
        first.v_proj.weight[:head] = 0
        first.v_proj.weight[matching], first.o_proj.weight[:, matching] = own, 0.1 * previous.T
        for block in blocks[1:3]:
            found = torch.linalg.qr(torch.randn(shape.width - 1, head))[0].T
            found = torch.cat([torch.zeros(head, 1), found], 1)
            block.q_proj.weight[:head], block.k_proj.weight[:head] = 0, 0
            block.q_proj.weight[matching], block.k_proj.weight[matching] = 2 * own, 2 * previous
            block.v_proj.weight[:head], block.o_proj.weight[:, :head] = found, 0.3 * found.T

    def _hidden(self, ids: Tensor, positions: Tensor, look: Look, last: Look, where: Tensor | None) -> Tensor:
        x = self.embed_tokens(ids)
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.bfloat16)
        cos, sin = (t[positions][:, None].to(x.dtype) for t in (self.cos, self.sin))
        for block in self.layers[:-1]:
            x = block(x, cos, sin, look)
        return _norm(self.layers[-1](x, cos, sin, last, where), self.norm)

    def forward(self, batch: Packed) -> Tensor:
        """Logits where the target counts, [answers, vocabulary]. The head is not run on the prompt."""
        hidden = self._hidden(batch.ids, batch.positions, batch.everywhere, batch.answers, batch.where)
        return F.linear(hidden, self.embed_tokens.weight).float()

    def logits(self, ids: Tensor) -> Tensor:
        """Logits of plain causal sequences. ids: [rows, length]; returns [rows, length, vocabulary]."""
        rows, length = ids.shape
        places = torch.arange(rows * length).view(rows, length)
        mask = torch.ones(length, length, dtype=torch.bool).tril().expand(rows, 1, length, length)
        look = Look((Bucket.masked(places, places, mask),), places.flatten())
        hidden = self._hidden(ids.flatten(), torch.arange(length).repeat(rows), look, look, None)
        return F.linear(hidden, self.embed_tokens.weight).view(rows, length, -1)

    def weights(self) -> dict[str, Tensor]:
        """The weights under the names of transformers' LlamaForCausalLM."""
        renamed = {}
        for name, tensor in self.state_dict().items():
            parts = name.split(".")
            if parts[0] == "layers":
                group = "self_attn." if parts[2][0] in "qkvo" else "mlp." if "layernorm" not in parts[2] else ""
                group = "" if "layernorm" in parts[2] else group
                name = f"layers.{parts[1]}.{group}{parts[2]}"
            renamed[f"model.{name.removesuffix('.weight')}.weight"] = tensor
        return renamed


def export(model: TinyLlama, folder: Path) -> None:
    """Write `model.safetensors` (bf16), `config.json` and `generation_config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in model.weights().items()}
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # the library makes it private
    shape = asdict(model.shape)
    ids = {"eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape["vocabulary"],
        "hidden_size": shape["width"],
        "intermediate_size": shape["hidden"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["heads"],
        "head_dim": model.shape.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": NORM_EPS,
        "rope_theta": shape["theta"],
        "rope_parameters": {"rope_type": "default", "rope_theta": shape["theta"]},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": "bfloat16",
        **ids,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    generation = {"do_sample": False, **{k: v for k, v in ids.items() if v is not None}}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")
