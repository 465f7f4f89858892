"""Draft trees in a model: a node's logits are those of its path as a chain, and what was rejected leaves nothing."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.runner import ModelRunner
from kernels.native.kernels import library_for
from tests.engine.checkpoints import build_checkpoint
from tests.engine.driver import Driver, Sequence, build_runner
from tests.engine.recorded import recorded_platform

LAYERS = (0, 2)
NATIVE = library_for(torch.float32) is not None
# Where the C kernels cannot be had, torch chooses other products for other numbers of rows.
KINDS = ["float32", "bfloat16", "windowed", "portable", "recorded"]


def tokens_of(n: int, seed: int) -> list[int]:
    return torch.randint(4, 480, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.fixture(scope="module")
def runner_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelRunner]:
    """By kind, shared by all examples: pages that an earlier example has used must not matter to a later one."""
    plain, windowed = tmp_path_factory.mktemp("qwen3"), tmp_path_factory.mktemp("gemma2")
    build_checkpoint(plain, "qwen3", num_hidden_layers=3)
    # Layers with and without a window, so that there are several KV groups; attention reads fewer keys than a tree has.
    build_checkpoint(windowed, "gemma2", sliding_window=4, num_hidden_layers=4)
    options = {"n_blocks": 4000, "block_size": 4, "state_layers": LAYERS}
    runners = {
        "float32": build_runner(plain, is_invariant=True, **options),
        "bfloat16": build_runner(plain, is_invariant=True, dtype=torch.bfloat16, **options),
        "windowed": build_runner(windowed, is_invariant=True, **options),
        "portable": build_runner(plain, platform=recorded_platform(), **options),
        "recorded": build_runner(plain, platform=recorded_platform(), keeps_hidden=True, **options),
    }
    runners["recorded"].record(max_rows=4, max_model_len=128, max_draft=15, width=2)
    return runners.__getitem__


def random_tree(n: int, draw: random.Random) -> tuple[int, ...]:
    """Parents; long branches and short ones."""
    return tuple(node - 1 if draw.random() < 0.5 else draw.randrange(-1, node) for node in range(n))


def random_path(parents: tuple[int, ...], draw: random.Random) -> tuple[int, ...]:
    """From a child of the root to any node, or none."""
    node, path = draw.randrange(-1, len(parents)), list[int]()
    while node >= 0:
        path.insert(0, node)
        node = parents[node]
    return tuple(path)


def check(found: torch.Tensor, expected: torch.Tensor, kind: str) -> None:
    """The same bits where the kind promises them."""
    if NATIVE and kind in ("float32", "bfloat16", "windowed"):
        assert torch.equal(found, expected)
    else:
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_the_logits_of_a_node_are_those_of_its_path_as_a_chain(
    runner_of: Callable[[str], ModelRunner], kind: str, seed: int
) -> None:
    """Beside other trees, chains, and plain decodes."""
    runner, draw = runner_of(kind), random.Random(seed)
    driver = Driver(runner)
    sequences = [Sequence(str(i), tokens_of(draw.randrange(2, 30), seed + i)) for i in range(draw.randrange(1, 5))]
    n_known = [draw.randrange(1, 1 + min(3, len(each.tokens))) for each in sequences]  # in the step of the tree
    prompts = [(each, len(each.tokens) - n) for each, n in zip(sequences, n_known, strict=True)]
    if any(n for _, n in prompts):
        driver.run([driver.row(each, n, 0) for each, n in prompts if n])
    shapes = [random_tree(draw.choice([0, 1, 3, 8, 13]), draw) for _ in sequences]
    tails = [tokens_of(len(shape), seed + 100 + i) for i, shape in enumerate(shapes)]
    rows = [driver.draft_row(*each) for each in zip(sequences, tails, shapes, strict=True)]
    logits = driver.run(rows).logits.clone().split([row.n_logits for row in rows])
    for sequence, shape, tail, of_row in zip(sequences, shapes, tails, logits, strict=True):
        path = random_path(shape, draw)
        alone = Sequence("alone", [*sequence.tokens, *(tail[node] for node in path)])
        chain = driver.run([driver.row(alone, len(alone.tokens), 1 + len(path))]).logits
        check(of_row[[0, *(1 + node for node in path)]], chain, kind)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_after_settling_pages_states_and_logits_are_those_of_a_request_never_drafted_for(
    runner_of: Callable[[str], ModelRunner], kind: str, seed: int
) -> None:
    runner, draw = runner_of(kind), random.Random(seed)
    driver = Driver(runner)
    sequences = [Sequence(str(i), tokens_of(draw.randrange(1, 12), seed + i)) for i in range(draw.randrange(1, 4))]
    for step in range(4):
        rows, paths = [], []
        for sequence in sequences:
            shape = random_tree(draw.choice([0, 1, 3, 8, 13]), draw)
            tail = tokens_of(len(shape), draw.randrange(10**6))
            rows.append(driver.draft_row(sequence, tail, shape if draw.random() < 0.8 or step == 0 else ()))
            paths.append(random_path(rows[-1].parents or tuple(range(-1, len(tail) - 1)), draw))
        driver.run(rows)
        drafted = [each for each in zip(sequences, rows, paths, strict=True) if each[1].n_logits > 1]
        driver.settle(*drafted)
        for sequence in sequences:
            sequence.tokens += tokens_of(draw.randrange(1, 3), draw.randrange(10**6))
    last = [driver.row(each, len(each.tokens) - each.computed, 1, wants_state=True) for each in sequences]
    output = driver.run(last)
    logits, states = output.logits.clone(), output.states
    for index, sequence in enumerate(sequences):
        clean = Sequence("clean", list(sequence.tokens))
        expected = driver.run([driver.row(clean, len(clean.tokens), 1, wants_state=True)])
        check(logits[index], expected.logits[0], kind)
        check(states[sequence.request_id], expected.states["clean"], kind)
        for found, wanted in zip(contents(runner, sequence), contents(runner, clean), strict=True):
            check(found, wanted, kind)


def contents(runner: ModelRunner, sequence: Sequence) -> list[torch.Tensor]:
    """The keys and values of a sequence in every layer [2, kv_head, token, d], and the sums of its pages."""
    cache, found = runner._cache, list[torch.Tensor]()
    for pages, group in zip(cache.layers, cache.group_of, strict=True):
        table = [sequence.blocks, *sequence.other_blocks][group]
        found.append(pages[table].permute(1, 2, 0, 3, 4).flatten(2, 3)[:, :, : len(sequence.tokens)])
    states = runner._states
    return [*found, states.sums[sequence.blocks], states._before[sequence.blocks]]


@pytest.mark.parametrize("kind", KINDS)
def test_drafts_of_a_draft_model_leave_sums_alone(runner_of: Callable[[str], ModelRunner], kind: str) -> None:
    runner = runner_of(kind)
    driver, sequence = Driver(runner), Sequence("guest", tokens_of(9, 1))
    driver.run([driver.row(sequence, 9, 1)])
    before = runner._states.sums.clone()
    sequence.tokens += [5]
    row = driver.draft_row(sequence, [6, 7, 8], (-1, 0, -1), is_draft=True)
    driver.run([row])
    driver.settle((sequence, row, (2,)))
    assert torch.equal(runner._states.sums, before)
    sequence.tokens += [9]
    clean = Sequence("clean", list(sequence.tokens))
    found = driver.run([driver.row(sequence, 1, 1)]).logits.clone()
    check(found, driver.run([driver.row(clean, len(clean.tokens), 1)]).logits, kind)


@pytest.mark.parametrize("nodes", [(1,), (0, 2), (1, 0), (2, 1), (3,), (-1,)])
def test_nodes_that_are_no_path_are_refused(runner_of: Callable[[str], ModelRunner], nodes: tuple[int, ...]) -> None:
    driver, sequence = Driver(runner_of("float32")), Sequence("r1", tokens_of(4, 1))
    row = driver.draft_row(sequence, [6, 7, 8], (-1, 0, -1))
    driver.run([row])
    with pytest.raises(ValueError, match=r"r1.*no path of its tail of 3 nodes"):
        driver.settle((sequence, row, nodes))


def test_a_tail_is_settled_once_and_before_the_next_step(runner_of: Callable[[str], ModelRunner]) -> None:
    driver, sequence = Driver(runner_of("float32")), Sequence("r1", tokens_of(4, 1))
    row = driver.draft_row(sequence, [6, 7])
    driver.run([row])
    driver.settle((sequence, row, (0,)))
    with pytest.raises(ValueError, match="r1: the last step left no tail"):
        driver.settle((sequence, row, (0,)))


def test_hidden_states_are_what_the_logits_come_from(runner_of: Callable[[str], ModelRunner], tmp_path: Path) -> None:
    build_checkpoint(tmp_path, "qwen3", num_hidden_layers=3)
    plain = build_runner(tmp_path, n_blocks=64, block_size=4, keeps_hidden=True)
    for runner in (plain, runner_of("recorded")):
        driver = Driver(runner)
        one, other = Sequence("one", tokens_of(9, 1)), Sequence("other", tokens_of(5, 2))
        assert driver.run([driver.row(one, 8, 0)]).hidden.shape == (0, 64)
        output = driver.run([driver.draft_row(one, [6, 7, 8], (-1, 0, -1)), driver.row(other, 5, 1)])
        assert output.hidden is not None
        assert output.hidden.dtype == runner.model.dtype
        torch.testing.assert_close(runner.model.logits(output.hidden, runner.kernels), output.logits)
    driver = Driver(runner_of("float32"))
    assert driver.run([driver.row(Sequence("one", [5]), 1, 1)]).hidden is None
