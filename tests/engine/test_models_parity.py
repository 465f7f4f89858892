"""The decoder against transformers: same logits within 1e-4 in float32, same greedy tokens, whatever the batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from engine.config import CacheConfig
from engine.models.loading import load_decoder
from engine.quantization import converter
from engine.runner import ModelRunner
from tests.engine.checkpoints import build_checkpoint
from tests.engine.driver import Driver, Sequence, build_runner

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}
# transformers picks the factors by the sequence in hand, the engine by its length: they agree where both are one list.
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0 + 0.25 * i for i in range(8)],
    "long_factor": [1.0 + 0.25 * i for i in range(8)],
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-gqa": ("llama", {}),
    "llama-mha-tied": ("llama", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "llama-mqa-biased": ("llama", {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True}),
    "llama-linear-rope": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 5_000.0}},
    ),
    "llama-llama3-rope": ("llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama-wide-heads": ("llama", {"head_dim": 32}),
    "mistral-full": ("mistral", {}),
    "mistral-window": ("mistral", {"sliding_window": 11}),
    "qwen2-gqa-tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2-late-window": ("qwen2", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}),
    "qwen3-gqa": ("qwen3", {}),
    "qwen3-mqa-window": (
        "qwen3",
        {
            "num_key_value_heads": 1,
            "head_dim": 32,
            "use_sliding_window": True,
            "sliding_window": 13,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "llama-yarn": ("llama", {"rope_parameters": YARN_ROPE}),
    "phi3-fused": ("phi3", {"sliding_window": 12}),
    "phi3-longrope": ("phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 30}),
    "gemma2-mixed": ("gemma2", {}),
    "gemma2-tightly-capped": (
        "gemma2",
        {"head_dim": 256, "attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0},
    ),
    "gemma2-uncapped-biased": (
        "gemma2",
        {"attn_logit_softcapping": None, "final_logit_softcapping": None, "attention_bias": True},
    ),
    "gemma3-two-thetas": ("gemma3_text", {"sliding_window_pattern": 3}),
    "gemma3-stretched": (
        "gemma3_text",
        {
            "layer_types": ["sliding_attention", "full_attention", "full_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
            },
        },
    ),
    "mixtral": ("mixtral", {}),
    "mixtral-window": ("mixtral", {"sliding_window": 8, "num_experts_per_tok": 3}),
    "qwen2-moe-shared": ("qwen2_moe", {"norm_topk_prob": True}),
    "qwen2-moe-some-dense": ("qwen2_moe", {"mlp_only_layers": [1], "num_experts_per_tok": 2}),
    "qwen3-moe": ("qwen3_moe", {}),
    "qwen3-moe-every-second": ("qwen3_moe", {"norm_topk_prob": True, "decoder_sparse_step": 2}),
}


@pytest.fixture(scope="module", params=CASES)
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, PreTrainedModel]:
    family, overrides = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    return folder, build_checkpoint(folder, family, seed=len(request.param), **overrides)


def random_tokens(n: int, seed: int) -> list[int]:
    return torch.randint(4, 512, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.inference_mode()
def reference_logits(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    return model(torch.tensor([tokens])).logits[0]


@torch.inference_mode()
def reference_greedy(model: PreTrainedModel, prompt: list[int], n_new: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(n_new):
        tokens.append(int(reference_logits(model, tokens)[-1].argmax()))
    return tokens[len(prompt) :]


def test_logits_of_every_position_equal_transformers(checkpoint: tuple[Path, PreTrainedModel]) -> None:
    folder, model = checkpoint
    tokens = random_tokens(45, seed=3)
    driver = Driver(build_runner(folder))
    logits = driver.run([driver.row(Sequence("a", tokens), 45, 45)]).logits
    torch.testing.assert_close(logits, reference_logits(model, tokens), atol=1e-4, rtol=0)


def test_logits_in_the_forms_that_an_engine_gives_its_weights_equal_transformers(
    checkpoint: tuple[Path, PreTrainedModel],
) -> None:
    folder, model = checkpoint
    convert = converter("none", torch.float32, torch.device("cpu"), is_invariant=False)
    decoder = load_decoder(folder, torch.float32, convert=convert)
    driver = Driver(ModelRunner(decoder.config, decoder, CacheConfig(block_size=8, n_blocks=64)))
    tokens = random_tokens(45, seed=4)
    sequence = Sequence("a", tokens)
    logits = torch.cat([driver.run([driver.row(sequence, n, n)]).logits for n in (30, 1, 1, 13)])
    torch.testing.assert_close(logits, reference_logits(model, tokens), atol=1e-4, rtol=0)


def test_logits_of_any_cut_of_a_ragged_batch_equal_transformers(checkpoint: tuple[Path, PreTrainedModel]) -> None:
    """Chunks, verification rows of several logits and decodes side by side, over steps in which requests join and
    leave."""
    folder, model = checkpoint
    driver = Driver(build_runner(folder))
    cuts = [(40,), (17, 1, 1, 5), (3, 3, 20, 1), (1, 1, 1, 1, 1), (9, 30), (30, 2, 2, 2, 1)]
    sequences = [Sequence(str(i), random_tokens(sum(cut), seed=i)) for i, cut in enumerate(cuts)]
    expected = [reference_logits(model, sequence.tokens) for sequence in sequences]
    for step in range(7):
        # Request i joins in step i // 2, so that first chunks meet decodes.
        present = [(s, e, c[step - i // 2]) for i, (s, e, c) in enumerate(zip(sequences, expected, cuts, strict=True))
                   if 0 <= step - i // 2 < len(c)]  # fmt: skip
        starts = [s.computed for s, _, _ in present]
        logits = driver.run([driver.row(s, n, n) for s, _, n in present]).logits
        wanted = torch.cat([e[start : start + n] for start, (_, e, n) in zip(starts, present, strict=True)])
        torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)
    assert all(s.computed == len(s.tokens) for s in sequences)


def test_greedy_tokens_equal_transformers_alone_and_in_a_batch(checkpoint: tuple[Path, PreTrainedModel]) -> None:
    folder, model = checkpoint
    prompts = [random_tokens(n, seed=n) for n in (1, 7, 16, 33)]
    expected = [reference_greedy(model, prompt, 12) for prompt in prompts]
    alone = [Driver(build_runner(folder)).greedy([prompt], 12)[0] for prompt in prompts]
    assert alone == expected
    assert Driver(build_runner(folder)).greedy(prompts, 12, chunk=5) == expected


@pytest.mark.parametrize("max_model_len", [30, 45])
@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0}}),
        (
            "phi3",
            {
                "rope_parameters": LONGROPE | {"long_factor": [2.0 + i for i in range(8)]},
                "original_max_position_embeddings": 30,
            },
        ),
    ],
)
def test_rotation_that_follows_the_length_is_that_of_the_engines_length(
    family: str, overrides: dict[str, Any], max_model_len: int, tmp_path: Path
) -> None:
    """transformers rotates by the length in hand: it agrees on a sequence as long as the engine allows."""
    model = build_checkpoint(tmp_path, family, max_position_embeddings=30, **overrides)
    decoder = load_decoder(tmp_path, torch.float32, max_model_len=max_model_len)
    driver = Driver(ModelRunner(decoder.config, decoder, CacheConfig(block_size=8, n_blocks=16)))
    tokens = random_tokens(max_model_len, seed=1)
    sequence = Sequence("a", tokens)
    cuts = [11, *[1] * 7, max_model_len - 18]
    logits = torch.cat([driver.run([driver.row(sequence, n, n)]).logits for n in cuts])
    torch.testing.assert_close(logits, reference_logits(model, tokens), atol=1e-4, rtol=0)
