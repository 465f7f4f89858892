"""The shared store: two workers are one worker with both batches, and Muon's steps are orthogonal."""

import threading
from collections.abc import Iterator

import pytest
import torch

from bundled_models.model import Packed, Shape
from bundled_models.packing import Row, pack
from bundled_models.store import Store, orthogonal
from bundled_models.team import Team
from bundled_models.trainer import Options, Worker

SHAPE = Shape(vocabulary=64, width=32, layers=3, heads=2, hidden=48)


def batch(seed: int) -> Packed:
    """Random rows whose lengths and weights differ from batch to batch."""
    draw = torch.Generator().manual_seed(seed)

    def some(count: int) -> list[int]:
        return [int(i) for i in torch.randint(0, 64, (count,), generator=draw)]

    rows = [Row(some(9), [(some(4 + i), some(3 + seed), [0.5 * (1 + seed)] * (3 + seed)) for i in range(3)])]
    return pack(rows * (1 + seed), SHAPE.heads, 256)


def train(store: Store, batches: list[list[Packed]], steps: int) -> list[float]:
    """Train `len(batches)` workers, each in a thread on its own batches over and over; returns the losses."""
    losses: list[float] = []
    team = Team(len(batches), timeout_s=60)
    options = Options(microbatch=256, tokens=256 * sum(map(len, batches)), compiled=False, workers=len(batches))

    def work(index: int) -> None:
        worker = Worker(store, team, options, index)

        def source() -> Iterator[Packed]:
            while True:
                yield from batches[index]

        given = source()
        for _ in range(steps):
            loss, _ = worker.step(given, 0.5)
            worker.wait()
            if index == 0:
                losses.append(loss)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return losses


def test_two_workers_take_the_steps_of_one_with_both_batches() -> None:
    stores = []
    for workers in (1, 2, 1):
        torch.manual_seed(5)
        stores.append(Store(SHAPE, workers, torch.float32))
    start = stores[0].values.clone()
    assert torch.equal(start, stores[1].values)
    first = train(stores[0], [[batch(0), batch(1)]], 5)
    second = train(stores[1], [[batch(0)], [batch(1)]], 5)
    assert first == pytest.approx(second, rel=1e-3)
    train(stores[2], [[batch(0)]], 5)
    moved, apart, otherwise = ((stores[0].values - x).norm() for x in (start, stores[1].values, stores[2].values))
    assert apart < 0.05 * moved  # Muon computes in bf16
    assert otherwise > 0.3 * moved
    assert first[-1] < first[0]


def test_the_state_brings_back_the_next_step() -> None:
    torch.manual_seed(5)
    store = Store(SHAPE, 1)
    train(store, [[batch(0)]], 3)
    weights = {n: t.clone() for n, t in store.master().state_dict().items()}
    state = {n: t.clone() for n, t in store.state().items()}
    train(store, [[batch(1)]], 1)
    torch.manual_seed(6)
    other = Store(SHAPE, 1)
    other.load(weights, state)
    train(other, [[batch(1)]], 1)
    torch.testing.assert_close(other.values, store.values, rtol=0, atol=0)


def test_an_orthogonal_step_has_singular_values_near_one() -> None:
    x = torch.randn(3, 40, 24, generator=torch.Generator().manual_seed(0))
    found = torch.linalg.svdvals(orthogonal(x))
    assert found.min() > 0.6
    assert found.max() < 1.3
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(orthogonal(x).flatten(), (u @ v).flatten(), dim=0) > 0.95
