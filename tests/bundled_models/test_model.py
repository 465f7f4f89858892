"""The training-time model: packing changes nothing, and transformers reads what it exports."""

import copy
import json
import random
import re
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from bundled_models import tokenizer as tokenizers_of
from bundled_models.generator import Generator
from bundled_models.kernels import compiled
from bundled_models.model import Shape, TinyLlama, export, load
from bundled_models.packing import CHOICE_WEIGHT, FORCED_WEIGHT, VALUE_WEIGHT, Row, batches, drill, encode, pack
from bundled_models.signature import SPECIAL_TOKENS
from bundled_models.store import Store


def config(shape: Shape) -> LlamaConfig:
    """The same model in transformers."""
    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": shape.theta},
        tie_word_embeddings=True,
    )


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tokenizers_of.train(groups=150)


@pytest.fixture(scope="module")
def model() -> TinyLlama:
    torch.manual_seed(1)
    model = TinyLlama(Shape(tokenizers_of.VOCABULARY, 128, 3, 2, 96))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


def test_packed_logits_are_those_of_transformers_for_each_example_alone(
    model: TinyLlama, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    rounded = TinyLlama(model.shape)
    rounded.load_state_dict({n: t.to(torch.bfloat16).float() for n, t in model.state_dict().items()})
    export(rounded, tmp_path)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    generator = Generator(1)
    rows = [encode(tokenizer, generator.group(4)) for _ in range(4)]
    batch = pack(rows, model.shape.heads)
    with torch.no_grad():
        packed, at = rounded(batch), 0
        for row in rows:
            for turns, answer, weights in row.branches:
                ids = torch.tensor([row.preamble + turns + answer[:-1]])
                expected = theirs(ids).logits[0, -len(answer) :]
                torch.testing.assert_close(packed[at : at + len(answer)], expected, atol=1e-3, rtol=1e-3)
                assert batch.target[at : at + len(answer)].tolist() == answer
                assert batch.weight[at : at + len(answer)].tolist() == weights
                at += len(answer)
    assert at == batch.known
    assert not batch.weight[at:].any()


def test_in_bf16_the_model_strays_about_as_far_as_transformers_does(
    model: TinyLlama, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    export(model, tmp_path)
    precise, rounded = (LlamaForCausalLM.from_pretrained(tmp_path, dtype=d) for d in (torch.float32, torch.bfloat16))
    row = encode(tokenizer, Generator(2).group(4))
    store = Store(model.shape, 1)
    store.load(model.state_dict(), store.state())
    lines = [torch.tensor([row.preamble + t + a[:-1]]) for t, a, _ in row.branches]
    counts = [len(a) for _, a, _ in row.branches]
    with torch.no_grad():
        batch = pack([row], model.shape.heads, 4096)
        ours = store.model(0)(batch)[: batch.known].log_softmax(-1)
        exact, theirs = (
            torch.cat([m(i).logits[0, -c:] for i, c in zip(lines, counts, strict=True)]).float().log_softmax(-1)
            for m in (precise, rounded)
        )
    strayed = [float((exact.exp() * (exact - found)).sum(-1).mean()) for found in (ours, theirs)]  # nats
    assert strayed[0] < 3 * strayed[1] < 0.1


def test_what_is_exported_can_be_loaded_and_trained_on(model: TinyLlama, tmp_path: Path) -> None:
    export(model, tmp_path)
    again = load(tmp_path)
    assert again.shape == model.shape
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.to(torch.bfloat16).float())


def test_the_gradient_is_that_of_transformers_over_each_example_alone(model: TinyLlama, tokenizer: Tokenizer) -> None:
    generator = Generator(3)
    rows = [encode(tokenizer, generator.group(3)) for _ in range(5)]
    ours, plain = copy.deepcopy(model), LlamaForCausalLM(config(model.shape))
    weights = model.weights()
    plain.load_state_dict(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]})
    ours.loss(pack(rows, model.shape.heads)).backward()
    for row in rows:
        for turns, answer, weight in row.branches:
            logits = plain(torch.tensor([row.preamble + turns + answer[:-1]])).logits[0, -len(answer) :]
            losses = torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="none")
            (losses * torch.tensor(weight)).sum().backward()
    theirs = plain.model.layers
    expected = [
        (block.qkv, torch.cat([getattr(theirs[i].self_attn, f"{n}_proj").weight.grad for n in "qkv"]))
        for i, block in enumerate(ours.blocks)
    ]
    expected += [(block.down, theirs[i].mlp.down_proj.weight.grad) for i, block in enumerate(ours.blocks)]
    expected += [(ours.embed_tokens.weight, plain.model.embed_tokens.weight.grad)]
    for parameter, gradient in expected:
        assert parameter.grad is not None
        assert (parameter.grad - gradient).norm() < 1e-3 * gradient.norm()


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")  # from within the compiler
def test_compiled_kernels_give_the_loss_and_gradient_of_the_plain_ones(model: TinyLlama, tokenizer: Tokenizer) -> None:
    generator = Generator(4)
    batch = pack([encode(tokenizer, generator.group(3)) for _ in range(3)], model.shape.heads)
    plain, fused = copy.deepcopy(model), copy.deepcopy(model)
    losses = plain.loss(batch), fused.loss(batch, compiled())
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-3)
    for one, two in zip(plain.parameters(), fused.parameters(), strict=True):
        assert one.grad is not None
        assert two.grad is not None
        assert (one.grad - two.grad).norm() < 1e-3 * one.grad.norm()


def test_what_decides_weighs_more_and_what_the_grammar_forces_less(tokenizer: Tokenizer) -> None:
    example = next(e for e in iter(Generator(5).example, None) if e.kind == "call" and e.given > 0 and e.offered > 1)
    _, answer, weights = encode(tokenizer, [example]).branches[0]
    assert len(answer) == len(weights)
    assert weights[0] == CHOICE_WEIGHT  # calls, or a sentence
    assert weights[-1] == 1.0
    said: dict[float, str] = {}
    for token, weight in zip(answer[:-1], weights, strict=False):
        said[weight] = said.get(weight, "") + tokenizer.decode([token])
    assert not re.sub(r'[{}\[\]":,]|name|arguments', "", said[FORCED_WEIGHT])
    assert "arguments" in said[FORCED_WEIGHT]
    assert json.loads(example.answer)[0]["name"] in said[CHOICE_WEIGHT].replace(" ", "")
    assert re.search(r'[",}]', said[1.0])
    assert said[VALUE_WEIGHT]
    chat = next(e for e in iter(Generator(5).example, None) if e.kind == "chat")
    assert encode(tokenizer, [chat]).branches[0][2][1:] == [1.0] * (len(encode(tokenizer, [chat]).branches[0][1]) - 1)


def test_batches_hold_every_row_once_and_are_nearly_full(tokenizer: Tokenizer) -> None:
    generator = Generator(6)
    rows = [encode(tokenizer, generator.group(6)) for _ in range(120)]
    made = list(batches(iter(rows), 4096))
    assert sorted(id(row) for batch in made for row in batch) == sorted(map(id, rows))
    sizes = [sum(map(len, batch)) for batch in made]
    assert max(sizes) < 4096
    assert sum(sizes[:-3]) / len(sizes[:-3]) > 0.9 * 4096


def test_a_row_that_is_too_long_loses_branches_not_its_prefix() -> None:
    branch = (list(range(16, 46)), [20] * 10, [1.0] * 10)
    (batch,) = batches(iter([Row([17] * 100, [branch] * 5), Row([17] * 300, [branch])]), 200)
    assert batch == [Row([17] * 100, [branch] * 2)]


@pytest.mark.parametrize("shape", [Shape(2048, 128, 3, 2, 96), Shape(4096, 256, 8, 4, 96)], ids=["small", "large"])
def test_a_fresh_model_finds_what_followed_before(shape: Shape) -> None:
    torch.manual_seed(0)
    random.seed(0)
    fresh = TinyLlama(shape)
    batch = drill(shape.vocabulary, shape.heads, 1000)
    known = batch.weight > 0
    with torch.no_grad():
        logits = fresh(batch)[known]
    gold = logits.gather(1, batch.target[known][:, None])
    assert (logits > gold).float().mean() < 0.35  # chance is 0.5; nothing has been trained yet


def test_transformers_computes_the_same_logits_from_the_export(model: TinyLlama, tmp_path: Path) -> None:
    export(model, tmp_path)
    rounded = TinyLlama(model.shape)
    rounded.load_state_dict({n: t.to(torch.bfloat16).float() for n, t in model.state_dict().items()})
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.randint(16, 2000, (2, 70))
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, rounded.logits(ids), atol=1e-4, rtol=1e-4)
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == 1


def test_saved_tokenizer_loads_in_transformers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizers_of.save(tokenizer, tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = "<|user|>Book Oslo_2 for 3 nights, “naïve”<|assistant|>"
    assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text).ids
    assert theirs.eos_token_id == 1
    assert [tokenizer.token_to_id(t) for t in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
    said = theirs.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True)
    assert said == "<|user|>hi<|assistant|>"


def test_a_space_is_a_token_of_its_own(tokenizer: Tokenizer) -> None:
    inside, alone = tokenizer.encode("from Paris on").ids, tokenizer.encode("Paris").ids
    assert any(inside[i : i + len(alone)] == alone for i in range(len(inside)))
