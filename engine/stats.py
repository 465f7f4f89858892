"""What the engine counts, per model: plain numbers, cumulative since start, so that two snapshots can be subtracted."""

from dataclasses import asdict, dataclass, field
from typing import Any

from engine.request import CacheMiss, DraftCounts, FinishReason
from engine.speculation.proposer import Source

__all__ = ["Counters"]


@dataclass(slots=True)
class Counters:
    """Cumulative counts of one model. Token counts are tokens, `*_s` are seconds.

    prompt_tokens_computed + prompt_tokens_cached is every prompt token once; what preemption or a released hold made
    necessary again is in tokens_recomputed. tokens_copied: cached ones in blocks that were shared in part.

    A step's time is parted into schedule_s, forward_s, mask_s (filling token masks, wherever that happens), sample_s
    and bookkeeping_s (accepting tokens, text, stops, commit, events). forward_wait_s: for how much of forward_s the
    step loop could do nothing else; the rest of forward_s hid other work. On a GPU forward_s and sample_s are its own
    time, forward_wait_s that of the step loop while it waits for tokens, and launch_s what queueing the work took.

    drafts: by source, the tokens that were drafted for this model and verified by it, and how many it took;
    tokens_drafted and tokens_accepted are the sums. draft_rounds: steps of the small model that drafted for it.
    draft_s: what drafting took in all, that of the free sources too.
    """

    prompt_tokens_computed: int = 0
    prompt_tokens_cached: int = 0
    tokens_recomputed: int = 0
    tokens_copied: int = 0
    tokens_generated: int = 0
    tokens_forced: int = 0
    tokens_drafted: int = 0
    tokens_accepted: int = 0
    draft_rounds: int = 0
    steps: int = 0
    rows: int = 0
    preemptions: int = 0
    holds_released: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    prepared: int = 0
    resumed: int = 0
    submitted: int = 0
    refused: int = 0
    compiled: int = 0
    compile_refused: int = 0
    compile_s: float = 0.0
    schedule_s: float = 0.0
    launch_s: float = 0.0
    forward_s: float = 0.0
    forward_wait_s: float = 0.0
    mask_s: float = 0.0
    sample_s: float = 0.0
    bookkeeping_s: float = 0.0
    draft_s: float = 0.0
    drafts: dict[str, DraftCounts] = field(default_factory=lambda: {source.value: DraftCounts() for source in Source})
    prefix_misses: dict[str, int] = field(default_factory=lambda: {miss.value: 0 for miss in CacheMiss})
    finished: dict[str, int] = field(default_factory=lambda: {reason.value: 0 for reason in FinishReason})

    def note_draft(self, source: str, drafted: int, accepted: int) -> None:
        """Count tokens of one source that a step verified, in the sums too. Raises KeyError for an unknown source."""
        counts = self.drafts[source]
        counts.drafted += drafted
        counts.accepted += accepted
        self.tokens_drafted += drafted
        self.tokens_accepted += accepted

    def snapshot(self) -> dict[str, Any]:
        """The counts as a dictionary of numbers; requests that ended are under `finished_<reason>`, prompts by why the
        cache held no more of them under `prefix_miss_<reason>`, drafts under `tokens_drafted_<source>` and
        `tokens_accepted_<source>`.
        """
        numbers = asdict(self)
        finished, misses = numbers.pop("finished"), numbers.pop("prefix_misses")
        del numbers["drafts"]
        for source, counts in self.drafts.items():
            numbers[f"tokens_drafted_{source}"] = counts.drafted
            numbers[f"tokens_accepted_{source}"] = counts.accepted
        return (
            numbers
            | {f"finished_{reason}": count for reason, count in finished.items()}
            | {f"prefix_miss_{reason}": count for reason, count in misses.items()}
        )
