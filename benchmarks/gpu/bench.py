"""What every section is given: the platform, a stopwatch, and where figures go."""

import gc
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from benchmarks.gpu.figures import Figure
from benchmarks.gpu.stopwatch import Stopwatch
from benchmarks.timing import Spread
from engine.platform import Platform
from engine.recorder import Repeater
from kernels import Kernels

__all__ = ["Bench", "Run", "per_second", "platform_of", "scaled"]

T = TypeVar("T")
COPIED_BYTES = 2 * 2**30
"""Read, and written as often, by a measurement of the copy bandwidth."""
ROTATED_CACHES = 3
"""Buffers that take turns are together so many times as large as the second-level cache."""
MAX_BUFFERS = 256


def platform_of(*, is_toy: bool) -> Platform:
    """The first GPU; for toys without one, Triton's kernels in its interpreter over tensors of the CPU.

    Raises ValueError without a GPU otherwise.
    """
    if torch.cuda.is_available():
        return Platform.of("cuda")
    if not is_toy:
        raise ValueError("torch finds no GPU here: these are figures of a GPU (--toy runs every section without one)")
    from kernels import gpu

    def kernels(_dtype: torch.dtype, is_invariant: bool) -> Kernels:
        return gpu.build(is_invariant=is_invariant)

    return Platform(torch.device("cpu"), kernels, Repeater())


class Bench:
    """One section's run. figures: what it found so far; left_out: what it could not, or had no time to."""

    def __init__(self, platform: Platform, section: str, *, is_toy: bool, limit_s: float) -> None:
        """is_toy: sizes are tiny and figures mean nothing. limit_s: from then on, `has_time` is false."""
        self.platform, self.is_toy, self.device = platform, is_toy, platform.device
        self.dtype = torch.bfloat16 if self.is_cuda else torch.float32  # the interpreter multiplies bfloat16 wrongly
        self.stopwatch = Stopwatch(self.device)
        self.figures, self.left_out = list[Figure](), list[str]()
        self._section, self._limit_s, self._began = section, limit_s, time.perf_counter()
        self._generator = torch.Generator(self.device).manual_seed(0)
        self.copy_bytes_per_s = self.measure_copy().median

    @property
    def is_cuda(self) -> bool:
        """Whether there is a GPU."""
        return self.device.type == "cuda"

    @property
    def seconds(self) -> float:
        """Since the section began."""
        return time.perf_counter() - self._began

    def has_time(self, what: str, needs_s: float = 0.0) -> bool:
        """Whether the section may go on to `what`, which takes about needs_s seconds, and is left out otherwise."""
        if self.seconds + needs_s < self._limit_s:
            return True
        self.leave_out(f"{what}: no time left")
        return False

    def pick(self, full: T, toy: T) -> T:
        """A size: the real one, or the toy's."""
        return toy if self.is_toy else full

    def random(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Standard normal numbers on the device: equal bits would be moved and multiplied with less power."""
        return torch.empty(shape, dtype=dtype or self.dtype, device=self.device).normal_(generator=self._generator)

    def n_buffers(self, n_bytes: int) -> int:
        """How many buffers of n_bytes do not fit into the second-level cache together."""
        if not self.is_cuda or self.is_toy:
            return 2
        cache: int = torch.cuda.get_device_properties(self.device).L2_cache_size
        return min(MAX_BUFFERS, ROTATED_CACHES * cache // n_bytes + 1)

    def seconds_of(
        self, work: Callable[[int], object], n_buffers: int, *, is_recorded: bool = True
    ) -> Spread:  # fmt: skip
        """Seconds per call of work(i), i from 0 to n_buffers - 1 by turns."""
        calls = [lambda index=index: work(index) for index in range(n_buffers)]
        return self.stopwatch.seconds(calls, is_recorded=is_recorded)

    def add(self, name: str, value: Spread | Sequence[float], unit: str, **beside: float) -> None:
        """Note a figure, and tell of it."""
        spread = value if isinstance(value, Spread) else Spread.of(value)
        self.figures.append(Figure(name, spread, unit, beside))
        more = "".join(f"  {key} {number:.3g}" for key, number in beside.items())
        self.tell(f"{name}: {spread} {unit}{more}")

    def leave_out(self, what: str) -> None:
        """Note what is not measured, with the reason."""
        self.left_out.append(what)
        self.tell(f"left out: {what}")

    def tell(self, line: str) -> None:
        """A line of progress."""
        print(f"[{self.seconds:6.1f} s] {self._section}: {line}", file=sys.stderr, flush=True)

    def measure_copy(self) -> Spread:
        """Bytes read plus bytes written per second, of the faster of the driver's copy and a kernel that scales."""
        return max(self.measure_copies().values(), key=lambda spread: spread.median)

    def measure_copies(self) -> dict[str, Spread]:
        """By kind of copy."""
        n_bytes = self.pick(COPIED_BYTES, 2**20)
        source, target = (self.random(n_bytes // 4, dtype=torch.float32) for _ in range(2))
        kinds: dict[str, Callable[[], object]] = {
            "copy": lambda: target.copy_(source),
            "scale": lambda: torch.mul(source, 1.5, out=target),
        }
        return {name: per_second(2 * n_bytes, self.stopwatch.seconds([work])) for name, work in kinds.items()}

    def free(self) -> None:
        """Give back the memory that nothing holds any more."""
        gc.collect()
        if self.is_cuda:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()


def per_second(amount: float, seconds: Spread) -> Spread:
    """The rate of an amount that takes so many seconds."""
    return Spread(amount / seconds.median, amount / seconds.high, amount / seconds.low, seconds.runs)


def scaled(spread: Spread, factor: float) -> Spread:
    """In another unit."""
    return Spread(spread.median * factor, spread.low * factor, spread.high * factor, spread.runs)


Run = Callable[[Bench], None]
"""A section: measures, and adds figures."""
