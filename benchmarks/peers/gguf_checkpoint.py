"""A Hugging Face checkpoint as GGUF, for llama.cpp. Needs gguf and numpy, not torch.

Names and layout are those of the GGUF specification and of llama.cpp's own converter: norms and biases are float32, and
Llama's query and key rows are reordered, because llama.cpp rotates neighbouring dimensions there, not halves.
"""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np

PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(checkpoint: Path, path: Path) -> None:
    """Write the bfloat16 checkpoint in `checkpoint` (one safetensors file, tied head) to `path`."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(path, config["model_type"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    _add_tokenizer(writer, checkpoint)
    for name, words in _read_bfloat16(checkpoint / "model.safetensors").items():
        if config["model_type"] == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            kind = "num_attention_heads" if "q_proj" in name else "num_key_value_heads"
            words = _interleave(words, config[kind])
        if words.ndim == 1:
            writer.add_tensor(_gguf_name(name), (words.astype(np.uint32) << 16).view(np.float32))
        else:
            writer.add_tensor(_gguf_name(name), words.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: Any, checkpoint: Path) -> None:
    """The byte-level BPE of tokenizer.json; token 0 ends."""
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = dict(tokenizer["model"]["vocab"]) | {added["content"]: added["id"] for added in tokenizer["added_tokens"]}
    added = {entry["id"] for entry in tokenizer["added_tokens"]}
    kinds = [gguf.TokenType.CONTROL if index in added else gguf.TokenType.NORMAL for index in range(len(tokens))]
    merges = tokenizer["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(sorted(tokens, key=lambda token: tokens[token]))
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)


def _gguf_name(name: str) -> str:
    """`model.layers.3.mlp.up_proj.weight` to `blk.3.ffn_up.weight`."""
    if name.startswith("model.layers."):
        index, part = name.removeprefix("model.layers.").split(".", 1)
        part, kind = part.rsplit(".", 1)
        return f"blk.{index}.{PARTS[part]}.{kind}"
    return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]


def _interleave(rows: Any, n_heads: int) -> Any:
    """[heads * head_dim, in]: row i and row i + head_dim / 2 of each head become neighbours."""
    n_out, n_in = rows.shape
    return np.ascontiguousarray(rows.reshape(n_heads, 2, -1, n_in).swapaxes(1, 2).reshape(n_out, n_in))


def _read_bfloat16(path: Path) -> dict[str, Any]:
    """Tensor names to their 16-bit words; safetensors' own numpy interface knows no bfloat16. Raises ValueError for
    another type."""
    data = np.memmap(path, np.uint8, "r")
    start = 8 + int(data[:8].view("<u8")[0])
    header = json.loads(bytes(data[8:start]))
    header.pop("__metadata__", None)
    kinds = {entry["dtype"] for entry in header.values()}
    if kinds != {"BF16"}:
        raise ValueError(f"{path.name} holds {sorted(kinds)}: only BF16 is converted")
    return {
        name: data[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]]
        .view("<u2")
        .reshape(entry["shape"])
        for name, entry in header.items()
    }
