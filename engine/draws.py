"""Which rows of logits are sampled in a step, under which masks, and what the draws mean for their requests.

    request     tail        logits rows     draws              accepted
    plain       -           x               5                  5
    drafted     7 8 9       x x x x         7 8 4 1            7 8 4      the draft was right twice; 4 corrects it
    a tree      7 8, 7 9    x x x x         7 9 . 2            7 9 2      of two guesses after 7, the second
    chunk       -           none
    prepared    -           x               none: the logits are kept until the request goes on

A draft is verified by drawing at each of its positions with the noise that sampling one token at a time would have used
there, and comparing. So the output is the same with and without drafts, at any temperature (the coupled form; Daliri,
Musco and Suresh, 2024, "drafter-invariant"). The other form is rejection sampling: see ratio_draws.
"""

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass

import numpy as np
import torch

from engine.generation import Generation
from engine.guarded_matcher import GrammarFault
from engine.plan import Row, StepPlan
from engine.ratio_draws import RatioDraws
from engine.request import DraftCounts, Request
from engine.sampler import Draws, PreparedDraws, Sampler
from engine.sampling_row import SampledToken, SamplingRow
from engine.speculation.config import Verification
from engine.tail import Tail, Taken
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
    """The draws of one request: `count` from number `first` of the step's on, or what is verified by its ratio as
    number `first` of that."""

    generation: Generation
    first: int
    count: int = 1
    tail: Tail | None = None
    is_ratio: bool = False


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
        verification: Verification = "coupled",
    ) -> None:
        """kept: by request id, the logits [vocab] of prepared requests; those of resumed ones are taken out.
        verification: of drafts at a temperature above 0; at 0 both forms are the same."""
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
        self._ratio = RatioDraws(sampler.other) if verification == "ratio" else None
        self._taken: list[list[Taken]] = []  # of those that are verified by their ratio

    @property
    def generations(self) -> list[Generation]:
        """Requests that draw in this step."""
        return [span.generation for span in self._spans]

    @property
    def tokens(self) -> torch.Tensor | None:
        """What was drawn, int64 [n_draws], perhaps not computed yet; None where nothing was."""
        return None if self._draws is None else self._draws.tokens

    @property
    def has_tails(self) -> bool:
        """Whether drafts are verified, so that the tokens must be read before the next step is known."""
        return any(span.tail is not None for span in self._spans)

    def awaited(self) -> dict[str, int]:
        """By request id, which draw is the next token of those that go on after it. None with a draft is among them:
        which of its draws is the last one is not known yet."""
        return {
            span.generation.request.id: span.first
            for span in self._spans
            if span.tail is None and span.generation.n_left > 1
        }

    def fill_masks(self) -> None:
        """Find what is drawn, and under which masks; what the device needs for that is on its way to it then."""
        for source in self._sources:
            generation = source.generation
            if generation is None or not source.is_wanted:
                continue
            generation.n_tail, generation.path, generation.verdicts = 0, (), []
            try:
                self._fill(source, generation)
            except GrammarFault as fault:
                self.faults[generation.request.id] = fault
        if self._ratio is not None:
            self._ratio.prepare()
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
        if self._ratio is not None:
            self._ratio.draw(logits)
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
        if self._ratio is not None:
            self._taken = self._ratio.read()

    def accept(self) -> None:
        """Give each request the tokens that its draws verify."""
        for span in self._spans:
            try:
                if span.tail is None:
                    _take(span.generation, self._drawn[span.first])
                elif span.is_ratio:
                    _accept(span.generation, span.tail, self._taken[span.first])
                else:
                    drawn = self._drawn[span.first : span.first + span.count]
                    _accept(span.generation, span.tail, span.tail.follow(drawn))
            except GrammarFault as fault:
                self.faults[span.generation.request.id] = fault

    def _fill(self, source: _Source, generation: Generation) -> None:
        """Find the draws of one request."""
        first = source.first
        if not generation.request.tail:
            matcher = generation.matcher
            row = generation.sampling_row((), None if matcher is None else matcher.mask)
            if source.kept is not None:
                first = self._n_logits + len(self._kept)
                self._kept.append(source.kept)
            self._spans.append(_Span(generation, len(self._rows)))
            self._rows.append(row)
            self._picked.append(first)
            return
        tail = Tail(generation, self._sampler.vocab_size)
        rows, picked = tail.rows(generation), [first, *(first + 1 + node for node in tail.nodes)]
        if self._ratio is not None and not rows[0].is_greedy:
            self._spans.append(_Span(generation, len(self._ratio), tail=tail, is_ratio=True))
            self._ratio.add(tail, rows, picked)
            return
        self._spans.append(_Span(generation, len(self._rows), len(rows), tail))
        self._rows += rows
        self._picked += picked


def _take(generation: Generation, sampled: SampledToken) -> None:
    if sampled.token_id < 0:
        raise GrammarFault("the grammar allows no token at all here: a fault of its backend")
    generation.accept(sampled.token_id, sampled.logprob)


def _accept(generation: Generation, tail: Tail, taken: Iterable[Taken]) -> None:
    """Give a request the tokens that were verified, until something ends it, and count them."""
    timeline, draft = generation.request.timeline, tail.draft
    timeline.drafted_tokens += len(tail.tokens)
    counts = list[DraftCounts]()
    if draft is not None:
        sources = draft.tree.sources[: len(tail.tokens)]
        counts = [timeline.drafts.setdefault(source.value, DraftCounts()) for source in sources]
    for count in counts:
        count.drafted += 1
    node, path, children, verdicts = -1, list[int](), tail.children, generation.verdicts
    try:
        for sampled, child, is_followed in taken:
            for each in children.get(node, ()):
                verdicts.append((each, each == child))
            _take(generation, sampled)
            if generation.reason is not None or child is None or not is_followed:
                break
            path.append(child)
            node = child
    finally:  # what came before a fault is committed
        generation.path, generation.n_tail = tuple(path), len(path)
        # One that ends the answer was right, too, though nothing goes on from it.
        accepted = [each for each, is_accepted in verdicts if is_accepted]
        timeline.accepted_tokens += len(accepted)
        for each in accepted if counts else ():
            counts[each].accepted += 1
