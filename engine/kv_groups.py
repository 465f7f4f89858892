"""Layers that see equally far share block tables: how a model's layers are split into KV groups, over pages of one
size.

    windows   None  8  8  None  8  8        of layers 0 … 5
    groups    0: layers 0, 3 (all keys)     1: layers 1, 2 (the last 8)     2: layers 4, 5 (the last 8)
    a page    K and V of block_size tokens, in as many layers as the largest group has: here 2

Every group takes its pages from the same pool, so memory goes where the requests at hand need it: a group with a window
gives pages back while a request runs, and any group may have them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["NULL_BLOCK", "KVGroup", "kv_groups", "layers_per_page"]

NULL_BLOCK = -1
"""Stands in a block table where a page was behind the window and is given back; no kernel reads it."""
MAX_GROUPS = 8
"""A block table per group and request costs time in every step, padding costs memory: no more tables than this."""


@dataclass(frozen=True, slots=True)
class KVGroup:
    """Layers whose queries see `window` keys, their own included (None: all before them)."""

    window: int | None
    layers: tuple[int, ...]

    def first_kept(self, position: int) -> int:
        """The first position whose keys a query at `position` or later may read; the one before it is always kept."""
        return 0 if self.window is None else max(0, position - max(self.window, 2) + 1)


def kv_groups(windows: Sequence[int | None]) -> tuple[KVGroup, ...]:
    """Split layers into groups so that pages of one size waste least; groups without a window come first.

    Where all layers see equally far, that is one group. Otherwise the layers of each window are cut into groups of as
    many as a page holds; the last of them may fill its pages only in part.
    """
    by_window: dict[int | None, list[int]] = {}
    for layer, window in enumerate(windows):
        by_window.setdefault(window, []).append(layer)
    layers = [by_window[window] for window in sorted(by_window, key=lambda window: (window is not None, window or 0))]

    def cost(size: int) -> tuple[bool, int, int]:
        n_groups = sum(-(-len(same) // size) for same in layers)
        return n_groups > MAX_GROUPS, n_groups * size, n_groups

    size = min(range(1, max(map(len, layers)) + 1), key=cost)
    return tuple(
        KVGroup(windows[same[0]], tuple(same[first : first + size]))
        for same in layers
        for first in range(0, len(same), size)
    )


def layers_per_page(groups: Sequence[KVGroup]) -> int:
    """Layers that a page holds keys and values for."""
    return max(len(group.layers) for group in groups)
