"""The definition of the kernels that verify drafts, in plain torch on any device, beside `reference`.

A draft is a tree; a chain is a tree without branches. The nodes of all rows lie one row after another:

    row 0      node 0   1   2   3          root - 1 - 2        starts   0  4  6
               parent  -1   0   1   0           \\ 3
    row 1      node 0   1
               parent  -1   0

starts: int [rows + 1], where each row begins. Node 0 of a row, its root, is the last committed token; the others are
drafted, parents before children. parents: int [positions], numbers within the row; tokens: int64 [positions]. A row of
no nodes is padding. Of a row with more than max_nodes nodes, those from number max_nodes on are never accepted.

Both forms return n_accepted int64 [rows], and path int64 [rows, max_nodes - 1]: the accepted nodes of each row from the
root's child on, numbers within the row, -1 behind the last.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch

from kernels.noise import as_int64, gumbel, uniform
from kernels.quantized_pages import FORMATS, block_size_of, scales_of

__all__ = ["ACCEPT_SALT", "DRAW_SALT", "accept_coupled", "accept_ratio", "move_kv"]

ACCEPT_SALT = as_int64(0x6A09E667F3BCC908)
DRAW_SALT = as_int64(0xBB67AE8584CAA73B)
"""Fractions of the square roots of 2 and 3: the streams of accept_ratio, apart from each other and from `sample`'s."""


def accept_coupled(
    tokens: torch.Tensor, parents: torch.Tensor, sampled: torch.Tensor, starts: torch.Tensor, max_nodes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The longest path on which every node's token is what the target drew at its parent: (n_accepted, path), the first
    by its last node among equals.

    sampled: int64 [positions], what the target draws after each node. The request goes on with that of the last
    accepted node, or of the root. With the same noise for draft and target the output is that of drawing one token at
    a time, at any temperature (Daliri, Musco and Suresh, 2024: drafter-invariant coupling).
    """
    n_accepted, path = _empty(starts, max_nodes)
    token_of, parent_of, sampled_of = tokens.tolist(), parents.tolist(), sampled.tolist()
    for row, first, n in _rows(starts, max_nodes):
        paths: dict[int, tuple[int, ...]] = {0: ()}
        for node in range(1, n):
            parent = parent_of[first + node]
            if parent in paths and token_of[first + node] == sampled_of[first + parent]:
                paths[node] = (*paths[parent], node)
        _note(n_accepted, path, row, max(paths.values(), key=len))
    return n_accepted, path


def accept_ratio(
    tokens: torch.Tensor,
    parents: torch.Tensor,
    target: torch.Tensor,
    draft: torch.Tensor,
    draft_of: torch.Tensor,
    keys: torch.Tensor,
    starts: torch.Tensor,
    max_nodes: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rejection sampling: (n_accepted, path, next_token int64 [rows]), together distributed as if the target had drawn
    one token at a time. For chains Leviathan et al., 2022; at a node with several children they are tried one after
    the other, multi-round speculative sampling (SpecInfer; Miao et al., 2023):

        p = target after the node
        for each child x, drawn from q:    accept and go down if u < p(x) / q(x)
                                           else p = max(p - q, 0), made to sum to 1 again
        no child accepted:                 draw the next token from p

    target: float32 [positions, vocab], the distribution after each node (temperature, filters and mask applied); may be
    overwritten. draft: float32 [m, vocab], distributions that nodes were drawn from, each given those of its siblings
    before it (drawn without replacement, a later one has their tokens taken out). draft_of: int32 [positions], a node's
    row of draft; -1: it was chosen with certainty, q is 1 at its token (n-gram drafts). keys: int64 [positions],
    noise_key(seed, number of tokens before the one that follows the node).

    The noise is counter-based, as in `noise`, in streams of their own for tests and draw; i counts the children that
    are tried at a node:

        u          = uniform(key of the node ^ ACCEPT_SALT, i)
        next       = argmax over tokens of log p + gumbel(key of the node ^ DRAW_SALT, token)

    Keys of a path differ, and a step ends with a draw at its last node, so no number is used twice and none depends on
    the batch. Where rounding leaves nothing of p although the child was not accepted, it was all of p: it is accepted
    after all. next_token is -1 where p is all zeros, and for rows that are padding.
    """
    n_accepted, path = _empty(starts, max_nodes)
    next_token = torch.full_like(n_accepted, -1)
    token_of, parent_of, draft_row_of = tokens.tolist(), parents.tolist(), draft_of.tolist()
    every_token = torch.arange(target.shape[-1], device=target.device)
    for row, first, n in _rows(starts, max_nodes):
        node, accepted, p, mass, n_tried = 0, list[int](), target[first], torch.ones((), device=target.device), 0
        for child in range(1, n):
            if parent_of[first + child] != node:
                continue
            token, draft_row = token_of[first + child], draft_row_of[first + child]
            q = draft[draft_row] if draft_row >= 0 else (every_token == token).float()
            u = uniform(keys[first + node] ^ ACCEPT_SALT, torch.full_like(keys[0], n_tried))
            is_accepted = bool(u * q[token] * mass < p[token])
            if not is_accepted:
                rest = (p / mass - q).clamp(min=0.0)
                p, mass, n_tried = rest, rest.sum(), n_tried + 1
                is_accepted = not mass
            if is_accepted:
                node, p, mass, n_tried = child, target[first + child], torch.ones_like(mass), 0
                accepted.append(child)
        _note(n_accepted, path, row, accepted)
        if p.any():
            next_token[row] = (p.log() + gumbel(keys[first + node] ^ DRAW_SALT, every_token)).argmax()
    return n_accepted, path, next_token


def move_kv(
    pages: torch.Tensor, slots: torch.Tensor, path: torch.Tensor, starts: torch.Tensor, n_accepted: torch.Tensor
) -> None:
    """Move K and V of an accepted branch to where a chain would have them, in place: those of the j-th node of a path,
    from its own slot to the slot of node 1 + j of the row.

    pages of one layer, plain or quantised; slots: int64 [positions], page * block_size + offset of each node, -1 writes
    and is read nowhere.
    """
    block_size, slot_of = block_size_of(pages), slots.tolist()
    for row, (first, count) in enumerate(zip(starts.tolist(), n_accepted.tolist(), strict=False)):
        for index, node in enumerate(path[row, :count].tolist()):
            source, target = slot_of[first + node], slot_of[first + 1 + index]
            if source == target or min(source, target) < 0:
                continue
            (page, offset), (new_page, new_offset) = divmod(source, block_size), divmod(target, block_size)
            pages[new_page, :, :, new_offset] = pages[page, :, :, offset]
            if pages.dtype in FORMATS:
                scales = scales_of(pages, block_size)
                scales[new_page, :, :, new_offset] = scales[page, :, :, offset]


def _rows(starts: torch.Tensor, max_nodes: int) -> Iterator[tuple[int, int, int]]:
    """The rows that are no padding: their number, where they begin, how many of their nodes count."""
    for row, (first, end) in enumerate(pairwise(starts.tolist())):
        if end > first:
            yield row, first, min(end - first, max_nodes)


def _empty(starts: torch.Tensor, max_nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """n_accepted and path of rows that accept nothing."""
    rows = len(starts) - 1
    n_accepted = torch.zeros(rows, dtype=torch.int64, device=starts.device)
    return n_accepted, torch.full((rows, max_nodes - 1), -1, dtype=torch.int64, device=starts.device)


def _note(n_accepted: torch.Tensor, path: torch.Tensor, row: int, nodes: Sequence[int]) -> None:
    n_accepted[row] = len(nodes)
    path[row, : len(nodes)] = torch.tensor(nodes, dtype=torch.int64)
