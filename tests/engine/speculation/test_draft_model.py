"""What a draft model says, against the same model that computes everything anew."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core import EngineCore
from engine.plan import Row, StepPlan
from engine.request import Request, SamplingParams
from engine.sampling_row import SamplingRow
from engine.speculation.draft_model import Asked, DraftModel
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import build_core, engine_config, instance_of

GREEDY = SamplingParams(temperature=0.0, logprobs=0)


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gemma2 has layers with a window, and so KV groups."""
    folder = tmp_path_factory.mktemp(request.param)
    build_checkpoint(folder, request.param, seed=3)
    return folder


def core_of(folder: Path, n_blocks: int, block_size: int) -> EngineCore:
    return build_core(replace(engine_config(folder, n_blocks=n_blocks, block_size=block_size), invariant=True))


def says(core: EngineCore, tokens: list[int]) -> int:
    """The greedy token after these, computed in pages that nobody else has."""
    runner = instance_of(core)._runner
    n_pages = -(-len(tokens) // runner.block_size)
    tables = [tuple(range(g * n_pages, (g + 1) * n_pages)) for g in range(len(runner.groups))]
    row = Row("r", 0, tuple(tokens), tables[0], 1, other_tables=tuple(tables[1:]))
    return int(runner.run(StepPlan(0, (row,))).logits.argmax())


def ask(model: DraftModel, requests: dict[str, Request], drafted: dict[str, list[int]]) -> None:
    """One round: every request that has caught up gets another token."""
    asked = [
        Asked(each, drafted[name], SamplingRow(GREEDY, 0, 0, 0, (), (), (), None))
        for name, each in requests.items()
        if model.has_pages(each) and (model.n_missing(each) or 0) <= 3
    ]
    for each, guess in zip(asked, model.round(asked), strict=True):
        if guess is not None:
            drafted[each.request.id].append(guess.token)


def test_every_guess_is_what_the_model_says_of_the_same_tokens(folder: Path) -> None:
    """Whatever of its guesses the target took, in rounds that others join and leave, with too few pages for all."""
    plain, seen = core_of(folder, 400, 8), list[int]()

    @settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
    @given(seed=st.integers(0, 2**16), block_size=st.sampled_from([1, 3, 8]), capacity=st.integers(100, 200))
    def law(seed: int, block_size: int, capacity: int) -> None:
        draw = random.Random(seed)
        core = core_of(folder, capacity // block_size, block_size)
        instance = instance_of(core)
        model = instance.draft_model(None, vocab_size=512, wants_distributions=False)
        shared = [draw.randrange(8, 480) for _ in range(20)]
        requests = dict[str, Request]()
        for step in range(24):
            if len(requests) < 4 and draw.random() < 0.5:
                name = f"r{step}"
                own = [draw.randrange(8, 480) for _ in range(draw.randrange(1, 9))]
                requests[name] = Request(name, shared[: draw.randrange(20)] + own)
            for each in requests.values():
                if (model.n_missing(each) or 0) > 3 or not model.has_pages(each):
                    model.catch_up(each, draw.choice([2, 7, 40]))
                instance.scheduler.check_integrity()
            drafted: dict[str, list[int]] = {name: [] for name in requests}
            for _ in range(draw.randrange(4)):
                ask(model, requests, drafted)
                instance.scheduler.check_integrity()
            for name, guesses in drafted.items():
                request = requests[name]
                for i, guess in enumerate(guesses):
                    assert guess == says(plain, [*request.tokens, *guesses[:i]])
                seen.append(len(guesses))
                request.tokens += [*guesses[: draw.randrange(1 + len(guesses))], draw.randrange(8, 480)]
            if requests and draw.random() < 0.1:
                name = draw.choice(sorted(requests))
                model.forget(name)
                del requests[name]
        for name in requests:
            model.forget(name)
        assert instance.scheduler.pool.n_used == 0

    law()
    assert sum(seen) > 100


def test_a_request_that_fills_the_window_is_not_drafted_for(folder: Path) -> None:
    model = instance_of(core_of(folder, 200, 8)).draft_model(None, vocab_size=512, wants_distributions=True)
    assert model.n_missing(Request("long", [9] * 510)) == 509
    assert model.n_missing(Request("longer", [9] * 511)) is None
    request = Request("r", [9] * 509)
    assert model.n_missing(request) == 508
    model.catch_up(request, 1000)
    row = SamplingRow(GREEDY, 0, 0, 0, (), (), (), None)
    drafted = list[int]()
    for _ in range(9):
        [guess] = model.round([Asked(request, drafted, row)])
        if guess is None:
            break
        assert guess.distribution is not None
        assert torch.argmax(guess.distribution) == guess.token
        drafted.append(guess.token)
    assert len(drafted) == 3
    model.forget("r")
