"""Packs several sentences under one shared prefix, so that tool definitions are computed once for all of them.

    tokens:     [preamble][turns 1 + answer 1][turns 2 + answer 2] ... [next preamble] ... [padding]
    positions:   0 .. p-1  p ..               p ..                      0 ..
    looks at:    itself    preamble + itself  preamble + itself

Every batch of a run has the same number of tokens, filled to some 97 %: one shape means one compiled loop and one
oneDNN primitive for each matrix product. Each branch is exactly the single example: same positions, same visible
tokens.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from bundled_models.attention import Span, look
from bundled_models.generator import Example, Generator
from bundled_models.model import Packed

END, USER, ASSISTANT = 1, 5, 6
FIRST_PLAIN_TOKEN = 16
FORCED_WEIGHT = 0.25
CHOICE_WEIGHT = 4.0  # of the name of a tool among several, and of an answer's first token: calls, or none
VALUE_WEIGHT = 2.0  # of the first token of a value
ANSWER_STEP = 256  # places for answers are rounded up to this, so that few shapes occur
PREFIX_PARTS, PARTS = (3, 1), (3, 3)  # rectangles of attention: by keys, then by queries
POOL = 32  # rows from which a batch is filled
NAME = re.compile(r'(?<=\{"name":")[^"]*')
VALUE = re.compile(r'(?<=":)"?[^"\[{]|(?<=[\[,])"?[^"\[{\]](?=[^:]*[,\]])')
JSON_ANSWER = re.compile(r"[\[{]")
FRAME = re.compile(r'[{}\[\]":,]+|(?<=\{")name(?=":)|(?<=",")arguments(?=":\{)')

Branch = tuple[list[int], list[int], list[float]]


@dataclass(frozen=True, slots=True)
class Row:
    """A preamble's ids and its branches: ids of the turns, ids of the answer with `<|end|>`, weights of the latter."""

    preamble: list[int]
    branches: list[Branch]

    def __len__(self) -> int:
        return len(self.preamble) + sum(len(t) + len(a) - 1 for t, a, _ in self.branches)


def _weights(answer: str, offsets: Sequence[tuple[int, int]], offered: int) -> list[float]:
    """A weight per token of the answer: more where much is decided, less where the grammar leaves no choice.

    A mark right behind a value or a key says that it ends there, which is a choice, so it counts in full.
    """
    if not JSON_ANSWER.match(answer):
        return [CHOICE_WEIGHT if index == 0 else 1.0 for index in range(len(offsets))]
    framed = [False] * (len(answer) + 1)
    for found in FRAME.finditer(answer):
        framed[found.start() : found.end()] = [True] * (found.end() - found.start())
    chosen = [range(*found.span()) for found in NAME.finditer(answer)] if offered > 1 else []
    starts = {found.end() - 1 for found in VALUE.finditer(answer)}
    weights = []
    for begin, end in offsets:
        if (begin == 0 and offered) or any(begin in name for name in chosen):
            weights.append(CHOICE_WEIGHT)
        elif all(framed[begin:end]) and (begin == 0 or framed[begin - 1]):
            weights.append(FORCED_WEIGHT)
        else:
            weights.append(VALUE_WEIGHT if begin in starts else 1.0)
    return weights


def encode(tokenizer: Tokenizer, group: Sequence[Example]) -> Row:
    """Tokens of a group of examples that share a preamble."""
    branches = []
    for example in group:
        answer = tokenizer.encode(example.answer)
        weights = [*_weights(example.answer, answer.offsets, example.offered), 1.0]
        branches.append((tokenizer.encode(example.turns).ids, [*answer.ids, END], weights))
    return Row(tokenizer.encode(group[0].preamble).ids, branches)


def pack(rows: Sequence[Row], heads: int, tokens: int | None = None) -> Packed:
    """One microbatch for a model with `heads`, padded to `tokens` (default: to the next multiple of 64).

    Raises ValueError if the rows and one token of padding do not fit.
    """
    ids: list[int] = []
    positions: list[int] = []
    where: list[int] = []
    target: list[int] = []
    weight: list[float] = []
    prefixes: list[Span] = []
    branches: list[Span] = []
    answers: list[Span] = []
    for row in rows:
        prefix = range(len(ids), len(ids) + len(row.preamble))
        ids += row.preamble
        positions += range(len(prefix))
        if prefix:
            prefixes.append(Span(prefix, prefix, 0, prefix.start))
        for turns, answer, weights in row.branches:
            own = range(len(ids), len(ids) + len(turns) + len(answer) - 1)
            ids += turns + answer[:-1]
            positions += range(len(prefix), len(prefix) + len(own))
            keys = [*prefix, *own]
            branches.append(Span(own, keys, len(prefix), own.start))
            spots = range(own.start + len(turns) - 1, own.stop)
            answers.append(Span(spots, keys, len(keys) - len(spots), len(where)))
            where += spots
            target += answer
            weight += weights
    count, known = len(ids), len(where)
    tokens = count + 64 - count % 64 if tokens is None else tokens
    if count >= tokens:
        raise ValueError(f"{count} tokens and one of padding in a batch of {tokens}: give it fewer rows")
    places = known + ANSWER_STEP - known % ANSWER_STEP
    everywhere = look([(g, n) for g, n in ((prefixes, PREFIX_PARTS), (branches, PARTS)) if g], heads, tokens, tokens)
    answers_see = look([(answers, PARTS)], heads, tokens, places)
    return Packed(
        ids=_filled(ids, 0, tokens),
        positions=_filled(positions, 0, tokens),
        everywhere=everywhere,
        answers=answers_see,
        where=_filled(where, tokens - 1, places),
        target=_filled(target, 0, places),
        weight=_filled(weight, 0, places).float(),
        count=count,
        known=known,
    )


def _filled(values: Sequence[float], filling: int, length: int) -> Tensor:
    array = np.full(length, filling, dtype=np.float64 if values and isinstance(values[0], float) else np.int64)
    array[: len(values)] = values
    return torch.from_numpy(array)


def _fitting(row: Row, tokens: int) -> Row:
    """The row without the last branches that do not fit into a batch; perhaps without any."""
    branches = list(row.branches)
    while branches and len(shorter := Row(row.preamble, branches)) >= tokens:
        branches.pop()
    return row if len(branches) == len(row.branches) else shorter if branches else Row([], [])


def batches(rows: Iterator[Row], tokens: int) -> Iterator[list[Row]]:
    """Rows for batches of `tokens`: in their order until one does not fit, then the largest of the next that do."""
    pool: list[Row] = []
    more = True
    while True:
        while more and len(pool) < POOL:
            row = next(rows, None)
            if row is None:
                more = False
            elif (row := _fitting(row, tokens)).branches:
                pool.append(row)
        if not pool:
            return
        batch, room = [], tokens - 1
        while pool and len(pool[0]) <= room:
            batch.append(pool.pop(0))
            room -= len(batch[-1])
        while fitting := [r for r in pool if len(r) <= room]:
            batch.append(best := max(fitting, key=len))
            pool = [r for r in pool if r is not best]
            room -= len(best)
        yield batch


def stream(tokenizer: Tokenizer, generator: Generator, branches: int, heads: int, tokens: int) -> Iterator[Packed]:
    """Endless batches of generated examples."""

    def rows() -> Iterator[Row]:
        while True:
            yield encode(tokenizer, generator.group(branches))

    for batch in batches(rows(), tokens):
        yield pack(batch, heads, tokens)


def drill(vocabulary: int, heads: int, tokens: int) -> Packed:
    """Random tokens in chunks, then the same chunks in another order; no weight where nobody could know."""
    count, size = random.randint(2, 8), random.randint(2, 6)
    half = count * size
    chunks = torch.randint(FIRST_PLAIN_TOKEN, vocabulary, (max(1, (tokens - 1) // (2 * half)), count, size))
    again = torch.stack([c[torch.randperm(count)] for c in chunks])
    ids = torch.cat([chunks.flatten(1), torch.full((len(chunks), 1), USER), again.flatten(1)], 1).tolist()
    weights = [0.0 if place % size == 0 else 1.0 for place in range(half)]
    batch = pack([Row([], [(line[: half + 1], line[half + 1 :], weights)]) for line in ids], heads, tokens)
    return replace(batch, positions=batch.positions + random.randint(0, 300))
