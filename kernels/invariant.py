"""Attention whose results are the same bits in any batch, in plain torch: every query alone."""

from collections.abc import Sequence

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
        """Raises ValueError for ALiBi and a device that is no CPU."""
        check_plain(batch, spec, device)
        self._batch, self._n_kv_heads, self._scale, self._softcap = batch, spec.n_kv_heads, spec.scale, spec.softcap
        self._window = spec.window

    def __call__(self, q: torch.Tensor, pages: torch.Tensor, sinks: torch.Tensor | None = None) -> torch.Tensor:
        """See reference.paged_attention. Raises ValueError for sinks."""
        check_sinks(sinks)
        out, token = torch.empty_like(q), 0
        for row, (n, context) in enumerate(zip(self._batch.query_lens, self._batch.context_lens, strict=True)):
            branches = self._batch.branches(row)
            root = context - len(branches)
            for position in range(context - n, root):
                out[token] = self._attend(q[token], pages, row, position + 1)
                token += 1
            for branch in branches:
                out[token] = self._attend(q[token], pages, row, root, [root + node for node in branch])
                token += 1
        return out

    def _attend(
        self, q: torch.Tensor, pages: torch.Tensor, row: int, n_keys: int, branch: Sequence[int] = ()
    ) -> torch.Tensor:
        """One query [heads, d] over the keys that it sees: the row's first n_keys, and those at the places of a branch
        behind them."""
        block_size, table = self._batch.block_size, self._batch.block_tables[row]
        first = 0 if self._window is None else max(0, n_keys + len(branch) - self._window)
        in_pages = list(table[first // block_size : -(-n_keys // block_size)])
        # [page, 2, kv_head, token, d] -> [2, kv_head, key, d]
        gathered = pages[in_pages].permute(1, 2, 0, 3, 4).flatten(2, 3)[:, :, first % block_size :]
        gathered = gathered[:, :, : max(0, n_keys - first)]
        if branch:
            branch = branch[max(0, first - n_keys) :]
            beyond = pages[[table[place // block_size] for place in branch], :, :, [p % block_size for p in branch]]
            gathered = torch.cat((gathered, beyond.permute(1, 2, 0, 3)), 2)
        keys, values = gathered[:, :, None].float().contiguous()
        grouped: torch.Tensor = q.float().view(self._n_kv_heads, -1, 1, q.shape[-1])
        scores = (grouped * keys).sum(-1) * self._scale  # [kv_head, group, key]
        if self._softcap is not None:
            scores = self._softcap * torch.tanh(scores / self._softcap)
        weights = scores.softmax(-1)[..., None]
        out: torch.Tensor = (weights * values).sum(-2)
        return out.flatten(0, 1).to(q.dtype)
