"""Attention whose results are the same bits in any batch, in plain torch: every query alone."""

import torch

from kernels.batch import RaggedBatch
from kernels.cpu import check_plain, check_sinks
from kernels.kernel_set import AttentionSpec

__all__ = ["InvariantAttention"]


class InvariantAttention:
    """The portable form of the C kernel's promise. What is computed for a query has shapes that follow from its
    position alone, so torch takes the same path to the same bits however the step came about. Slow: meant for machines
    where the C kernels cannot be had.
    """

    def __init__(self, batch: RaggedBatch, spec: AttentionSpec, device: torch.device) -> None:
        """Raises ValueError for trees, ALiBi and a device that is no CPU."""
        check_plain(batch, spec, device)
        self._batch, self._n_kv_heads, self._scale, self._softcap = batch, spec.n_kv_heads, spec.scale, spec.softcap
        self._window = spec.window

    def __call__(self, q: torch.Tensor, pages: torch.Tensor, sinks: torch.Tensor | None = None) -> torch.Tensor:
        """See reference.paged_attention. Raises ValueError for sinks."""
        check_sinks(sinks)
        out, token = torch.empty_like(q), 0
        for row, (n, context) in enumerate(zip(self._batch.query_lens, self._batch.context_lens, strict=True)):
            for position in range(context - n, context):
                out[token] = self._attend(q[token], pages, row, position)
                token += 1
        return out

    def _attend(self, q: torch.Tensor, pages: torch.Tensor, row: int, position: int) -> torch.Tensor:
        """One query [heads, d] over the keys that it sees."""
        window = self._window
        block_size = self._batch.block_size
        first = 0 if window is None else max(0, position - window + 1)
        table = list(self._batch.block_tables[row][first // block_size : position // block_size + 1])
        # [page, 2, kv_head, token, d] -> [2, kv_head, 1, key, d]
        gathered = pages[table].permute(1, 2, 0, 3, 4).flatten(2, 3).float()
        keys, values = gathered[:, :, None, first % block_size :][:, :, :, : position + 1 - first].contiguous()
        grouped: torch.Tensor = q.float().view(self._n_kv_heads, -1, 1, q.shape[-1])
        scores = (grouped * keys).sum(-1) * self._scale  # [kv_head, group, key]
        if self._softcap is not None:
            scores = self._softcap * torch.tanh(scores / self._softcap)
        weights = scores.softmax(-1)[..., None]
        out: torch.Tensor = (weights * values).sum(-2)
        return out.flatten(0, 1).to(q.dtype)
