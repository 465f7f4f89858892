"""The circuit that chooses a tool: its heads look where they should, and little is lost by putting it in."""

from pathlib import Path

import pytest
import torch

from bundled_models import choosing, tokenizer
from bundled_models.generator import Generator
from bundled_models.model import Shape, TinyLlama, load
from bundled_models.packing import encode, pack

LARGE = Path(__file__).parents[2] / "bundled_models" / "large"


def test_a_model_too_shallow_for_the_circuit_is_refused() -> None:
    model = TinyLlama(Shape(vocabulary=64, width=128, layers=3, heads=2, hidden=64))
    with pytest.raises(ValueError, match="four layers"):
        choosing.install(model, tokenizer.load(LARGE))


def test_names_and_requests_are_marked_where_they_stand() -> None:
    words = tokenizer.load(LARGE)
    generator = Generator(4, matching=1.0)
    example = next(e for _ in range(20) for e in generator.group(2) if e.kind == "call")
    marked = choosing._mark(example, words)
    named = words.decode(marked.ids[marked.in_name].tolist(), skip_special_tokens=False)
    assert named.replace(" ", "") == "".join(t["function"]["name"] for t in example.tools)
    assert words.decode(marked.ids[marked.requested].tolist()).replace(" ", "") == (
        example.messages[0]["content"].replace(" ", "")
    )
    following = marked.ids[1:][marked.before_name[:-1]]
    assert words.decode(following.tolist()).replace(" ", "") in example.answer


@pytest.mark.full
@torch.no_grad()
def test_put_in_again_it_finds_its_line_and_costs_the_model_little() -> None:
    torch.manual_seed(0)
    words, model = tokenizer.load(LARGE), load(LARGE)
    generator = Generator(9)
    batch = pack([encode(words, generator.group(2)) for _ in range(12)], model.shape.heads)
    weight = float(batch.weight.sum())
    before = float(model.loss(batch)) / weight
    choosing.install(model, words, examples=120)
    assert float(model.loss(batch)) / weight < before + 0.5
    inputs = choosing.layer_inputs(model, batch.ids[:200])
    assert len(inputs) == model.shape.layers
    assert torch.isfinite(inputs[-1]).all()
