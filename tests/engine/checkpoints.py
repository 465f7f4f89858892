"""Tiny random checkpoints of every family, as transformers saves them, with a small byte-level tokenizer and a
chat template."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "phi3": (Phi3Config, Phi3ForCausalLM),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM),
    "gemma3_text": (Gemma3TextConfig, Gemma3ForCausalLM),
    "mixtral": (MixtralConfig, MixtralForCausalLM),
    "qwen2_moe": (Qwen2MoeConfig, Qwen2MoeForCausalLM),
    "qwen3_moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM),
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "qwen3": {"head_dim": 16},
    "mistral": {"sliding_window": None},
    "phi3": {"original_max_position_embeddings": 512},
    "gemma2": {"head_dim": 24, "query_pre_attn_scalar": 20, "sliding_window": 9},
    "gemma3_text": {"head_dim": 24, "query_pre_attn_scalar": 20, "sliding_window": 9},
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {"num_experts": 5, "moe_intermediate_size": 40, "shared_expert_intermediate_size": 56},
    "qwen3_moe": {"head_dim": 16, "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 40},
}
"""What a family's tiny checkpoint needs besides the common settings."""
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|tools|>"]
END_ID = SPECIAL_TOKENS.index("<|im_end|>")
CHAT_TEMPLATE = """\
{%- if tools %}<|tools|>{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{% endif %}
{%- if response_schema %}<|tools|>{{ response_name or "answer" }} {{ response_schema | tojson }}
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
CORPUS = [
    "The quick brown fox jumps over the lazy dog. Is it 12:30 already? Yes, it is!",
    '{"name":"get_weather","arguments":{"city":"Paris","unit":"celsius","days":3,"is_public":true,"note":null}}',
    "user assistant system tool answer hello world number string object array required properties type enum",
    "Zürich, São Paulo, 東京, Привет, naïve café – 5 € ☃ 🙂",
] * 4


def build_tokenizer(vocab_size: int = 512) -> Tokenizer:
    """A byte-level BPE tokenizer: ids 0 to 3 are the special tokens, every byte has a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def save_tokenizer(folder: Path, vocab_size: int = 512) -> Tokenizer:
    """Write tokenizer.json and tokenizer_config.json (with the chat template) into `folder`."""
    tokenizer = build_tokenizer(vocab_size)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return tokenizer


def build_checkpoint(
    folder: Path,
    family: str = "llama",
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "1GB",
    **overrides: Any,
) -> PreTrainedModel:
    """Save a random model of `family` with its tokenizer into `folder`; returns the transformers model, for comparison.

    Weights are larger than a fresh initialisation's, so that attention is far from uniform and greedy tokens vary.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config_class, model_class = FAMILIES[family]
    settings: dict[str, Any] = {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 0,
        "eos_token_id": END_ID,
        "pad_token_id": None,
        "initializer_range": 0.15,
        "tie_word_embeddings": False,
    }
    settings |= DEFAULTS.get(family, {}) | overrides
    generator_state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = model_class(config_class(**settings)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:  # zeros and ones at the start: they would hide a mistake
                parameter.add_(torch.randn_like(parameter) * 0.1)
    torch.random.set_rng_state(generator_state)
    model = model.to(dtype)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    save_tokenizer(folder, settings["vocab_size"])
    return model
