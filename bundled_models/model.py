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
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bundled_models.attention import Look, Span, attend, look
from bundled_models.kernels import NORM_EPS, PLAIN, Kernels, turns

CONTEXT = 2048


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
    "large": Shape(2048, 256, 8, 4, 704),
}


@dataclass(frozen=True, slots=True)
class Packed:
    """A microbatch: tokens of shared prefixes and their branches, flat, padding only at the end.

    ids, positions: [tokens]; where, target, weight: [answers], the places whose logits count, the tokens that belong
    there and how much each counts in the loss (padding: 0). `everywhere` is for all tokens, `answers` has only those
    places as queries. `count` tokens and `known` answers are no padding.
    """

    ids: Tensor
    positions: Tensor
    everywhere: Look
    answers: Look
    where: Tensor
    target: Tensor
    weight: Tensor
    count: int
    known: int


class Block(nn.Module):
    """One Llama layer. Matrices that read the same input lie in one: q, k, v below each other, gate above up."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, hidden = shape.width, shape.hidden
        self.input_layernorm = nn.Parameter(torch.ones(width))
        self.post_attention_layernorm = nn.Parameter(torch.ones(width))
        self.qkv = nn.Parameter(torch.empty(3 * width, width))
        self.out = nn.Parameter(torch.empty(width, width))
        self.gate_up = nn.Parameter(torch.empty(2 * hidden, width))
        self.down = nn.Parameter(torch.empty(width, hidden))

    def matrices(self) -> dict[str, Tensor]:
        """The matrices under Llama's names, as views: writing to one changes the layer."""
        (q, k, v), (gate, up) = self.qkv.detach().chunk(3), self.gate_up.detach().chunk(2)
        out, down = self.out.detach(), self.down.detach()
        return {
            "q_proj": q, "k_proj": k, "v_proj": v, "o_proj": out, "gate_proj": gate, "up_proj": up, "down_proj": down
        }  # fmt: skip


class TinyLlama(nn.Module):
    """The whole model."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = [Block(shape) for _ in range(shape.layers)]
        self.layers = nn.ModuleList(self.blocks)
        self.norm = nn.Parameter(torch.ones(shape.width))
        half = shape.head_width // 2
        self.frequencies = shape.theta ** (-torch.arange(half).float() / half)
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """Silent blocks (output projections at zero, so tokens stay clean), then the look-up circuit."""
        shape, blocks = self.shape, [b.matrices() for b in self.blocks]
        nn.init.normal_(self.embed_tokens.weight, 0, 0.1)
        for block in blocks:
            for name, matrix in block.items():
                silent = name in ("o_proj", "down_proj")
                nn.init.normal_(matrix, 0, 0.0 if silent else shape.width**-0.5)
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
            first["q_proj"][rows], first["k_proj"][rows] = query, key
            if distance > 1:  # a space is a token, so the word before stands two tokens back and more
                room = min(head, (shape.width - 1 - 2 * rank) // (min(shape.heads, 3) - 1))
                note, rest = rest[:room], rest[room:]
                first["v_proj"][rows] = torch.randn(head, shape.width) * shape.width**-0.5
                first["v_proj"][rows, 0] = 0
                first["o_proj"][:, head * (distance - 1) : head * (distance - 1) + room] = 0.1 * note.T
        own = rest[:rank]
        first["v_proj"][:head] = 0
        first["v_proj"][matching], first["o_proj"][:, matching] = own, 0.1 * previous.T
        for block in blocks[1:3]:
            found = torch.linalg.qr(torch.randn(shape.width - 1, head))[0].T
            found = torch.cat([torch.zeros(head, 1), found], 1)
            block["q_proj"][:head], block["k_proj"][:head] = 0, 0
            block["q_proj"][matching], block["k_proj"][matching] = 2 * own, 2 * previous
            block["v_proj"][:head], block["o_proj"][:, :head] = found, 0.3 * found.T

    def _hidden(
        self, ids: Tensor, positions: Tensor, where: Tensor, looks: tuple[Look, Look], kernels: Kernels
    ) -> Tensor:
        """The residual stream after the last layer at the tokens `where`. looks: of all tokens, of `where`."""
        # from fp32, so that the gradients of a frequent token are summed in fp32
        x = F.embedding(ids, self.embed_tokens.weight.float())
        cos, sin = turns(torch.outer(positions, self.frequencies))
        for index, block in enumerate(self.blocks):
            is_last = index == len(self.blocks) - 1
            qkv = kernels.project(x, block.input_layernorm, block.qkv, cos, sin)
            attended = attend(qkv, looks[is_last], kernels)
            x = kernels.finish(
                x[where] if is_last else x,
                attended, block.out, block.post_attention_layernorm, block.gate_up, block.down,
            )  # fmt: skip
        return x

    def forward(self, batch: Packed, kernels: Kernels = PLAIN) -> Tensor:
        """Logits where the target counts, [answers, vocabulary], padding included. Prompts get no logits."""
        x = self._hidden(batch.ids, batch.positions, batch.where, (batch.everywhere, batch.answers), kernels)
        return kernels.head(x, self.norm, self.embed_tokens.weight)

    def loss(self, batch: Packed, kernels: Kernels = PLAIN) -> Tensor:
        """The sum over answer places of weight times cross entropy, in nats."""
        x = self._hidden(batch.ids, batch.positions, batch.where, (batch.everywhere, batch.answers), kernels)
        return kernels.loss(x, self.norm, self.embed_tokens.weight, batch.target, batch.weight)

    def logits(self, ids: Tensor) -> Tensor:
        """Logits of plain causal sequences. ids: [rows, length]; returns [rows, length, vocabulary]."""
        rows, length = ids.shape
        spans = [Span(line := range(r * length, (r + 1) * length), line, 0, r * length) for r in range(rows)]
        seen = look([(spans, (1, 1))], self.shape.heads, ids.numel(), ids.numel())
        places = torch.arange(ids.numel())
        x = self._hidden(ids.flatten(), torch.arange(length).repeat(rows), places, (seen, seen), PLAIN)
        return PLAIN.head(x, self.norm, self.embed_tokens.weight).view(rows, length, -1)

    def weights(self) -> dict[str, Tensor]:
        """The weights under the names of transformers' LlamaForCausalLM."""
        named = {"model.embed_tokens.weight": self.embed_tokens.weight.detach()}
        for index, block in enumerate(self.blocks):
            for name, matrix in block.matrices().items():
                part = "self_attn" if name[0] in "qkvo" else "mlp"
                named[f"model.layers.{index}.{part}.{name}.weight"] = matrix
            for name in ("input_layernorm", "post_attention_layernorm"):
                named[f"model.layers.{index}.{name}.weight"] = getattr(block, name).detach()
        return named | {"model.norm.weight": self.norm.detach()}


@torch.no_grad()
def load(folder: Path) -> TinyLlama:
    """The model of an exported folder, in fp32. Raises FileNotFoundError or KeyError for what is none."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = TinyLlama(
        Shape(
            config["vocab_size"], config["hidden_size"], config["num_hidden_layers"],
            config["num_attention_heads"], config["intermediate_size"], config["rope_theta"],
        )
    )  # fmt: skip
    saved = load_file(folder / "model.safetensors")
    for name, tensor in model.weights().items():
        tensor.copy_(saved[name])
    return model


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
