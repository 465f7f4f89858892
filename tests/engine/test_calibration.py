"""Measuring a model's first steps: quick, and without a trace."""

import copy
import time
from pathlib import Path

import pytest
import torch

from engine.calibration import calibrate, warm_up
from engine.cost_model import CostModel, StepCost, WeightBytes
from engine.plan import Row, StepPlan
from engine.runner import ModelRunner, RunnerOutput
from tests.engine.checkpoints import build_checkpoint
from tests.engine.driver import build_runner


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibration")
    build_checkpoint(folder)
    return folder


def cost_model(runner: ModelRunner) -> CostModel:
    *layers, head = (projection.n_bytes for projection in runner.model.projections)
    return CostModel(runner.config, WeightBytes(sum(layers), head), itemsize=4, block_size=runner.block_size)


def contents(runner: ModelRunner) -> list[torch.Tensor]:
    return [*runner._cache.layers, runner._states.sums]


@pytest.mark.parametrize("n_blocks", [2, 40, 200])
def test_it_leaves_the_pages_as_they_were(folder: Path, n_blocks: int) -> None:
    runner = build_runner(folder, n_blocks=n_blocks, state_layers=(1,))
    before = [copy.deepcopy(tensor) for tensor in contents(runner)]
    warm_up(runner)
    assert calibrate(runner, cost_model(runner), 1.0) > 0
    assert all(torch.equal(now, then) for now, then in zip(contents(runner), before, strict=True))
    assert not runner._states._tails


def test_warming_up_computes_chunks_of_all_sizes_beside_a_long_context(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, sizes = build_runner(folder, block_size=8, n_blocks=12), list[int]()
    run = runner.run

    def spy(plan: StepPlan, drawn: torch.Tensor | None) -> RunnerOutput:
        chunk, long = plan.rows
        sizes.append(chunk.n)
        assert long.start >= 1000
        assert any(token < 0 for token in long.tokens) == (drawn is not None)
        return run(plan, drawn)

    monkeypatch.setattr(runner, "run", spy)
    warm_up(runner)
    assert sizes == [1, 2, 4, 8, 16, 32, 64]  # 128 tokens have no room


class Machine:
    """A runner whose steps take as long as a formula says, on a clock that only they move."""

    def __init__(self, runner: ModelRunner, monkeypatch: pytest.MonkeyPatch, seconds_per_flop: float) -> None:
        self.now, self.n_steps = 0.0, 0
        truth, run = cost_model(runner), runner.run
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

        def timed(plan: StepPlan) -> RunnerOutput:
            self.n_steps += 1
            self.now += self.seconds(truth.step(plan.rows), seconds_per_flop)
            return run(plan)

        monkeypatch.setattr(runner, "run", timed)

    @staticmethod
    def seconds(cost: StepCost, seconds_per_flop: float) -> float:
        return 1e-4 + 2e5 * seconds_per_flop + cost.flops * seconds_per_flop + cost.n_rows * 1e-5


@pytest.mark.parametrize("seconds_per_flop", [1e-12, 1e-10, 1e-8, 1e-7, 1e-6])
def test_it_keeps_to_its_time_on_machines_of_any_speed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, seconds_per_flop: float
) -> None:
    runner = build_runner(folder, n_blocks=200)
    model, machine = cost_model(runner), Machine(runner, monkeypatch, seconds_per_flop)
    n = calibrate(runner, model, 1.5)
    assert n > 0
    assert machine.now < 2.0
    assert machine.n_steps <= 3 * n


@pytest.mark.parametrize("seconds_per_flop", [1e-12, 1e-10, 1e-8])
def test_steps_that_it_did_not_run_are_predicted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, seconds_per_flop: float
) -> None:
    runner = build_runner(folder, n_blocks=200)
    model = cost_model(runner)
    Machine(runner, monkeypatch, seconds_per_flop)
    calibrate(runner, model, 1.5)
    for rows in ([(99, 1)] * 2, [(199, 1)] * 8, [(0, 33)], [(300, 100)], [(150, 1)] * 8 + [(64, 16)]):
        cost = model.step([Row("r", start, (0,) * length, (), 1) for start, length in rows])
        assert model.seconds(cost) == pytest.approx(Machine.seconds(cost, seconds_per_flop), rel=0.1)


def test_a_limit_of_zero_runs_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = build_runner(folder)
    machine = Machine(runner, monkeypatch, 1e-10)
    assert calibrate(runner, cost_model(runner), 0.0) == 0
    assert machine.n_steps == 0
