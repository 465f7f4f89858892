"""Section `sampling`: one token per row of logits over a vocabulary of 128k."""

from collections.abc import Callable

import torch

from benchmarks.gpu.bench import Bench, scaled
from benchmarks.gpu.stand_ins import ScatteredMatcher
from kernels.reference import unpack_mask
from kernels.sampling_batch import Sampled, SamplingBatch

__all__ = ["sampling"]

VOCAB, ROWS = 128_256, (1, 8, 32, 64, 128, 256)


def sampling(bench: Bench) -> None:
    """Every kind of draw in microseconds; beside it how long torch takes for the like, over ours."""
    for rows in bench.pick(ROWS, (2,)):
        if not bench.has_time(f"{rows} rows"):
            return
        _sample(bench, rows, bench.pick(VOCAB, 320))
        bench.free()


def _sample(bench: Bench, rows: int, vocab: int) -> None:
    sample = bench.platform.kernels(bench.dtype, False).sample
    n_buffers = bench.n_buffers(4 * rows * vocab)
    logits = bench.random(n_buffers, rows, vocab, dtype=torch.float32) * 3
    masks = _masks(bench, rows, vocab)
    allowed = unpack_mask(masks, vocab)
    for kind, batch in _batches(bench, rows, masks).items():
        seconds = bench.seconds_of(_draw(sample, logits, batch), n_buffers)
        beside = {}
        for peer, (work, is_recorded) in _peers(kind, logits, allowed).items():
            theirs = bench.seconds_of(work, n_buffers, is_recorded=is_recorded)
            beside[peer] = theirs.median / seconds.median
        of_copy = 4 * rows * vocab / seconds.median / bench.copy_bytes_per_s
        bench.add(f"{kind}, {rows} rows", scaled(seconds, 1e6), "us", **beside, of_copy=of_copy)


def _draw(
    sample: Callable[[torch.Tensor, SamplingBatch], Sampled], logits: torch.Tensor, batch: SamplingBatch
) -> Callable[[int], Sampled]:
    return lambda i: sample(logits[i], batch)


def _masks(bench: Bench, rows: int, vocab: int) -> torch.Tensor:
    masks = ScatteredMatcher.masks_over(vocab)
    return masks[torch.arange(rows) % len(masks)].contiguous().to(bench.device)


def _batches(bench: Bench, rows: int, masks: torch.Tensor) -> dict[str, SamplingBatch]:
    device = bench.device
    temperatures = torch.full((rows,), 0.8, device=device)
    keys = torch.randint(0, 2**62, (rows,), generator=torch.Generator().manual_seed(rows)).to(device)
    mask_of = torch.arange(rows, dtype=torch.int32, device=device)
    top_p = torch.full((rows,), 0.95, device=device)
    asking = torch.arange(rows, device=device)
    return {
        "greedy": SamplingBatch(torch.zeros(rows, device=device), keys),
        "free": SamplingBatch(temperatures, keys),
        "masked": SamplingBatch(temperatures, keys, masks, mask_of),
        "top_p": SamplingBatch(temperatures, keys, top_p=top_p),
        "logprobs": SamplingBatch(temperatures, keys, logprobs_of=asking, n_top=bench.pick(5, 2)),
    }


def _peers(
    kind: str, logits: torch.Tensor, allowed: torch.Tensor
) -> dict[str, tuple[Callable[[int], torch.Tensor], bool]]:
    """What torch offers for a kind of draw: the work on the i-th logits, and whether a graph can hold it."""
    banned = ~allowed

    def multinomial(i: int) -> torch.Tensor:
        return torch.multinomial((logits[i] / 0.8).softmax(-1), 1)

    def masked_multinomial(i: int) -> torch.Tensor:
        return torch.multinomial((logits[i].masked_fill(banned, float("-inf")) / 0.8).softmax(-1), 1)

    def race(i: int) -> torch.Tensor:
        """The exponential race, as gpt-fast draws."""
        shares = (logits[i] / 0.8).softmax(-1)
        return (shares / torch.empty_like(shares).exponential_()).argmax(-1)

    if kind == "greedy":
        return {"over_argmax": (lambda i: logits[i].argmax(-1), True)}
    if kind == "masked":
        return {"over_multinomial": (masked_multinomial, False)}
    if kind == "free":
        return {"over_multinomial": (multinomial, False), "over_race": (race, True)}
    return {}
