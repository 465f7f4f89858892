"""From rows of logits to one token each. Every row is a function of its own inputs only, so a draw never depends on the
batch.

    bias, penalties -> bans (min_tokens, ignore_eos) -> token mask -> [log-probabilities] -> temperature, top_k, top_p,
    min_p -> draw

The mask always wins: where bans would leave none of the tokens it allows, the bans give way.

    host        prepare N                          read N
    copies           arrays N ->                       <- tokens N
    device      forward pass N ...........  draw N  forward pass N + 1 ...

What the host knows of a step is on the device by the time the logits are, and what was drawn comes back while the next
step is computed: nobody waits but `read`, for the tokens of its own step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch

from engine.logit_edits import EditList
from engine.mask_fold import fold_bans
from engine.request import SamplingParams, TokenLogprob
from engine.sampling_row import GREEDY_BELOW, SampledToken, SamplingRow
from kernels import Kernels
from kernels.noise import noise_keys
from kernels.reference import edited_and_masked
from kernels.sampling_batch import LogitEdits, Sampled, SamplingBatch
from kernels.shipment import Shipment, Shipments
from kernels.staging import Field

__all__ = ["Draws", "PreparedDraws", "Sampler", "to_host"]

T = TypeVar("T")
BYTES_PER_ROW = 128
"""Of parameters, beside its mask."""
HOTTEST = 1e30
"""A larger temperature is the same as this one, and would leave float32."""
DTYPES = {
    "temperatures": torch.float32,
    "keys": torch.int64,
    "top_k": torch.int32,
    "top_p": torch.float32,
    "min_p": torch.float32,
}
EDIT_DTYPES = {
    "rows": torch.int32,
    "tokens": torch.int32,
    "bias": torch.float32,
    "repetition": torch.float32,
    "subtract": torch.float32,
}


class Sampler:
    """Draws the tokens of one model, step by step."""

    def __init__(self, kernels: Kernels, vocab_size: int, device: torch.device, max_rows: int) -> None:
        """max_rows: draws of most steps, all of which may have masks; more are possible, at the price of a wait."""
        self.vocab_size, self.kernels = vocab_size, kernels
        self._n_words, self.device, self._max_rows = -(-vocab_size // 32), device, max_rows
        self._shipments = Shipments(device, max_rows * (BYTES_PER_ROW + 4 * self._n_words))
        self._greedy: dict[int, SamplingBatch] = {}  # by number of rows, all of which take their largest logit

    @cached_property
    def other(self) -> "Sampler":
        """A second one with room of its own for what is on its way to the device: for steps that draw in two ways."""
        return Sampler(self.kernels, self.vocab_size, self.device, self._max_rows)

    def prepare(self, rows: Sequence[SamplingRow]) -> "PreparedDraws":
        """All that can be done before there are logits; on a GPU, what the device needs begins to be copied."""
        drawn, masked, asking, edits = list[int](), list[int](), list[int](), EditList(self.vocab_size)
        for i, row in enumerate(rows):
            params = row.params
            banned = row.banned_ids if row.mask is None else ()
            if params.temperature >= GREEDY_BELOW:
                drawn.append(i)
            if row.mask is not None:
                masked.append(i)
            if params.logprobs is not None:
                asking.append(i)
            if banned or params.logit_bias or params.has_penalties:
                edits.add(i, row, banned)
        n, fields, n_edits = len(rows), dict[str, Field](), len(edits)
        columns = self._columns(rows, drawn) if drawn else {}
        for name in columns:
            fields[name] = ((n,), DTYPES[name])
        if masked:
            fields["masks"], fields["mask_of"] = ((len(masked), self._n_words), torch.int32), ((n,), torch.int32)
        if asking:
            fields["logprobs_of"] = ((len(asking),), torch.int64)
        if n_edits:
            fields |= {name: ((n_edits,), dtype) for name, dtype in EDIT_DTYPES.items()}
        batch, counts = self._all_greedy(n), dict[int, int]()
        if not fields:
            return PreparedDraws(self.kernels, rows, None, batch, masked, counts, asking)
        shipment = self._shipments.begin(fields)
        arrays = shipment.arrays
        for name, values in columns.items():
            arrays[name][:] = values
        if masked:
            counts = self._fill_masks(rows, masked, arrays)
        if asking:
            arrays["logprobs_of"][:] = asking
        if n_edits:
            edits.fill(arrays)
        shipment.send()
        n_top = min(max(rows[i].params.logprobs or 0 for i in asking), self.vocab_size) if asking else 0
        batch = _batch(shipment.tensors, batch, n_top)
        return PreparedDraws(self.kernels, rows, shipment, batch, masked, counts, asking)

    def warm_up(self) -> None:
        """Draw once with all that a row can ask for: on a GPU, kernels are compiled when they are first called."""
        mask = np.full(self._n_words, -1, dtype=np.int32)
        plain = SamplingRow(SamplingParams(temperature=0.0), seed=0, position=0, n_output=0)
        asking = SamplingParams(top_k=2, top_p=0.5, min_p=0.1, logit_bias={0: 1.0}, logprobs=1)
        for row in (plain, SamplingRow(asking, seed=0, position=0, n_output=0, mask=mask)):
            self.prepare([row]).draw(torch.zeros(1, self.vocab_size, device=self.device)).read()

    def _all_greedy(self, n: int) -> SamplingBatch:
        found = self._greedy.get(n)
        if found is None:
            with torch.inference_mode():
                zeros = torch.zeros(n, device=self.device)
                found = self._greedy[n] = SamplingBatch(zeros, zeros.long())
        return found

    def _columns(self, rows: Sequence[SamplingRow], drawn: Sequence[int]) -> dict[str, Any]:
        """Temperatures, keys, and those of top_k, top_p and min_p that a row asks for: a value per row."""
        n, vocab_size = len(rows), self.vocab_size
        keys = noise_keys([rows[i].seed for i in drawn], [rows[i].position for i in drawn])
        if len(drawn) < n:
            all_keys = np.zeros(n, dtype=np.int64)
            all_keys[drawn] = keys
            keys = all_keys
        temperatures = [0.0] * n
        columns: dict[str, Any] = {"temperatures": temperatures, "keys": keys}
        for i in drawn:
            params = rows[i].params
            temperatures[i] = min(params.temperature, HOTTEST)
            if 0 < params.top_k < vocab_size:
                columns.setdefault("top_k", [0] * n)[i] = params.top_k
            if params.top_p < 1.0:
                columns.setdefault("top_p", [1.0] * n)[i] = params.top_p
            if params.min_p > 0.0:
                columns.setdefault("min_p", [0.0] * n)[i] = params.min_p
        return columns

    def _fill_masks(
        self, rows: Sequence[SamplingRow], masked: Sequence[int], arrays: dict[str, np.ndarray]
    ) -> dict[int, int]:
        """Write the masks of rows, without what is banned; returns by row how many tokens its mask allowed, where bans
        changed it."""
        masks, masks_of, counts = arrays["masks"], [-1] * len(rows), dict[int, int]()
        np.concatenate([self._words(rows[i].mask) for i in masked], out=masks.reshape(-1))
        for at, i in enumerate(masked):
            masks_of[i] = at
            if (banned := rows[i].banned_ids) and (count := fold_bans(masks[at], banned, self.vocab_size)) is not None:
                counts[i] = count
        arrays["mask_of"][:] = masks_of
        return counts

    def _words(self, mask: np.ndarray | None) -> np.ndarray:
        """A mask as wide as the vocabulary: tokens beyond the given one are not allowed."""
        if mask is None:
            raise ValueError("the row has no mask")
        if len(mask) == self._n_words:
            return mask
        return np.pad(mask[: self._n_words], (0, max(0, self._n_words - len(mask))))


def _batch(tensors: dict[str, torch.Tensor], greedy: SamplingBatch, n_top: int) -> SamplingBatch:
    """What was shipped, under its names; what was not, as if all rows were greedy."""
    find = tensors.get
    return SamplingBatch(
        find("temperatures", greedy.temperatures),
        find("keys", greedy.keys),
        find("masks"),
        find("mask_of"),
        find("top_k"),
        find("top_p"),
        find("min_p"),
        LogitEdits(*(tensors[name] for name in EDIT_DTYPES)) if "rows" in tensors else None,
        find("logprobs_of"),
        n_top,
    )


@dataclass(slots=True)
class PreparedDraws:
    """Draws that wait for their logits. To be drawn once at most, and before two more steps are prepared; what else is
    asked of the logits, before that."""

    _kernels: Kernels
    _rows: Sequence[SamplingRow]
    _shipment: Shipment | None  # None where all that is needed is on the device already
    _batch: SamplingBatch
    _masked: Sequence[int]  # rows under a mask
    _counts: dict[int, int]  # by row: how many tokens its mask allows, where the batch has another one
    _asking: Sequence[int]  # rows that want log-probabilities

    @torch.inference_mode()
    def distribution(self, logits: torch.Tensor) -> torch.Tensor:
        """The probabilities that `draw` would have, float32 [rows, vocab] of logits [rows, vocab], which stay as they
        are. Waits for no device.

        Raises ValueError where the numbers of rows differ.
        """
        self._check(logits)
        return self._on_device(lambda: self._kernels.distribution(logits, self._batch))

    @torch.inference_mode()
    def log_probabilities(self, logits: torch.Tensor) -> tuple[torch.Tensor, int] | None:
        """Of the rows that want them, before temperature and filters: float32 [k, vocab], and of how many of the best
        tokens; None where no row does. The logits [rows, vocab] stay as they are; waits for no device.

        Raises ValueError where the numbers of rows differ.
        """
        self._check(logits)
        rows = self._batch.logprobs_of
        if rows is None:
            return None
        wanted = self._on_device(lambda: edited_and_masked(logits, self._batch)[rows].log_softmax(-1))
        return wanted, self._batch.n_top

    @torch.inference_mode()
    def draw(self, logits: torch.Tensor) -> "Draws":
        """Queue the draw of one token per row of float32 logits [rows, vocab], which may be changed in place, and the
        copy of what is drawn to the host. Waits for no device.

        Raises ValueError where the numbers of rows differ.
        """
        self._check(logits)
        sampled = self._on_device(lambda: self._kernels.sample(logits, self._batch))
        if not logits.is_cuda:
            return Draws(sampled.tokens, self, sampled, None)
        optional = (sampled.n_allowed, sampled.logprobs, sampled.top_logprobs, sampled.top_tokens)
        found = Sampled(to_host(sampled.tokens), *(None if each is None else to_host(each) for each in optional))
        return Draws(sampled.tokens, self, found, torch.cuda.current_stream(logits.device).record_event())

    def _check(self, logits: torch.Tensor) -> None:
        if len(self._rows) != logits.shape[0]:
            raise ValueError(f"{logits.shape[0]} rows of logits for {len(self._rows)} rows of parameters")

    def _on_device(self, compute: Callable[[], T]) -> T:
        """The result of what reads the batch, which is there by then."""
        if self._shipment is None:
            return compute()
        self._shipment.receive()
        result = compute()
        self._shipment.release()
        return result


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """Where the values of a GPU's tensor will be on the host, in pinned memory, once the device has come so far."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


@dataclass(slots=True)
class Draws:
    """Tokens that were drawn, and perhaps not computed yet.

    tokens: int64 [rows] on the device of the logits; any of the vocabulary where a mask allows nothing.
    """

    tokens: torch.Tensor
    _prepared: PreparedDraws
    _found: Sampled  # on the host, once the event has happened
    _copied: "torch.cuda.Event | None"

    def read(self) -> list[SampledToken]:
        """The tokens, with the log-probabilities of the rows that ask. Waits for these draws, and for nothing that was
        queued behind them."""
        if self._copied is not None:
            self._copied.synchronize()
        found, prepared = self._found, self._prepared
        tokens = found.tokens.tolist()
        logprobs = self._logprobs(tokens) if prepared._asking else {}
        if not prepared._masked or found.n_allowed is None:
            return [SampledToken(token, logprobs.get(i)) for i, token in enumerate(tokens)]
        allowed = found.n_allowed.tolist()  # the vocabulary where there is no mask
        for i, count in prepared._counts.items():
            allowed[i] = count
        return [
            SampledToken(token if count else -1, logprobs.get(i))
            for i, (token, count) in enumerate(zip(tokens, allowed, strict=True))
        ]

    def _logprobs(self, tokens: Sequence[int]) -> dict[int, TokenLogprob]:
        """By row that asks: the chosen token's log-probability before temperature and filters, and the best tokens."""
        found, prepared = self._found, self._prepared
        if found.logprobs is None or found.top_logprobs is None or found.top_tokens is None:
            return {}
        columns = zip(
            prepared._asking,
            found.logprobs.tolist(),
            found.top_logprobs.tolist(),
            found.top_tokens.tolist(),
            strict=True,
        )
        logprobs = dict[int, TokenLogprob]()
        for i, chosen, values, ids in columns:
            wanted = prepared._rows[i].params.logprobs
            top = tuple((t, v) for t, v in list(zip(ids, values, strict=True))[:wanted] if v > float("-inf"))
            logprobs[i] = TokenLogprob(tokens[i], chosen, top)
        return logprobs
