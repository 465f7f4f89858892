"""Sums of hidden states, kept with the pages, so that a prompt's pooled state never depends on how warm the cache was.

    page 7   KV of tokens 64 … 95   |   sum over tokens 64 … 95 of the hidden state after each chosen layer
                                    |   and, as it was when token 64 came, the sum over tokens 0 … 63

A prefix hit skips the computation of its tokens but finds their sums in its last page: the pages before it may be gone,
behind the window of a model that sees no further.
"""

from collections.abc import Sequence

import numpy as np
import torch

from engine.plan import Row
from kernels import Kernels
from kernels.staging import to_device

Segment = tuple[int, int, int, bool]
"""A page, its first token in the flat batch, the number of its tokens there, and whether it begins there."""
Link = tuple[int, int]
"""A page, and the one before it or -1."""


class PooledStates:
    """Per page the float32 sums [n_state_layers, hidden] over its tokens, and over those of all pages before it, each
    added in the order of the tokens. Pages are those of the first KV group.

    Tokens that are computed and then rejected (a tail that did not match) are taken out again when their positions are
    written anew; tokens beyond a request's end are never read.
    """

    def __init__(
        self, n_blocks: int, block_size: int, n_layers: int, hidden_size: int, device: torch.device, kernels: Kernels
    ) -> None:
        self._block_size, self._kernels = block_size, kernels
        self.sums = torch.zeros(n_blocks, n_layers, hidden_size, device=device)
        self._before = torch.zeros_like(self.sums)
        # Page -> (offset of the first kept state, states [n, layers, hidden]) of tokens that may yet be rejected.
        self._unsure: dict[int, tuple[int, torch.Tensor]] = {}

    @staticmethod
    def bytes_per_block(n_layers: int, hidden_size: int) -> int:
        """Bytes kept for one page."""
        return 2 * 4 * n_layers * hidden_size

    @property
    def n_bytes(self) -> int:
        """Bytes over all pages."""
        return self.sums.nbytes + self._before.nbytes

    def add(self, rows: Sequence[Row], states: torch.Tensor) -> None:
        """Add a step's states: float32 [n, layers, hidden] in the order of rows."""
        segments, links = self._segments_and_links(rows)
        if self._unsure:
            for page, _ in links:
                self._unsure.pop(page, None)
            for row in rows:
                self._take_back(row)
        numbers = [number for group in (segments, links) for entry in group for number in entry]
        packed = to_device(np.array(numbers, dtype=np.int32), states.device)
        sums, before, n = self.sums.flatten(1), self._before.flatten(1), 4 * len(segments)
        self._kernels.add_page_sums(sums, states.flatten(1), packed[:n].view(-1, 4))
        if links:
            self._kernels.carry_page_sums(before, sums, packed[n:].view(-1, 2))
        first = 0
        for row in rows:
            if row.n_logits > 1:
                self._keep_unsure(row, states[first : first + row.n])
            first += row.n

    def pool(self, row: Row, last: torch.Tensor) -> torch.Tensor:
        """The state of a prompt that ends with this row: float32 [layers, 2, hidden], its last token and the mean over
        all.

        last: float32 [layers, hidden], the states of the row's last token.
        """
        length = row.start + row.n
        page = row.block_table[(length - 1) // self._block_size]
        return torch.stack((last, (self._before[page] + self.sums[page]) / length), dim=1)

    def copy_pages(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy sums with their pages: targets[i] becomes sources[i]."""
        read, written = (to_device(np.array(pages, dtype=np.int64), self.sums.device) for pages in (sources, targets))
        for sums in (self.sums, self._before):
            sums[written] = sums[read]
        for source, target in zip(sources, targets, strict=True):
            self._unsure.pop(target, None)
            if source in self._unsure:
                self._unsure[target] = self._unsure[source]

    def _segments_and_links(self, rows: Sequence[Row]) -> tuple[list[Segment], list[Link]]:
        """As add_page_sums and carry_page_sums take them: segments in the order of the flat batch; links of the pages
        that begin in these rows, first pages first, since a row may go on from what another row of the step computes. A
        page whose tokens may yet be rejected counts as it is: where that happens, the pages after it begin anew."""
        size, first = self._block_size, 0
        segments, begun = list[Segment](), list[tuple[int, int, int]]()
        for row in rows:
            table, left = row.block_table, row.n
            index, offset = divmod(row.start, size)
            while left:
                count = min(size - offset, left)
                segments.append((table[index], first, count, offset == 0))
                if offset == 0:
                    begun.append((index, table[index], table[index - 1] if index else -1))
                first, left, index, offset = first + count, left - count, index + 1, 0
        begun.sort()
        return segments, [(page, previous) for _, page, previous in begun]

    def _take_back(self, row: Row) -> None:
        """Subtract what was added for this row's page at positions from row.start on: those tokens were rejected."""
        page = row.block_table[row.start // self._block_size]
        first, states = self._unsure.pop(page, (0, None))
        if states is not None:
            rejected = states[max(0, row.start % self._block_size - first) :]
            self.sums[page] -= rejected.sum(0)

    def _keep_unsure(self, row: Row, states: torch.Tensor) -> None:
        """Remember the states of the row's tail, by page, until the next row of the request shows how much was
        accepted."""
        size, end = self._block_size, row.start + row.n
        at = end - row.n_logits + 1
        while at < end:
            until = min(end, (at // size + 1) * size)
            self._unsure[row.block_table[at // size]] = (at % size, states[at - row.start : until - row.start].clone())
            at = until
