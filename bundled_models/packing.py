"""Packs several sentences under one shared prefix, so that tool definitions are computed once for all of them.

    tokens:     [preamble][turns 1 + answer 1][turns 2 + answer 2] ... [next preamble] ...
    positions:   0 .. p-1  p ..               p ..                      0 ..
    looks at:    itself    preamble + itself  preamble + itself

Tokens lie flat, without padding; only attention gathers them into rectangles of like length. One block mask over the
whole row was tried first: attention took 40 % of a step, now it takes a tenth.

Each branch is exactly the single example: same positions, same visible tokens.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from bundled_models.generator import Example, Generator
from bundled_models.model import Bucket, Look, Packed

END, USER, ASSISTANT = 1, 5, 6
FIRST_PLAIN_TOKEN = 16
NOWHERE = 2**31


@dataclass(frozen=True, slots=True)
class Row:
    """A preamble's ids and its branches, each (ids of the turns, ids of the answer with `<|end|>`)."""

    preamble: list[int]
    branches: list[tuple[list[int], list[int]]]

    def __len__(self) -> int:
        return len(self.preamble) + sum(len(t) + len(a) - 1 for t, a in self.branches)


def encode(tokenizer: Tokenizer, group: Sequence[Example]) -> Row:
    """Tokens of a group of examples that share a preamble."""
    branches = [(tokenizer.encode(e.turns).ids, [*tokenizer.encode(e.answer).ids, END]) for e in group]
    return Row(tokenizer.encode(group[0].preamble).ids, branches)


@dataclass(frozen=True, slots=True)
class _Item:
    """Queries that share their keys: query `names[i]` stands at token `at[i]` and sees those of `keys` up to itself."""

    names: Sequence[int]
    at: Sequence[int]
    keys: Sequence[int]


def _padded(lines: Sequence[Sequence[int]], filling: int) -> Tensor:
    """Lists of different lengths as one rectangle."""
    table = np.full((len(lines), max(map(len, lines))), filling, dtype=np.int64)
    for index, line in enumerate(lines):
        table[index, : len(line)] = line
    return torch.from_numpy(table)


def _look(items: Sequence[_Item], count: int, sizes: int) -> tuple[list[Bucket], list[tuple[Sequence[int], int]]]:
    """`sizes` buckets of items of like length, and where each item's queries start among the outputs."""
    ordered = sorted(items, key=lambda item: len(item.at))
    share = -(-len(ordered) // sizes)
    buckets, starts = [], []
    for part in (ordered[i : i + share] for i in range(0, len(ordered), share)):
        keys, at = _padded([i.keys for i in part], NOWHERE), _padded([i.at for i in part], NOWHERE)
        query = _padded([i.names for i in part], 0)
        # padding in `at` sees the padding in `keys`, or everything: never nothing, which has no softmax
        mask = (keys[:, None, :] <= at[:, :, None])[:, None]
        buckets.append(Bucket.masked(query, keys.where(keys != NOWHERE, 0), mask))
        starts += [(item.names, count + row * query.shape[1]) for row, item in enumerate(part)]
        count += query.numel()
    return buckets, starts


def _join(groups: Sequence[tuple[Sequence[_Item], int]], queries: int) -> Look:
    buckets: list[Bucket] = []
    inverse = np.zeros(queries, dtype=np.int64)
    count = 0
    for items, sizes in groups:
        more, starts = _look(items, count, sizes)
        buckets += more
        count += sum(b.query.numel() for b in more)
        for names, start in starts:
            inverse[names[0] : names[0] + len(names)] = np.arange(start, start + len(names))
    return Look(tuple(buckets), torch.from_numpy(inverse))


def pack(rows: Sequence[Row]) -> Packed:
    """One batch; targets are in the order rows, branches, tokens."""
    ids: list[int] = []
    positions: list[int] = []
    where: list[int] = []
    target: list[int] = []
    prefixes: list[_Item] = []
    branches: list[_Item] = []
    answers: list[_Item] = []
    for row in rows:
        prefix = range(len(ids), len(ids) + len(row.preamble))
        ids += row.preamble
        positions += range(len(prefix))
        if prefix:
            prefixes.append(_Item(prefix, prefix, prefix))
        for turns, answer in row.branches:
            own = range(len(ids), len(ids) + len(turns) + len(answer) - 1)
            ids += turns + answer[:-1]
            positions += range(len(prefix), len(prefix) + len(own))
            keys = [*prefix, *own]
            branches.append(_Item(own, own, keys))
            spots = range(own.start + len(turns) - 1, own.stop)
            answers.append(_Item(range(len(where), len(where) + len(spots)), spots, keys))
            where += spots
            target += answer
    everywhere = _join([(g, n) for g, n in ((prefixes, 2), (branches, 3)) if g], len(ids))
    return Packed(
        torch.tensor(ids), torch.tensor(positions), everywhere, _join([(answers, 3)], len(where)),
        torch.tensor(where), torch.tensor(target),
    )  # fmt: skip


def batches(rows: list[Row], budget: int) -> Iterator[list[Row]]:
    """Rows of like length together, at most about `budget` places a batch."""
    batch: list[Row] = []
    for row in sorted(rows, key=len):
        if batch and (len(batch) + 1) * len(row) > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def stream(tokenizer: Tokenizer, generator: Generator, branches: int, budget: int) -> Iterator[Packed]:
    """Endless batches of generated examples."""
    while True:
        rows = [encode(tokenizer, generator.group(branches)) for _ in range(64)]
        made = list(batches(rows, budget))
        random.shuffle(made)
        for batch in made:
            yield pack(batch)


def drill(vocabulary: int, budget: int) -> Packed:
    """Random tokens in chunks, then the same chunks in another order; no target where nobody could know."""
    count, size = random.randint(2, 8), random.randint(2, 6)
    half = count * size
    chunks = torch.randint(FIRST_PLAIN_TOKEN, vocabulary, (max(1, budget // (2 * half)), count, size))
    again = torch.stack([c[torch.randperm(count)] for c in chunks])
    ids = torch.cat([chunks.flatten(1), torch.full((len(chunks), 1), USER), again.flatten(1)], 1).tolist()
    shift = random.randint(0, 300)
    rows = [Row([], [(line[: half + 1], line[half + 1 :])]) for line in ids]
    batch = pack(rows)
    target = batch.target.view(len(rows), half).clone()
    target[:, ::size] = -1
    return replace(batch, positions=batch.positions + shift, target=target.flatten())
