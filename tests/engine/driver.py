"""Drives a ModelRunner by hand, without a scheduler: block tables are lists, every request says how it wants to be
cut."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from engine.config import CacheConfig
from engine.models.loading import load_decoder
from engine.plan import Row, StepPlan
from engine.platform import Platform
from engine.quantization import converter
from engine.runner import ModelRunner, RunnerOutput

CPU = torch.device("cpu")


def build_runner(
    folder: Path,
    *,
    block_size: int = 8,
    n_blocks: int = 128,
    state_layers: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float32,
    is_invariant: bool = False,
    platform: Platform | None = None,
    keeps_hidden: bool = False,
) -> ModelRunner:
    """A runner of the checkpoint in `folder` on the CPU; unless it is to be invariant, in torch alone."""
    form = [converter("none", dtype, CPU, is_invariant=True)] if is_invariant else []
    decoder = load_decoder(folder, dtype, CPU, *form)
    cache = CacheConfig(block_size=block_size, n_blocks=n_blocks)
    return ModelRunner(
        decoder.config,
        decoder,
        cache,
        state_layers,
        is_invariant=is_invariant,
        platform=platform,
        keeps_hidden=keeps_hidden,
    )


@dataclass
class Sequence:
    """One request: its tokens, the blocks that hold them in the first KV group and in the others, how many are
    computed."""

    request_id: str
    tokens: list[int]
    blocks: list[int] = field(default_factory=list)
    computed: int = 0
    other_blocks: list[list[int]] = field(default_factory=list)


class Driver:
    """Blocks are handed out in a scrambled order, so that nothing can rely on neighbouring pages."""

    def __init__(self, runner: ModelRunner) -> None:
        self.runner = runner
        shuffled = torch.randperm(runner.n_blocks, generator=torch.Generator().manual_seed(1)).tolist()
        self._free = iter(shuffled)
        self._steps = itertools.count()

    def row(self, sequence: Sequence, n: int, n_logits: int, *, wants_state: bool = False, turn_start: int = 0) -> Row:
        """The next n tokens of a sequence as a row, with the blocks it needs."""
        end = sequence.computed + n
        sequence.other_blocks = sequence.other_blocks or [[] for _ in self.runner.groups[1:]]
        for blocks in (sequence.blocks, *sequence.other_blocks):
            while len(blocks) * self.runner.block_size < end:
                blocks.append(next(self._free))
        tokens = tuple(sequence.tokens[sequence.computed : end])
        table, *others = map(tuple, (sequence.blocks, *sequence.other_blocks))
        row = Row(
            sequence.request_id,
            sequence.computed,
            tokens,
            table,
            n_logits,
            wants_state,
            tuple(others),
            turn_start=turn_start,
        )
        sequence.computed = end
        return row

    def draft_row(
        self, sequence: Sequence, tail: Iterable[int], parents: tuple[int, ...] = (), *, is_draft: bool = False
    ) -> Row:
        """What is not computed of a sequence with a tail behind it, a chain without parents; see `settle`."""
        tail = list(tail)
        n_known = len(sequence.tokens)
        sequence.tokens += tail
        row = self.row(sequence, len(sequence.tokens) - sequence.computed, 1 + len(tail))
        del sequence.tokens[n_known:]
        sequence.computed = n_known
        return replace(row, parents=parents, is_draft=is_draft)

    def settle(self, *accepted: tuple[Sequence, Row, tuple[int, ...]]) -> None:
        """Keep these nodes of the rows' tails, from the root's child on."""
        self.runner.settle([(row, nodes) for _, row, nodes in accepted])
        for sequence, row, nodes in accepted:
            tail = row.tokens[row.n - row.n_logits + 1 :]
            sequence.tokens += [tail[node] for node in nodes]
            sequence.computed += len(nodes)
            for blocks in (sequence.blocks, *sequence.other_blocks):
                del blocks[-(-sequence.computed // self.runner.block_size) :]

    def run(self, rows: Iterable[Row]) -> RunnerOutput:
        """One step."""
        return self.runner.run(StepPlan(next(self._steps), tuple(rows)))

    def greedy(self, prompts: list[list[int]], n_new: int, chunk: int = 1_000_000) -> list[list[int]]:
        """Greedy tokens of all prompts, batched; prompts are computed in chunks, and start to decode as each is
        done."""
        sequences = [Sequence(str(i), list(prompt)) for i, prompt in enumerate(prompts)]
        wanted = [len(prompt) + n_new for prompt in prompts]
        while running := [s for s, end in zip(sequences, wanted, strict=True) if len(s.tokens) < end]:
            sampled, rows = [], []
            for sequence in running:
                n = min(chunk, len(sequence.tokens) - sequence.computed)
                is_last = sequence.computed + n == len(sequence.tokens)
                rows.append(self.row(sequence, n, int(is_last)))
                sampled += [sequence] if is_last else []
            logits = self.run(rows).logits
            for sequence, token in zip(sampled, logits.argmax(-1).tolist(), strict=True):
                sequence.tokens.append(token)
        return [s.tokens[len(p) :] for s, p in zip(sequences, prompts, strict=True)]
