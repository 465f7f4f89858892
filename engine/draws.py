"""Which rows of logits are sampled in a step, under which masks, and what the draws mean for their requests.

    request     tail        logits rows     draws              accepted
    plain       -           x               5                  5
    drafted     7 8 9       x x x x         7 8 4 1            7 8 4      the draft was right twice; 4 corrects it
    chunk       -           none
    prepared    -           x               none: the logits are kept until the request goes on

A draft is verified by drawing at each of its positions with the noise that sampling one token at a time would have used
there, and comparing. So the output is the same with and without drafts, at any temperature (the coupled form; Daliri,
Musco and Suresh, 2024, "drafter-invariant").
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.generation import Generation
from engine.guarded_matcher import GrammarFault
from engine.plan import Row, StepPlan
from engine.request import Request
from engine.sampler import Draws, PreparedDraws, Sampler
from engine.sampling_row import SampledToken, SamplingRow
from kernels.staging import to_device

__all__ = ["StepDraws"]


@dataclass(slots=True)
class _Source:
    """Where a request's logits come from: rows of a step's from `first` on, or those that were kept for it."""

    request: Request
    generation: Generation | None
    row: Row | None
    first: int = 0
    kept: torch.Tensor | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether something is still drawn from them. While its step was under way, a request may have ended, or have
        gone on with tokens that its grammar forced."""
        if self.generation is None or self.generation.reason is not None:
            return False
        known = len(self.request.tokens) + len(self.request.tail)
        return self.row is None or self.row.start + self.row.n == known


@dataclass(slots=True)
class _Span:
    """The draws of one request: `count` from number `first` of the step's on."""

    generation: Generation
    first: int
    count: int


class StepDraws:
    """The draws of one step, in the order in which they can be made: `fill_masks` once the step before is committed,
    which may be beside the forward pass; `draw` once there are logits; `read` and `accept` once the tokens are needed.

    prepared: rows whose logits are to be kept, with those. faults: by request id, what their grammar's backend raised.
    """

    def __init__(
        self,
        plan: StepPlan,
        requests: Mapping[str, Request],
        generations: Mapping[str, Generation],
        kept: MutableMapping[str, torch.Tensor],
        sampler: Sampler,
    ) -> None:
        """kept: by request id, the logits [vocab] of prepared requests; those of resumed ones are taken out."""
        self.prepared: list[tuple[Row, torch.Tensor]] = []
        self.faults: dict[str, GrammarFault] = {}
        self._sources: list[_Source] = []
        self._n_logits = 0
        for row in plan.rows:
            if row.n_logits:
                request, generation = requests[row.request_id], generations.get(row.request_id)
                self._sources.append(_Source(request, generation, row, self._n_logits))
                self._n_logits += row.n_logits
        for request_id in plan.resumed:
            source = _Source(requests[request_id], generations[request_id], None, kept=kept.pop(request_id))
            self._sources.append(source)
        self._spans: list[_Span] = []
        self._rows: list[SamplingRow] = []
        self._sampler = sampler
        self._prepared: PreparedDraws | None = None
        self._picked: list[int] = []  # by draw: its row of the step's logits, with the kept ones behind them
        self._kept: list[torch.Tensor] = []
        self._draws: Draws | None = None
        self._drawn: list[SampledToken] = []

    @property
    def generations(self) -> list[Generation]:
        """Requests that draw in this step."""
        return [span.generation for span in self._spans]

    @property
    def tokens(self) -> torch.Tensor | None:
        """What was drawn, int64 [n_draws], perhaps not computed yet; None where nothing was."""
        return None if self._draws is None else self._draws.tokens

    def awaited(self) -> dict[str, int]:
        """By request id, which draw is the next token of those that go on after it. Not for drafts."""
        return {span.generation.request.id: span.first for span in self._spans if span.generation.n_left > 1}

    def fill_masks(self) -> None:
        """Find what is drawn, and under which masks; what the device needs for that is on its way to it then."""
        for source in self._sources:
            generation = source.generation
            if generation is None or not source.is_wanted:
                continue
            tail = generation.request.tail
            try:
                masks = _masks(generation, tail)
            except GrammarFault as fault:
                self.faults[generation.request.id] = fault
                continue
            count = len(masks)
            self._spans.append(_Span(generation, len(self._rows), count))
            self._rows += [generation.sampling_row(tail[:index], mask) for index, mask in enumerate(masks)]
            first = source.first
            if source.kept is not None:
                first = self._n_logits + len(self._kept)
                self._kept.append(source.kept)
            self._picked += range(first, first + count)
        if self._rows:
            self._prepared = self._sampler.prepare(self._rows)

    def draw(self, logits: torch.Tensor) -> None:
        """Draw from logits, float32 [sum n_logits, vocab], which may be changed. Waits for no device."""
        self.prepared = [
            # The next step may overwrite the logits, and a view would keep all of them alive.
            (source.row, logits[source.first].clone())
            for source in self._sources
            if source.generation is None and source.row is not None
        ]
        if self._prepared is None:
            return
        if self._kept:
            logits = torch.cat([logits, torch.stack(self._kept)])
        if self._picked != list(range(len(logits))):
            logits = logits.index_select(0, to_device(np.array(self._picked, dtype=np.int64), logits.device))
        self._draws = self._prepared.draw(logits)

    def read(self) -> None:
        """Wait for the tokens."""
        if self._draws is not None:
            self._drawn = self._draws.read()

    def accept(self) -> None:
        """Give each request the tokens that its draws verify."""
        for span in self._spans:
            try:
                _accept(span.generation, self._drawn[span.first : span.first + span.count])
            except GrammarFault as fault:
                self.faults[span.generation.request.id] = fault


def _masks(generation: Generation, tail: Sequence[int]) -> Sequence[np.ndarray | None]:
    """The mask of each draw. What follows an illegal token of the tail is never reached."""
    matcher = generation.matcher
    if matcher is None:
        return [None] * (1 + len(tail))
    return list(matcher.masks_along(tail)) if tail else (matcher.mask,)


def _accept(generation: Generation, drawn: Sequence[SampledToken]) -> None:
    tail = generation.request.tail
    n_tail = 0
    for token in drawn:
        if token.token_id < 0:
            raise GrammarFault("the grammar allows no token at all here: a fault of its backend")
        generation.accept(token.token_id, token.logprob)
        if generation.reason is not None or n_tail >= len(tail) or tail[n_tail] != token.token_id:
            break
        n_tail += 1
    generation.n_tail = n_tail
    timeline = generation.request.timeline
    timeline.drafted_tokens += len(tail)
    timeline.accepted_tokens += n_tail
