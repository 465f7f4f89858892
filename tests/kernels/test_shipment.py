"""Shipments, on a GPU that is played: work is queued, and done when somebody waits for it or when the test says so."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from kernels import shipment
from kernels.shipment import Shipments

FIELDS = {"numbers": ((5,), torch.float32), "ids": ((2, 3), torch.int64)}


class Event:
    """Happens when the stream has done what was queued before it."""

    def __init__(self, stream: "Stream") -> None:
        self.stream, self.has_happened = stream, False

    def happen(self) -> None:
        self.has_happened = True

    def synchronize(self) -> None:
        while not self.has_happened:
            assert self.stream.advance(), "the host waits for ever"


class Stream:
    """A queue of work; waiting for an event is work, too."""

    def __init__(self) -> None:
        self.queue: list[tuple[Callable[[], None], Event | None]] = []

    def enqueue(self, work: Callable[[], None]) -> None:
        self.queue.append((work, None))

    def wait_event(self, event: Event) -> None:
        self.queue.append((lambda: None, event))

    def record_event(self) -> Event:
        event = Event(self)
        self.enqueue(event.happen)
        return event

    def advance(self) -> bool:
        """Do the next piece of work, and first what it waits for; False where there is none."""
        if not self.queue:
            return False
        work, awaited = self.queue.pop(0)
        if awaited is not None:
            awaited.synchronize()
        work()
        return True


class Gpu:
    """Two streams: the one that computes, and the one that copies."""

    def __init__(self) -> None:
        self.computing, self.copying = Stream(), Stream()
        self.current = self.computing

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def synchronize(self, _device: object = None) -> None:
        for stream in (self.copying, self.computing):
            while stream.advance():
                pass


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    played = Gpu()
    copy = torch.Tensor.copy_

    def copy_later(target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        assert non_blocking

        def work() -> None:
            copy(target, source)

        played.current.enqueue(work)
        return target

    monkeypatch.setattr(torch.cuda, "Stream", lambda _device: played.copying)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device=None: played.current)
    monkeypatch.setattr(torch.cuda, "stream", played.stream)
    monkeypatch.setattr(torch.cuda, "synchronize", played.synchronize)
    monkeypatch.setattr(torch.Tensor, "copy_", copy_later)
    monkeypatch.setattr(shipment, "pinned_bytes", lambda n: torch.zeros(n, dtype=torch.uint8))
    return played


def played_shipments(n_bytes: int = 4096) -> Shipments:
    shipments = Shipments(torch.device("cpu"))
    shipments._ring = shipment._Ring(torch.device("cpu"), n_bytes, 2)
    return shipments


def ship(shipments: Shipments, value: int) -> Any:
    made = shipments.begin(FIELDS)
    made.arrays["numbers"][:] = value
    made.arrays["ids"][:] = value
    made.send()
    return made


def test_on_a_cpu_what_was_filled_is_there() -> None:
    shipments = Shipments(torch.device("cpu"))
    first, second = ship(shipments, 1), ship(shipments, 2)
    for made, value in ((first, 1), (second, 2)):
        made.receive()
        assert made.tensors["ids"].tolist() == [[value] * 3] * 2
        assert made.tensors["numbers"].dtype == torch.float32
        made.release()


@pytest.mark.parametrize("n_bytes", [1, 4096])
def test_every_step_reads_what_was_sent_for_it(gpu: Gpu, n_bytes: int) -> None:
    """Nothing runs until somebody waits: the worst order that the streams allow. Buffers that are too small grow."""
    shipments, seen = played_shipments(n_bytes), list[np.ndarray]()
    for step in range(7):
        made = ship(shipments, step)
        made.receive()
        tensors = made.tensors
        gpu.computing.enqueue(lambda tensors=tensors: seen.append(tensors["ids"].numpy().copy()))
        made.release()
    gpu.synchronize()
    assert [int(ids[0, 0]) for ids in seen] == list(range(7))
    assert all((ids == ids[0, 0]).all() for ids in seen)


def test_the_host_waits_for_no_computation(gpu: Gpu) -> None:
    shipments = played_shipments()
    for step in range(2):
        made = ship(shipments, step)
        made.receive()
        gpu.computing.enqueue(lambda: None)
        made.release()
    assert len(gpu.computing.queue) >= 4, "preparing a step made the device compute"


@pytest.mark.usefixtures("gpu")
def test_a_shipment_whose_buffer_is_in_use_again_is_refused() -> None:
    shipments = played_shipments()
    late = ship(shipments, 1)
    ship(shipments, 2)
    ship(shipments, 3)
    with pytest.raises(RuntimeError, match="too late"):
        late.receive()
    unsent = shipments.begin(FIELDS)
    with pytest.raises(RuntimeError, match="not sent"):
        unsent.receive()
