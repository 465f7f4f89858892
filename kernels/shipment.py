"""Arrays of a step, of any sizes, sent to the device in one copy beside what it computes."""

from collections.abc import Mapping

import numpy as np
import torch

from kernels.staging import ALIGNMENT, Field

__all__ = ["Shipment", "Shipments"]

NUMPY_TYPES = {torch.float32: np.float32, torch.int32: np.int32, torch.int64: np.int64}


class Shipment:
    """Named arrays on their way to the device: fill `arrays`, `send`, and once they are needed `receive`.

    arrays: by name, to be filled; what they hold at first is anything. tensors: by name, on the device.
    """

    def __init__(self, arrays: dict[str, np.ndarray], tensors: dict[str, torch.Tensor]) -> None:
        self.arrays, self.tensors = arrays, tensors

    def send(self) -> None:
        """Start to copy what was filled."""

    def receive(self) -> None:
        """Work queued on the current stream from now on sees what was sent."""

    def release(self) -> None:
        """Work queued on the current stream from now on does not read the tensors: their place may be written."""


class Shipments:
    """Makes shipments to one device. On a CPU the tensors are the arrays, and nothing is copied. On a GPU:

        pinned buffer 0 | 1 | 2   --side stream-->   device buffer 0 | 1 | 2

    Buffers take turns. A pinned one is filled again once its copy has ended (the host waits for that), a device one
    once the work that reads it has (the side stream waits, the host does not). Each copy is as long as what is sent.
    """

    def __init__(self, device: torch.device, n_bytes: int = 0, n_buffers: int = 3) -> None:
        """n_bytes: what most shipments fit in; a larger one makes its buffers grow, which waits for the device."""
        self._ring = _Ring(device, n_bytes, n_buffers) if device.type == "cuda" else None

    def begin(self, fields: Mapping[str, Field]) -> Shipment:
        """A shipment of arrays with these shapes and dtypes (float32, int32 or int64), by name. It must be released, if
        ever received, before as many others have begun as there are buffers."""
        if self._ring is not None:
            return self._ring.begin(fields)
        arrays = {name: np.empty(shape, NUMPY_TYPES[dtype]) for name, (shape, dtype) in fields.items()}
        return Shipment(arrays, {name: torch.from_numpy(array) for name, array in arrays.items()})


def pinned_bytes(n_bytes: int) -> torch.Tensor:
    """Host memory that a GPU reads by itself, uint8."""
    return torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True)


class _Buffer:
    """A pair of host and device memory, and what still goes on with it."""

    def __init__(self, device: torch.device, n_bytes: int) -> None:
        self.device = torch.empty(n_bytes, dtype=torch.uint8, device=device)
        self.host = pinned_bytes(n_bytes)
        # The memory may have been another tensor's, which queued work still reads.
        self.read = torch.cuda.current_stream(device).record_event()
        self.copied: torch.cuda.Event | None = None
        self.shipment: _DeviceShipment | None = None


class _Ring:
    """The buffers of a GPU."""

    def __init__(self, device: torch.device, n_bytes: int, n_buffers: int) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._buffers = [_Buffer(device, max(n_bytes, ALIGNMENT)) for _ in range(n_buffers)]
        self._turn = 0

    def begin(self, fields: Mapping[str, Field]) -> "_DeviceShipment":
        places, size = dict[str, tuple[int, int]](), 0
        for name, (shape, dtype) in fields.items():
            n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            places[name] = (size, n_bytes)
            size += -(-n_bytes // ALIGNMENT) * ALIGNMENT
        buffer = self._buffers[self._turn]
        if buffer.copied is not None:
            buffer.copied.synchronize()
        if size > len(buffer.host):
            torch.cuda.synchronize(self._device)  # the old memory goes back to an allocator that knows one stream only
            buffer = self._buffers[self._turn] = _Buffer(self._device, 2 * size)
        self._turn = (self._turn + 1) % len(self._buffers)

        def views(memory: torch.Tensor) -> dict[str, torch.Tensor]:
            return {
                name: memory[first : first + n_bytes].view(fields[name][1]).view(*fields[name][0])
                for name, (first, n_bytes) in places.items()
            }

        arrays = {name: view.numpy() for name, view in views(buffer.host).items()}
        buffer.shipment = _DeviceShipment(arrays, views(buffer.device), buffer, self._stream, size)
        return buffer.shipment


class _DeviceShipment(Shipment):
    """A shipment by way of a ring's buffer."""

    def __init__(
        self,
        arrays: dict[str, np.ndarray],
        tensors: dict[str, torch.Tensor],
        buffer: _Buffer,
        stream: torch.cuda.Stream,
        n_bytes: int,
    ) -> None:
        super().__init__(arrays, tensors)
        self._buffer, self._stream, self._n_bytes = buffer, stream, n_bytes
        self._copied: torch.cuda.Event | None = None

    def send(self) -> None:
        """See Shipment."""
        buffer = self._buffer
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(buffer.read)
            buffer.device[: self._n_bytes].copy_(buffer.host[: self._n_bytes], non_blocking=True)
            self._copied = buffer.copied = self._stream.record_event()

    def receive(self) -> None:
        """See Shipment. Raises RuntimeError where the buffer went to another shipment meanwhile."""
        if self._buffer.shipment is not self or self._copied is None:
            raise RuntimeError("a shipment is received that was not sent, or too late: its buffer is in use again")
        torch.cuda.current_stream(self._buffer.device.device).wait_event(self._copied)

    def release(self) -> None:
        """See Shipment."""
        self._buffer.read = torch.cuda.current_stream(self._buffer.device.device).record_event()
