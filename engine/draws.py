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

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from engine.constrain import GrammarFault
from engine.generation import Generation
from engine.plan import Row, StepPlan
from engine.request import Request
from engine.sampler import SampledToken, SamplingRow, sample

__all__ = ["StepDraws"]


@dataclass(slots=True)
class _Span:
    """The draws of one request: `count` from row `first` of the batch."""

    generation: Generation
    first: int
    count: int


@dataclass(slots=True)
class StepDraws:
    """Collects a step's rows, then samples all of them at once.

    prepared: rows whose logits are to be kept, with those. faults: requests that their grammar's backend ended.
    """

    prepared: list[tuple[Row, torch.Tensor]] = field(default_factory=list)
    faults: dict[str, GrammarFault] = field(default_factory=dict)
    _logits: list[torch.Tensor] = field(default_factory=list)
    _rows: list[SamplingRow] = field(default_factory=list)
    _spans: list[_Span] = field(default_factory=list)

    def collect(
        self,
        plan: StepPlan,
        logits: torch.Tensor,
        requests: Mapping[str, Request],
        generations: Mapping[str, Generation],
        kept: dict[str, torch.Tensor],
    ) -> None:
        """Find the rows of `logits`, [sum n_logits, vocab], that are sampled, and fill their masks.

        kept: by request id, the logits [vocab] of prepared requests; those of resumed ones are taken out.
        """
        first = 0
        for row in plan.rows:
            own = logits[first : first + row.n_logits]
            first += row.n_logits
            if not row.n_logits:
                continue
            if row.request_id in generations:
                self._add(generations[row.request_id], own, requests[row.request_id].tail)
            else:
                self.prepared.append((row, own[0]))
        for request_id in plan.resumed:
            self._add(generations[request_id], kept.pop(request_id)[None], [])

    def sample(self) -> None:
        """Draw for all rows, and give each request the tokens that its draws verify."""
        if not self._rows:
            return
        sampled = sample(torch.cat(self._logits), self._rows)
        for span in self._spans:
            try:
                self._accept(span.generation, sampled[span.first : span.first + span.count])
            except GrammarFault as fault:
                self.faults[span.generation.request.id] = fault

    @property
    def generations(self) -> list[Generation]:
        """Requests that got tokens, or a fault, in this step."""
        return [span.generation for span in self._spans]

    def _add(self, generation: Generation, logits: torch.Tensor, tail: Sequence[int]) -> None:
        masks: torch.Tensor | None = None
        if generation.matcher is not None:
            began = time.perf_counter()
            try:
                masks = generation.matcher.masks_along(tail) if tail else generation.matcher.mask[None]
            except GrammarFault as fault:
                self.faults[generation.request.id] = fault
                return
            generation.request.timeline.mask_s += time.perf_counter() - began
        count = len(logits) if masks is None else len(masks)  # what follows an illegal token is never reached
        self._spans.append(_Span(generation, len(self._rows), count))
        self._logits.append(logits[:count])
        self._rows += [
            generation.sampling_row(tail[:index], None if masks is None else masks[index]) for index in range(count)
        ]

    def _accept(self, generation: Generation, sampled: Sequence[SampledToken]) -> None:
        tail = generation.request.tail
        n_tail = 0
        for draw in sampled:
            if draw.token_id < 0:
                raise GrammarFault("the grammar allows no token at all here: a fault of its backend")
            generation.accept(draw.token_id, draw.logprob)
            if generation.reason is not None or n_tail >= len(tail) or tail[n_tail] != draw.token_id:
                break
            n_tail += 1
        generation.n_tail = n_tail
        timeline = generation.request.timeline
        timeline.drafted_tokens += len(tail)
        timeline.accepted_tokens += n_tail
