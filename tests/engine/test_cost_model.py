"""Operations and bytes against the model itself, whatever the plan, and the terms that learn seconds."""

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from engine.cost_model import CostModel, StepCost, WeightBytes
from engine.models.layers import Linear
from engine.plan import Row, StepPlan
from engine.runner import ModelRunner
from tests.engine.checkpoints import build_checkpoint
from tests.engine.driver import build_runner

BLOCK, N_BLOCKS = 8, 128
WINDOW = 20


@pytest.fixture(scope="module", params=["llama", "qwen2 with a window in some layers"])
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelRunner:
    folder = tmp_path_factory.mktemp("cost")
    if request.param == "llama":
        build_checkpoint(folder)
    else:
        windows = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
        build_checkpoint(folder, "qwen2", tie_word_embeddings=True, **windows)
    return build_runner(folder, block_size=BLOCK, n_blocks=N_BLOCKS)


def cost_model(runner: ModelRunner, **options: float) -> CostModel:
    *layers, head = (projection.n_bytes for projection in runner.model.projections)
    return CostModel(runner.config, WeightBytes(sum(layers), head), itemsize=4, block_size=BLOCK, **options)


def some_rows(draw: random.Random, n_rows: int, vocab: int, n_groups: int = 1) -> list[Row]:
    """Chunks, decodes and drafts at random places, each with pages of its own in every KV group."""
    rows, pages = [], iter(draw.sample(range(N_BLOCKS), N_BLOCKS))
    for index in range(n_rows):
        start, n = draw.randrange(0, 60), draw.choice([1, 1, 2, 17])
        first, *others = (tuple(next(pages) for _ in range(-(-(start + n) // BLOCK))) for _ in range(n_groups))
        tokens = tuple(draw.randrange(4, vocab) for _ in range(n))
        n_logits = draw.choice([0, 1, min(n, 3)])
        rows.append(Row(str(index), start, tokens, first, n_logits, other_tables=tuple(others)))
    return rows


def weights_read(runner: ModelRunner, plan: StepPlan, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes of the tensors that linears multiply with in a step."""
    read, multiply = [0], Linear.__call__

    def counted(linear: Linear, x: torch.Tensor) -> torch.Tensor:
        read[0] += sum(t.untyped_storage().nbytes() for t in (linear.weight, linear.bias) if t is not None)
        return multiply(linear, x)

    with monkeypatch.context() as patch:
        patch.setattr(Linear, "__call__", counted)
        runner.run(plan)
    return read[0]


def pages_read(runner: ModelRunner, plan: StepPlan, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many (row, layer, page) a step reads: those whose contents reach the output if they are poisoned once the
    step's own keys are written."""
    rows = [dataclasses.replace(row, n_logits=row.n) for row in plan.rows]
    ends = torch.tensor([row.n for row in rows]).cumsum(0)
    write, found = runner.kernels.rope_and_cache, 0
    for layer, group in enumerate(runner._cache.group_of):
        owner = {page: index for index, row in enumerate(rows) for page in row.block_tables[group]}
        for page in owner:
            calls = iter(range(runner.config.n_layers))

            def poisoned(*given: Any, calls: Iterator[int] = calls, layer: int = layer, page: int = page) -> Any:
                out = write(*given)
                if next(calls) == layer:
                    runner._cache.layers[layer][page] = float("nan")
                return out

            with monkeypatch.context() as patch:
                patch.setattr(runner, "kernels", dataclasses.replace(runner.kernels, rope_and_cache=poisoned))
                logits = runner.run(StepPlan(0, tuple(rows))).logits
            runner._cache.layers[layer][page] = 0.0
            first, end = int(ends[owner[page]]) - rows[owner[page]].n, int(ends[owner[page]])
            found += bool(logits[first:end].isnan().any())
            assert not logits[:first].isnan().any(), "a row read a page of another"
            assert not logits[end:].isnan().any(), "a row read a page of another"
    return found


def cells_written(runner: ModelRunner, plan: StepPlan) -> int:
    """Cached numbers that a step changes."""
    for pages in runner._cache.pages:
        pages.fill_(0.0)
    runner.run(plan)
    return sum(int(pages.count_nonzero()) for pages in runner._cache.pages)


@pytest.mark.parametrize("seed", range(2))
def test_predicted_bytes_are_those_that_a_step_moves(
    runner: ModelRunner, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, config = random.Random(seed), runner.config
    rows = some_rows(draw, draw.randrange(1, 5), config.vocab_size, len(runner.groups))
    plan = StepPlan(0, tuple(rows))
    cost = cost_model(runner).step(plan.rows)
    page_bytes = 2 * config.n_kv_heads * BLOCK * config.head_dim * 4
    embedded = sum(runner.model.embedding[list(row.tokens)].nbytes for row in plan.rows)
    counted = {
        "weight_bytes": weights_read(runner, plan, monkeypatch),
        "kv_read_bytes": pages_read(runner, plan, monkeypatch) * page_bytes,
        "kv_written_bytes": cells_written(runner, plan) * 4,
        "logits_bytes": runner.run(plan).logits.nbytes,
        "embedding_bytes": embedded,
    }
    assert {name: getattr(cost, name) for name in counted} == counted
    assert cost.bytes == sum(counted.values())


@pytest.mark.parametrize("family", ["llama", "qwen2_moe", "qwen3_moe"])
def test_operations_are_those_that_torch_counts(family: str, tmp_path: Path) -> None:
    sparse = {"mlp_only_layers": [1], "num_experts_per_tok": 2} if family == "qwen2_moe" else {}
    model = build_checkpoint(tmp_path, family, **sparse)
    model.set_attn_implementation("eager")
    if family != "llama":
        model.set_experts_implementation("eager")
    n = 24
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.arange(4, 4 + n)[None], use_cache=False)
    # The reference computes whole squares of attention, and logits for every token.
    cost = cost_model(build_runner(tmp_path, block_size=BLOCK)).step([Row("r", 0, (4,) * n, (), n)])
    square = cost.attention_flops * n * n / (n * (n + 1) // 2)
    assert cost.linear_flops + square == counter.get_total_flops()


def test_attention_is_counted_by_the_pairs_that_see_each_other(runner: ModelRunner) -> None:
    draw, config = random.Random(5), runner.config
    for _ in range(100):
        start, n = draw.randrange(60), draw.randrange(1, 40)
        seen = sum(min(query + 1, window or 10**9) for window in config.windows for query in range(start, start + n))
        cost = cost_model(runner).step([Row("r", start, (0,) * n, (), 1)])
        assert cost.attention_flops == seen * 4 * config.n_heads * config.head_dim


def test_a_row_more_costs_what_a_step_with_it_costs(runner: ModelRunner) -> None:
    draw, model = random.Random(3), cost_model(runner)
    for _ in range(50):
        rows = some_rows(draw, 4, 100)
        with_last = model.with_row(model.step(rows[:3]), rows[3].start, rows[3].n, rows[3].n_logits)
        assert with_last == model.step(rows)


def test_seconds_follow_the_terms_that_steps_are_made_of(runner: ModelRunner) -> None:
    def truth(cost: StepCost) -> float:
        return 0.004 + cost.linear_flops * 3e-10 + cost.kv_read_bytes * 2e-9 + cost.n_rows * 1e-4

    model, draw = cost_model(runner, half_life_steps=200), random.Random(0)
    for _ in range(1000):
        cost = model.step(some_rows(draw, draw.randrange(1, 4), 100))
        model.observe(cost, truth(cost))
    for _ in range(50):
        cost = model.step(some_rows(draw, draw.randrange(1, 4), 100))
        assert model.seconds(cost) == pytest.approx(truth(cost), rel=0.05)


def test_predictions_are_never_negative_and_grow_with_the_work(runner: ModelRunner) -> None:
    model = cost_model(runner)
    short, long = (model.step([Row("r", 0, (0,) * n, (), 1)]) for n in (1, 500))
    for _ in range(100):
        model.observe(short, 1.0)
        model.observe(long, 1e-6)
    assert 0 <= model.seconds(short) <= model.seconds(long)
