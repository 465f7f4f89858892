"""What came of a request on one model, summed over its choices: tokens, times, cost. Filled while it is generated.

A request that escalated has two: that of the answer which was sent, and among its `others` that of the small model's.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.messages import Finished, Prepared
from engine.request import DraftCounts
from engine.speculation.proposer import Source
from gateway.prices import PriceTable, RequestCost, Work, WorkKind
from gateway.routing.decision import Decision


@dataclass(slots=True, kw_only=True)
class Outcome:
    """model: alias of the one that answers, the decision's unless it escalated.

    finished: terminal events by choice. first_token_s, finished_s: `time.monotonic()`, None is not yet. produced:
    tokens seen of choices that never finished (the client left): they were computed, so they are billed. valid: False
    once an answer failed validation, True once one passed, None when none was checked. logprob_*: over the tokens of
    which the logprob is known.

    others: what other models computed for the same request and nobody saw. escalated: the large model answered again
    what the small one had answered. escalate_reason: why, or why it could not be (`gateway.routing.cascade`). p_right:
    how likely the small model's answer was right, None where nobody asked.
    """

    decision: Decision
    prompt_tokens: int
    model: str = ""
    prepared: Prepared | None = None
    backend: str | None = None
    compile_s: float | None = None
    route_s: float | None = None
    finished: dict[int, Finished] = field(default_factory=dict)
    produced: dict[int, int] = field(default_factory=dict)
    first_token_s: float | None = None
    finished_s: float | None = None
    valid: bool | None = None
    logprob_sum: float = 0.0
    logprob_tokens: int = 0
    logprob_min: float | None = None
    others: list["Outcome"] = field(default_factory=list)
    escalated: bool = False
    escalate_reason: str | None = None
    p_right: float | None = None

    def __post_init__(self) -> None:
        """The decision's model, where no other was named."""
        self.model = self.model or self.decision.model

    def saw_tokens(self, index: int, n_tokens: int) -> None:
        """Count new tokens of a choice; the first of all sets first_token_s."""
        if self.first_token_s is None and n_tokens:
            self.first_token_s = time.monotonic()
        self.produced[index] = self.produced.get(index, 0) + n_tokens

    def saw_end(self, index: int, event: Finished) -> None:
        """Note a choice's terminal event."""
        self.finished[index] = event
        self.finished_s = time.monotonic()

    def saw_validity(self, valid: bool) -> None:
        """Note the verdict on one answer: a single invalid one makes the request invalid."""
        self.valid = valid and self.valid is not False

    def saw_logprobs(self, logprobs: Sequence[float]) -> None:
        """Note generated tokens' logprobs; mean and minimum are part of the decision's record."""
        if not logprobs:
            return
        self.logprob_sum += sum(logprobs)
        self.logprob_tokens += len(logprobs)
        lowest = min(logprobs)
        self.logprob_min = lowest if self.logprob_min is None else min(self.logprob_min, lowest)

    @property
    def logprob_mean(self) -> float | None:
        """Mean over the tokens whose logprob is known; None where there is none."""
        return self.logprob_sum / self.logprob_tokens if self.logprob_tokens else None

    @property
    def discarded(self) -> "Outcome | None":
        """An answer, or the beginning of one, that was generated and not sent."""
        return next((other for other in self.others if other.produced or other.finished), None)

    @property
    def judged(self) -> "Outcome":
        """That of the decision's own model: of the answer that the cascade judged, whether or not it was sent."""
        return next((other for other in self.others if other.model == self.decision.model), self)

    @property
    def completion_tokens(self) -> int:
        """Generated tokens of all choices."""
        open_ = sum(n for index, n in self.produced.items() if index not in self.finished)
        return open_ + sum(len(event.token_ids) for event in self.finished.values())

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens found in the cache, by the choice that came first: the others only share its prompt."""
        if self.continues_prefill and self.prepared is not None:
            return self.prepared.cached_tokens
        event = self.finished.get(0)
        return event.timeline.cached_tokens if event is not None else 0

    @property
    def cache_miss(self) -> str | None:
        """The engine's reason why `cached_tokens` is not more; None where no prompt got that far."""
        if self.continues_prefill and self.prepared is not None:
            return self.prepared.cache_miss
        event = self.finished.get(0)
        return None if event is None else event.timeline.cache_miss

    @property
    def continues_prefill(self) -> bool:
        """Whether the router's prefill became this answer's."""
        return self.prepared is not None and self.model == "small"

    @property
    def drafted_tokens(self) -> int:
        """Tokens proposed by speculation."""
        return sum(event.timeline.drafted_tokens for event in self.finished.values())

    @property
    def accepted_tokens(self) -> int:
        """Proposed tokens that the target model accepted."""
        return sum(event.timeline.accepted_tokens for event in self.finished.values())

    @property
    def drafts(self) -> dict[str, DraftCounts]:
        """By source of drafts, in the order of `Source`, what it drafted and what of it was accepted."""
        sums: dict[str, DraftCounts] = {}
        timelines = [event.timeline for event in self.finished.values()]
        for source in Source:
            found = [timeline.drafts[source] for timeline in timelines if source in timeline.drafts]
            drafted = sum(counts.drafted for counts in found)
            if drafted:
                sums[source.value] = DraftCounts(drafted, sum(counts.accepted for counts in found))
        return sums

    @property
    def forced_tokens(self) -> int:
        """Tokens that were never asked of the model, since the grammar allowed no other."""
        return sum(event.timeline.forced_tokens for event in self.finished.values())

    @property
    def finish_reason(self) -> str | None:
        """The engine's reason for the first choice."""
        event = self.finished.get(0)
        return None if event is None else event.reason.value

    def work(self) -> list[Work]:
        """Everything that was computed for the request, for the price table."""
        pieces = self._generated(WorkKind.ANSWER)
        for other in self.others:
            pieces += other._generated(WorkKind.DISCARDED)
        if self.prepared is not None and self.decision.model != "small":
            pieces.append(
                Work(
                    model="small",
                    kind=WorkKind.ROUTE,
                    input_tokens=self.prepared.computed_tokens,
                    cached_tokens=self.prepared.cached_tokens,
                )
            )
        return pieces

    def _generated(self, kind: WorkKind) -> list[Work]:
        """This model's own work. Of a prompt that was never admitted nothing was computed."""
        own = Work(
            model=self.model,
            kind=kind,
            input_tokens=self.prompt_tokens - self.cached_tokens,
            cached_tokens=self.cached_tokens,
            output_tokens=self.completion_tokens,
        )
        pieces = [own] if kind is WorkKind.ANSWER or self.produced or self.finished else []
        by_model = self.drafts.get(Source.DRAFT_MODEL)
        if by_model is not None:  # what the other sources draft is computed by no model
            pieces.append(Work(model="small", kind=WorkKind.DRAFT, output_tokens=by_model.drafted))
        return pieces

    def cost(self, prices: PriceTable) -> RequestCost:
        """What the request cost so far. Raises LookupError when a model has no price."""
        return prices.request_cost(self.work())
