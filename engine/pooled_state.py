"""Sums of hidden states, kept with the pages, so that a prompt's pooled state never depends on how warm the cache was.

    page 7   KV of tokens 64 … 95   |   sum over tokens 64 … 95 of the hidden state after each chosen layer
                                    |   and, as it was when token 64 came, the sum over tokens 0 … 63

A prefix hit skips the computation of its tokens but finds their sums in its last page: the pages before it may be gone,
behind the window of a model that sees no further.

The mean over the last turn of a prompt begins with the page in which that turn does, since sums end where pages do:

    prompt   | A A A A | B B b b | b b b b | b b        the turn: b; the mean: over everything from the first B on

Of a model whose first KV group has a window the page may be gone, depending on how the prompt was cut and on what was
found in the cache. So the mean begins no earlier than the oldest page that is there however it came about: the one that
holds the first key which the last token sees.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from engine.kv_groups import KVGroup
from engine.plan import Row
from engine.step_batch import n_tail
from kernels import Kernels
from kernels.staging import to_device

Segment = tuple[int, int, int, bool]
"""A page, its first token in the flat batch, the number of its tokens there, and whether it begins there."""
Link = tuple[int, int]
"""A page, and the one before it or -1."""


class _Run(NamedTuple):
    """n tokens of a request from position `start` on, whose states lie from `first` on; table: its pages."""

    table: tuple[int, ...]
    start: int
    n: int
    first: int


class PooledStates:
    """Per page the float32 sums [n_state_layers, hidden] over its tokens, and over those of all pages before it, each
    added in the order of the tokens. Pages are those of `group`, the first KV group.

    The tokens of a tail may be rejected, so their states are kept until `settle` says which of them count; a sum from
    which they were taken out again would not be the bits of one that never saw them. Rows that are drafts themselves
    count for nothing. Tokens beyond a request's end are never read.
    """

    def __init__(
        self,
        n_blocks: int,
        block_size: int,
        n_layers: int,
        hidden_size: int,
        device: torch.device,
        kernels: Kernels,
        group: KVGroup,
    ) -> None:
        self._block_size, self._kernels, self._group = block_size, kernels, group
        self.sums = torch.zeros(n_blocks, n_layers, hidden_size, device=device)
        self._before = torch.zeros_like(self.sums)
        # By request id, of the last step's tails: the states [nodes, layers, hidden].
        self._tails: dict[str, torch.Tensor] = {}

    @staticmethod
    def bytes_per_block(n_layers: int, hidden_size: int) -> int:
        """Bytes kept for one page."""
        return 2 * 4 * n_layers * hidden_size

    @property
    def n_bytes(self) -> int:
        """Bytes over all pages."""
        return self.sums.nbytes + self._before.nbytes

    def add(self, rows: Sequence[Row], states: torch.Tensor) -> None:
        """Add a step's states, but those of tails and drafts: float32 [n, layers, hidden] in the order of rows. What
        was kept of tails that nobody has settled is dropped."""
        self._tails.clear()
        runs, first = list[_Run](), 0
        for row in rows:
            if not row.is_draft:
                known = row.n - n_tail(row)
                runs.append(_Run(row.block_table, row.start, known, first))
                if known < row.n:
                    # A copy: a graph overwrites its states, and a view would keep those of the whole step.
                    self._tails[row.request_id] = states[first + known : first + row.n].clone()
            first += row.n
        self._add(runs, states)

    def settle(self, accepted: Sequence[tuple[Row, Sequence[int]]]) -> None:
        """Add the states of accepted tokens. accepted: rows of the last step that had a tail, and which of its nodes
        were verified, ascending. Rows that are drafts are skipped.

        Raises ValueError for accepted tokens without kept states: the row was not in the last step, or is settled
        already.
        """
        runs, states, first = list[_Run](), list[torch.Tensor](), 0
        for row, nodes in accepted:
            if row.is_draft:
                continue
            kept = self._tails.pop(row.request_id, None)
            if nodes:
                if kept is None:
                    raise ValueError(f"request {row.request_id}: the last step left no tail of it to settle")
                runs.append(_Run(row.block_table, row.start + row.n - len(kept), len(nodes), first))
                is_beginning = nodes[-1] == len(nodes) - 1
                states.append(kept[: len(nodes)] if is_beginning else kept[list(nodes)])
                first += len(nodes)
        if runs:
            self._add(runs, states[0] if len(states) == 1 else torch.cat(states))

    def pool(self, row: Row, last: torch.Tensor) -> torch.Tensor:
        """The state of a prompt that ends with this row: float32 [layers, 2, hidden], its last token and the mean from
        `pooled_from` on. A tail is no part of the prompt.

        last: float32 [layers, hidden], the states of that last token.
        """
        length = row.start + row.n - n_tail(row)
        start = self.pooled_from(row.turn_start, length)
        pages = row.block_table[start // self._block_size : self._page_of(length - 1) + 1]
        if start:  # not `_before` at the end less that at the start: of a long prompt, a short turn would be noise
            found = to_device(np.array(pages, dtype=np.int64), self.sums.device)
            total = self.sums.index_select(0, found).sum(0)
        else:
            total = self._before[pages[-1]] + self.sums[pages[-1]]
        return torch.stack((last, total / (length - start)), dim=1)

    def pooled_from(self, turn_start: int, length: int) -> int:
        """From which token on the mean is taken, of a prompt of `length` tokens whose last turn begins at `turn_start`:
        the first of that turn's page, or of a later one where a window may have closed over that. A turn that begins in
        the first page makes it the mean over all, which the last page knows.

        It depends on nothing but these two numbers.
        """
        page = self._page_of(turn_start)
        if page:
            page = max(page, self._page_of(self._group.first_kept(length - 1)))
        return page * self._block_size

    def copy_pages(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy sums with their pages: targets[i] becomes sources[i]."""
        read, written = (to_device(np.array(pages, dtype=np.int64), self.sums.device) for pages in (sources, targets))
        for sums in (self.sums, self._before):
            sums[written] = sums[read]

    def _page_of(self, token: int) -> int:
        return token // self._block_size

    def _add(self, runs: Sequence[_Run], states: torch.Tensor) -> None:
        segments, links = self._segments_and_links(runs)
        if not segments:
            return
        numbers = [number for group in (segments, links) for entry in group for number in entry]
        packed = to_device(np.array(numbers, dtype=np.int32), states.device)
        sums, before, n = self.sums.flatten(1), self._before.flatten(1), 4 * len(segments)
        self._kernels.add_page_sums(sums, states.flatten(1), packed[:n].view(-1, 4))
        if links:
            self._kernels.carry_page_sums(before, sums, packed[n:].view(-1, 2))

    def _segments_and_links(self, runs: Sequence[_Run]) -> tuple[list[Segment], list[Link]]:
        """As add_page_sums and carry_page_sums take them: segments in the order of the flat batch; links of the pages
        that begin in these runs, first pages first, since a run may go on from what another one of the step
        computes."""
        size = self._block_size
        segments, begun = list[Segment](), list[tuple[int, int, int]]()
        for run in runs:
            table, left, first = run.table, run.n, run.first
            index, offset = divmod(run.start, size)
            while left:
                count = min(size - offset, left)
                segments.append((table[index], first, count, offset == 0))
                if offset == 0:
                    begun.append((index, table[index], table[index - 1] if index else -1))
                first, left, index, offset = first + count, left - count, index + 1, 0
        begun.sort()
        return segments, [(page, previous) for _, page, previous in begun]
