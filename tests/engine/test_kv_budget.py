"""How a GPU's memory is divided: with a memory that only counts, and steps that are really computed."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from engine.config import CacheConfig, EngineConfig, SchedulerConfig
from engine.graphs import buckets_for
from engine.kv_budget import GRAPH_BYTES, StepNeeds, measure_step, shared_caches, split_bytes
from engine.loaded_model import LoadedModel
from engine.pair import load_engine
from engine.pair_config import InstanceOptions, PairConfig
from engine.plan import StepPlan
from engine.platform import Platform
from engine.runner import ModelRunner, RunnerOutput
from tests.engine.checkpoints import build_checkpoint
from tests.engine.recorded import recorded_platform

MIB = 2**20


@dataclass
class CountedMemory:
    """A memory of `total` bytes, of which weights take what is not free."""

    total: int
    free: int
    peak: int = 0
    works: list[Callable[[], None]] = field(default_factory=list)

    def total_bytes(self) -> int:
        return self.total

    def free_bytes(self) -> int:
        return self.free

    def peak_bytes(self, work: Callable[[], None]) -> int:
        work()
        self.works.append(work)
        return self.peak


def platform_of(memory: CountedMemory) -> Platform:
    return replace(recorded_platform(), memory=memory)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models, of which the second has twice the bytes per token."""
    root = tmp_path_factory.mktemp("budget")
    for name, layers in (("small", 2), ("large", 4)):
        build_checkpoint(root / name, num_hidden_layers=layers)
    return root / "small", root / "large"


def test_pages_get_what_weights_steps_and_graphs_leave() -> None:
    memory = CountedMemory(total=1000 * MIB, free=700 * MIB)
    needs = {"small": StepNeeds(50 * MIB, 20 * MIB), "large": StepNeeds(90 * MIB, 30 * MIB)}
    caches = {"small": CacheConfig(), "large": CacheConfig()}
    found = shared_caches(caches, {"small": 100, "large": 300}, needs, memory, 0.9)
    # Steps take turns, graphs stay: 700 - 100 - 90 - 50
    assert [found[name].kv_bytes for name in ("small", "large")] == [115 * MIB, 345 * MIB]


def test_a_cache_that_says_its_size_keeps_it_and_the_others_get_the_rest() -> None:
    memory = CountedMemory(total=1000 * MIB, free=500 * MIB)
    needs = {"small": StepNeeds(0, 0), "large": StepNeeds(0, 0)}
    for known in (CacheConfig(kv_bytes=80 * MIB), CacheConfig(block_size=16, n_blocks=5 * MIB)):
        caches = {"small": known, "large": CacheConfig(block_size=64)}
        found = shared_caches(caches, {"small": 1, "large": 1}, needs, memory, 1.0)
        assert found["small"] == known
        assert found["large"] == CacheConfig(block_size=64, kv_bytes=420 * MIB)


def test_memory_that_weights_have_filled_is_refused_with_what_is_missing() -> None:
    memory = CountedMemory(total=1000 * MIB, free=90 * MIB)
    with pytest.raises(ValueError, match=r"10 MiB are missing .* raise memory_share"):
        shared_caches({"model": CacheConfig()}, {"model": 1}, {"model": StepNeeds(0, 0)}, memory, 0.9)


def test_a_budget_is_split_so_that_all_models_hold_as_many_tokens() -> None:
    found = split_bytes({"a": CacheConfig(), "b": CacheConfig()}, {"a": 10, "b": 30}, 4000)
    assert [found[name].kv_bytes for name in ("a", "b")] == [1000, 3000]


def test_graphs_are_counted_by_their_logits() -> None:
    assert StepNeeds.of(7, [], 1000) == StepNeeds(7, 0)
    largest = 8 * 16  # forced tokens of 16 rows
    assert StepNeeds.of(7, buckets_for(16, 0), 1000) == StepNeeds(7, GRAPH_BYTES + 4 * largest * 1000)


def test_the_largest_step_is_computed_before_it_counts(folders: tuple[Path, Path]) -> None:
    memory = CountedMemory(total=1, free=1, peak=123)
    config = EngineConfig(
        folders[0], dtype="float32", device="cpu", scheduler=SchedulerConfig(token_budget=40, max_rows=3)
    )
    model = LoadedModel.load(config, platform_of(memory))
    assert measure_step(model, platform_of(memory)) == 123
    assert len(memory.works) == 1


@pytest.mark.parametrize(
    ("max_len", "max_draft", "n_tokens", "n_logits"), [(64, 0, 40, 3), (64, 4, 40, 15), (9, 20, 27, 27)]
)
def test_the_largest_step_has_all_tokens_and_all_logits(
    folders: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    max_len: int,
    max_draft: int,
    n_tokens: int,
    n_logits: int,
) -> None:
    plans, run = list[StepPlan](), ModelRunner.run

    def spy(self: ModelRunner, plan: StepPlan) -> RunnerOutput:
        plans.append(plan)
        return run(self, plan)

    monkeypatch.setattr(ModelRunner, "run", spy)
    platform = platform_of(CountedMemory(total=1, free=1))
    scheduler = SchedulerConfig(token_budget=40, max_rows=3)
    config = EngineConfig(folders[0], dtype="float32", device="cpu", max_model_len=max_len, scheduler=scheduler)
    measure_step(LoadedModel.load(config, platform), platform, max_draft)
    assert len(plans) == 2
    assert {plan.n_tokens for plan in plans} == {n_tokens}
    assert {sum(row.n_logits for row in plan.rows) for plan in plans} == {n_logits}


def test_a_pair_shares_what_is_left_of_one_memory(folders: tuple[Path, Path]) -> None:
    memory = CountedMemory(total=2048 * MIB, free=2048 * MIB, peak=4 * MIB)
    scheduler = SchedulerConfig(token_budget=32, max_rows=2)
    models = {
        name: EngineConfig(
            folder, dtype="float32", device="cpu", max_model_len=64, scheduler=scheduler, state_layers=()
        )
        for name, folder in zip(("small", "large"), folders, strict=True)
    }
    options = InstanceOptions(calibrate_s=0.0)
    loaded = load_engine(PairConfig(models, options=options, memory_share=0.7), platform=platform_of(memory))
    small, large = loaded.core.info()
    assert small.n_blocks == pytest.approx(large.n_blocks, abs=1)
    vocab = small.vocab_size
    graphs = 2 * (GRAPH_BYTES + 4 * (8 * 2) * vocab)
    expected = int(0.7 * 2048 * MIB) - 4 * MIB - graphs
    assert small.kv_bytes + large.kv_bytes == pytest.approx(expected, rel=1e-3)


def test_models_on_several_devices_are_refused(folders: tuple[Path, Path]) -> None:
    models = {"small": EngineConfig(folders[0], device="cpu"), "large": EngineConfig(folders[1], device="cuda:1")}
    with pytest.raises(ValueError, match=r"several devices, cpu, cuda:1"):
        load_engine(PairConfig(models))


def test_a_device_that_is_not_there_is_refused() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="torch finds no GPU here"):
        Platform.of("cuda")


def test_a_model_whose_steps_cannot_be_recorded_reserves_nothing_for_graphs(tmp_path: Path) -> None:
    build_checkpoint(tmp_path, "mixtral", num_hidden_layers=2)
    memory = CountedMemory(total=1024 * MIB, free=1024 * MIB, peak=4 * MIB)
    limits = SchedulerConfig(token_budget=16, max_rows=2)
    config = EngineConfig(tmp_path, dtype="float32", device="cpu", max_model_len=32, scheduler=limits, state_layers=())
    options = InstanceOptions(calibrate_s=0.0)
    loaded = load_engine(PairConfig({"model": config}, options=options, memory_share=0.5), platform=platform_of(memory))
    [info] = loaded.core.info()
    assert info.kv_bytes == pytest.approx((512 - 4) * MIB, rel=1e-2)
