"""Keys and values of accepted branches, moved to where a chain would have left them.

tail         a  b  c  d       parents  -1  0  -1  2       verified: c, d
place        6  7  8  9
afterwards   c  d  .  .       a and b are gone; what lies at 8 and 9 is written anew by the next step
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.attention import KVCache
from engine.plan import Row
from engine.step_batch import n_tail
from kernels import Kernels
from kernels.staging import to_device

__all__ = ["KVMoves", "check_path"]


@dataclass(frozen=True, slots=True)
class KVMoves:
    """What kernels.move_kv takes, all int64 on the device: the nodes of each row, its root being node 0.

    slots: by KV group [nodes]. path: [rows, longest tail], -1 behind the last. starts: [rows + 1]. n_accepted: [rows].
    """

    slots: tuple[torch.Tensor, ...]
    path: torch.Tensor
    starts: torch.Tensor
    n_accepted: torch.Tensor

    @classmethod
    def of(
        cls, accepted: Sequence[tuple[Row, tuple[int, ...]]], block_size: int, device: torch.device
    ) -> "KVMoves | None":
        """accepted: rows with the nodes of their tails that were verified; None where all of them are in place."""
        moved = [(row, nodes) for row, nodes in accepted if nodes and nodes[-1] >= len(nodes)]
        if not moved:
            return None
        lengths = np.array([1 + n_tail(row) for row, _ in moved])
        path = np.full((len(moved), lengths.max() - 1), -1)
        for index, (_, nodes) in enumerate(moved):
            path[index, : len(nodes)] = nodes
            path[index, : len(nodes)] += 1
        slots = []
        for group in range(len(moved[0][0].block_tables)):
            of_rows = []
            for row, _ in moved:
                places = np.arange(row.start + row.n - 1 - n_tail(row), row.start + row.n)
                pages = np.array(row.block_tables[group])[places // block_size]
                of_rows.append(np.where(pages < 0, -1, pages * block_size + places % block_size))
            slots.append(to_device(np.concatenate(of_rows), device))
        starts = np.concatenate(([0], lengths.cumsum()))
        counts = np.array([len(nodes) for _, nodes in moved])
        return cls(tuple(slots), *(to_device(array, device) for array in (path, starts, counts)))

    def apply(self, cache: KVCache, kernels: Kernels) -> None:
        """Move them in every layer."""
        for pages, group in zip(cache.layers, cache.group_of, strict=True):
            kernels.move_kv(pages, self.slots[group], self.path, self.starts, self.n_accepted)


def check_path(row: Row, nodes: tuple[int, ...]) -> None:
    """Raise ValueError unless `nodes` lead from the token before the row's tail down one of its branches."""
    before = -1
    for node in nodes:
        parent = (row.parents[node] if row.parents else node - 1) if 0 <= node < n_tail(row) else None
        if parent != before:
            raise ValueError(
                f"request {row.request_id}: {nodes} is no path of its tail of {n_tail(row)} nodes: begin with a child "
                "of the token before the tail, and go on with a child of the node before"
            )
        before = node
