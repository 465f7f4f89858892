"""The step loop on a GPU: masks cross in pinned memory, and nobody waits for the device but who needs its tokens."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.stand_ins import ScatteredMatcher
from engine.heartbeat import NoPulse
from engine.instance import ModelInstance
from engine.messages import Finished, Submit
from engine.platform import Platform
from engine.request import SamplingParams
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import build_core, engine_config, instance_of
from tests.gpu.machine import DEVICE, pick, platform

ROWS, TOKENS = pick((24, 40), (3, 4))
VOCAB = 512


class Remembering(ScatteredMatcher):
    """Notes what it is asked to take, so that a mask that came to the wrong row or step shows."""

    def __init__(self, masks: torch.Tensor, first: int) -> None:
        super().__init__(masks, first)
        self.refused = list[int]()

    def advance(self, token_id: int) -> bool:
        """See TokenMatcher."""
        is_allowed = super().advance(token_id)
        if not is_allowed:
            self.refused.append(token_id)
        return is_allowed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("steps")
    build_checkpoint(path, "llama", seed=4, num_hidden_layers=pick(3, 1))
    return path


def instance(folder: Path, where: Platform, depth: int) -> ModelInstance:
    config = engine_config(folder, block_size=16, n_blocks=512, max_rows=ROWS, token_budget=4096)
    return instance_of(build_core(config, platform=where, overlap_depth=depth))


def begin(model: ModelInstance, *, is_masked: bool = True, n_tokens: int = TOKENS) -> list[Remembering]:
    """ROWS requests, two of three with a mask, of all kinds of sampling."""
    masks = ScatteredMatcher.masks_over(VOCAB)
    matchers = []
    for row in range(ROWS):
        kinds = (
            {"temperature": 0.0},
            {"temperature": 0.9, "seed": row},
            {"temperature": 1.1, "seed": row, "top_p": 0.8},
        )
        params = SamplingParams(max_tokens=n_tokens, ignore_eos=True, **kinds[row % 3])  # type: ignore[arg-type]
        matcher = Remembering(masks, 7 * row) if is_masked and row % 3 < 2 else None
        matchers += [] if matcher is None else [matcher]
        prompt = [(row * 31 + at * 7) % 480 + 8 for at in range(10 + row)]
        model.submit(Submit(id=str(row), model="model", params=params, tokens=prompt), matcher)
    return matchers


def end(model: ModelInstance) -> dict[str, list[int]]:
    """The tokens of each answer."""
    found = {}
    while model.has_work:
        for event in model.step(NoPulse()):
            assert isinstance(event, Finished) or not hasattr(event, "error"), event
            if isinstance(event, Finished):
                found[event.id] = event.token_ids
    return found


def answers(folder: Path, where: Platform, depth: int) -> dict[str, list[int]]:
    model = instance(folder, where, depth)
    matchers = begin(model)
    found = end(model)
    assert len(found) == ROWS
    assert not any(matcher.refused for matcher in matchers)
    return found


@pytest.mark.parametrize(("graphs", "depth"), pick([(True, 1), (True, 0), (False, 1)], [(True, 1)]))
def test_masked_answers_are_those_of_the_cpu(folder: Path, graphs: bool, depth: int) -> None:
    expected = answers(folder, Platform.of("cpu"), 0)
    assert answers(folder, platform(graphs=graphs), depth) == expected


@contextmanager
def no_waiting() -> Iterator[None]:
    """Raises where torch waits for the GPU; events may be waited for."""
    if DEVICE.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("is_masked", [False, True])
def test_a_step_in_steady_state_waits_for_nothing_but_its_tokens(folder: Path, is_masked: bool) -> None:
    model = instance(folder, platform(), 1)
    begin(model, is_masked=is_masked, n_tokens=pick(60, 8))
    for _ in range(pick(10, 3)):
        model.step(NoPulse())
    with no_waiting():
        for _ in range(pick(30, 2)):
            model.step(NoPulse())
    assert len(end(model)) == ROWS


def test_a_step_is_launched_before_the_tokens_of_the_last_one_are_there(folder: Path) -> None:
    model = instance(folder, platform(), 1)
    begin(model, is_masked=False)
    model.step(NoPulse())
    while model.scheduler.n_waiting:
        model.step(NoPulse())
    model.step(NoPulse())
    assert model._steps.flight is not None
    end(model)
