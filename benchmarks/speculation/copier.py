"""A model whose weights copy, as trained ones do: with induction heads, at the cost of a real shape.

Of the prompt's documents random weights copy nothing, and the bundled models only short values. Here two layers of a
Llama are written by hand (the circuit of Olsson et al., 2022, "In-context Learning and Induction Heads"); the layers
after them compute as much as any others and add nothing.

    embedding        cur := a code of +-1 for each token, and a constant
    layer 0          heads 0 to 2 look back 1, 2 and 3 places:                before[1..3] := cur there
    layer 1, head 0  looks for the place before which the last 3 tokens stood: out := cur there
    head of logits   the token whose code is in out

A place that agrees in all three tokens scores higher than any other; of several, later ones score a little higher. What
follows MARK is never looked at, so that a passage before it is read to its end and then left for one that goes on.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.checkpoints import Shape, build_checkpoint

__all__ = ["CONTEXT", "MARK", "SHAPE_135M", "build_copier"]

SHAPE_135M = Shape("llama", 30, 576, 9, 3, 1536, 32_000)
"""Of SmolLM-135M, but for its vocabulary of 49,152."""
CONTEXT = 3
"""Tokens by which a place is found."""
MARK = 0
"""The token that parts passages, which is the end of text: it is never written, nor looked at."""
CODE = 64
THETA = 1e9
"""So large that most pairs of a head's dimensions hardly turn within a prompt: those compare codes."""
CONSTANT = 8.0
FIRST_STILL, N_COMPARED = 12, 13
"""The first pair of dimensions that hardly turns; and of a code, how many numbers are compared."""
RECENT_PAIR = 10
LOOK_BACK, MATCH, RECENT, FORBID = 60.0, 5.0, 12.0, 400.0
"""What scores are made of: by the place alone, for each number that agrees, for being near, and against MARK."""
CONFIDENCE = 0.5
"""Of logits, for each number of a code that agrees."""


CUR = slice(0, CODE)
BEFORE = tuple(slice(CODE * back, CODE * (back + 1)) for back in range(1, CONTEXT + 1))
OUT = slice(CODE * (CONTEXT + 1), CODE * (CONTEXT + 2))
CONSTANT_AT, IS_MARK_AT = CODE * (CONTEXT + 2), CODE * (CONTEXT + 2) + 1
"""Where in the residual stream, [hidden_size], what lies."""


def build_copier(folder: Path, shape: Shape = SHAPE_135M, corpus_files: int = 60) -> Path:
    """Write the checkpoint and return `folder`. The same vocabulary of any shape has the same tokenizer.

    Raises ValueError for a shape whose heads are not CODE wide or whose residual stream is too narrow.
    """
    if shape.family != "llama" or shape.head_dim != CODE or shape.hidden_size <= IS_MARK_AT or shape.n_layers < 2:
        raise ValueError(f"a copier is a llama with heads of {CODE} and a width of more than {IS_MARK_AT}: {shape}")
    if shape.n_heads // shape.n_kv_heads < CONTEXT:
        raise ValueError(f"a copier needs {CONTEXT} heads for each of keys: {shape}")
    build_checkpoint(shape, folder, corpus_files=corpus_files)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor.zero_()
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 2, (shape.vocab_size, CODE), generator=generator).mul(2).sub(1).to(torch.bfloat16)
    _write_ends(tensors, codes)
    _write_look_back(tensors, shape)
    _write_match(tensors, shape)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"rope_theta": THETA, "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return folder


def _write_ends(tensors: dict[str, torch.Tensor], codes: torch.Tensor) -> None:
    """The embedding, and the head of logits, which is not the same."""
    embedding = tensors["model.embed_tokens.weight"].zero_()
    embedding[:, CUR] = codes
    embedding[:, CONSTANT_AT] = CONSTANT
    embedding[MARK, IS_MARK_AT] = CONSTANT
    head = torch.zeros_like(embedding)
    head[:, OUT] = codes * CONFIDENCE
    head[MARK] = 0.0
    tensors["lm_head.weight"] = head


def _norm_weight(hidden_size: int, n_codes: int) -> float:
    """Undoes the norm of a residual stream of so many codes and the constant."""
    return float(((n_codes * CODE + CONSTANT**2) / hidden_size) ** 0.5)


def _turn(pair: int, distance: float) -> float:
    """By how much a pair of dimensions turns over a distance, in radians."""
    return distance * float(THETA ** (-2 * pair / CODE))


def _write_look_back(tensors: dict[str, torch.Tensor], shape: Shape) -> None:
    """Layer 0: the score of a key d places back is a sum of cos(turn(d - wanted)), which is greatest where d is wanted.

    Query and key of a pair are the constant, turned against one another by the distance that is wanted.
    """
    tensors["model.layers.0.input_layernorm.weight"].fill_(_norm_weight(shape.hidden_size, 1))
    layer = "model.layers.0.self_attn"
    query, key = tensors[f"{layer}.q_proj.weight"], tensors[f"{layer}.k_proj.weight"]
    value, out = tensors[f"{layer}.v_proj.weight"], tensors[f"{layer}.o_proj.weight"]
    query[: CONTEXT * CODE] = key[:CODE] = value[:CODE] = 0.0
    half, scale = CODE // 2, CODE**0.5 / CONSTANT**2  # attention divides by the root of its width
    for pair in range(RECENT_PAIR):
        key[pair, CONSTANT_AT] = 1.0
        for head in range(CONTEXT):
            turned = torch.tensor(_turn(pair, -(head + 1.0)))
            query[head * CODE + pair, CONSTANT_AT] = LOOK_BACK * scale * torch.cos(turned)
            query[head * CODE + half + pair, CONSTANT_AT] = LOOK_BACK * scale * torch.sin(turned)
    value[:CODE, CUR] = torch.eye(CODE)
    for head, place in enumerate(BEFORE):
        out[place, head * CODE : (head + 1) * CODE] = torch.eye(CODE)


def _write_match(tensors: dict[str, torch.Tensor], shape: Shape) -> None:
    """Layer 1: a query is the last tokens, a key those before a place, each in dimensions of its own."""
    tensors["model.layers.1.input_layernorm.weight"].fill_(_norm_weight(shape.hidden_size, 1 + CONTEXT))
    layer = "model.layers.1.self_attn"
    query, key = tensors[f"{layer}.q_proj.weight"], tensors[f"{layer}.k_proj.weight"]
    value, out = tensors[f"{layer}.v_proj.weight"], tensors[f"{layer}.o_proj.weight"]
    query[:CODE] = key[:CODE] = value[:CODE] = 0.0
    half, scale = CODE // 2, CODE**0.5
    still = [*range(FIRST_STILL, half), *range(half + FIRST_STILL, CODE)]
    asked = (CUR, *BEFORE[:-1])
    for back in range(CONTEXT):
        for number in range(N_COMPARED):
            dimension = still[back * N_COMPARED + number]
            query[dimension, asked[back].start + number] = MATCH * scale
            key[dimension, BEFORE[back].start + number] = 1.0
    query[still[-1], CONSTANT_AT] = -FORBID * scale / CONSTANT
    key[still[-1], IS_MARK_AT] = 1.0 / CONSTANT
    query[RECENT_PAIR, CONSTANT_AT] = RECENT * scale / CONSTANT**2
    key[RECENT_PAIR, CONSTANT_AT] = 1.0
    value[:CODE, CUR] = torch.eye(CODE)
    out[OUT, :CODE] = torch.eye(CODE)
