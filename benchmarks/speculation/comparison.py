"""Contestants that do the same jobs by turns, and the ratios of their times."""

import gc
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.speculation.side import Outcome

__all__ = ["Comparison", "Contestant", "Ratio", "Work", "compare"]

Contestant = Callable[[int], Outcome]
"""Does the job of this number."""
RESAMPLED = 4000


@dataclass(frozen=True, slots=True)
class Ratio:
    """The base's seconds over another's: the median of the pairs, its 95 % interval, and that of their sums."""

    median: float
    low: float
    high: float
    of_sums: float
    n_pairs: int

    @classmethod
    def of(cls, base_s: Sequence[float], other_s: Sequence[float]) -> "Ratio":
        """Of pairs, one at least, none of which took no time. The interval is by percentiles of the bootstrap (Efron,
        1979, "Bootstrap methods: another look at the jackknife")."""
        base, other = np.asarray(base_s), np.asarray(other_s)
        ratios = base / other
        drawn = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLED, len(ratios)))
        low, high = np.percentile(np.median(ratios[drawn], axis=1), (2.5, 97.5))
        of_sums = float(base.sum() / other.sum())
        return cls(float(np.median(ratios)), float(low), float(high), of_sums, len(ratios))

    @property
    def is_slower(self) -> bool:
        """Whether the interval says that the other is slower than the base."""
        return self.high < 1.0

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Work:
    """What a contestant's target counted over all turns. acceptance: accepted of drafted tokens, by source and of all;
    sources that drafted nothing are missing. wasted: rejected drafts for each token of the answers. draft_us: what
    drafting took, for each step and for each token that was verified."""

    steps: int
    tokens: int
    forced: int
    prompt_tokens: int
    drafted: int
    accepted: int
    rounds: int
    tokens_per_step: float
    wasted: float
    acceptance: dict[str, float]
    draft_us_per_step: float
    draft_us_per_token: float

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> "Work":
        """The sum."""
        total = {key: sum(each.counted[key] for each in outcomes) for key in outcomes[0].counted}
        steps, tokens, drafted = total["steps"], total["tokens_generated"], total["tokens_drafted"]
        acceptance = {
            source: total[f"tokens_accepted_{source}"] / n
            for key, n in total.items()
            if (source := key.removeprefix("tokens_drafted_")) != key and n
        }
        if drafted:
            acceptance["all"] = total["tokens_accepted"] / drafted
        return cls(
            steps=int(steps),
            tokens=int(tokens),
            forced=int(total["tokens_forced"]),
            prompt_tokens=int(total["prompt_tokens_computed"]),
            drafted=int(drafted),
            accepted=int(total["tokens_accepted"]),
            rounds=int(total["draft_rounds"]),
            tokens_per_step=tokens / max(1.0, steps),
            wasted=(drafted - total["tokens_accepted"]) / max(1.0, tokens),
            acceptance=acceptance,
            draft_us_per_step=1e6 * total["draft_s"] / max(1.0, steps),
            draft_us_per_token=1e6 * total["draft_s"] / drafted if drafted else 0.0,
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """One contestant beside the base. whole, decode: None where no pair could be compared. differing: jobs and places
    where answers differ that must not; n_rounded: pairs of which some answer differs and may."""

    whole: Ratio | None
    decode: Ratio | None
    work: Work
    base_work: Work
    differing: list[str] = field(default_factory=list)
    n_rounded: int = 0

    @property
    def saved_steps(self) -> float:
        """The base's steps over this one's."""
        return self.base_work.steps / max(1, self.work.steps)

    def __str__(self) -> str:
        work, base = self.work, self.base_work
        sources = "  ".join(f"{source} {share:.2f}" for source, share in work.acceptance.items())
        return (
            f"whole {self.whole}  decode {self.decode}  tokens/step {work.tokens_per_step:.2f}"
            f" ({base.tokens_per_step:.2f})  steps {work.steps} ({base.steps})  drafted {work.drafted}"
            f"  rounds {work.rounds}  accepted: {sources or 'none'}"
        )


def compare(
    base: Contestant,
    others: Mapping[str, Contestant],
    jobs: Sequence[str],
    runs: int,
    *,
    sampled: frozenset[str] = frozenset(),
    rounds: bool = False,
    n_warm: int | None = None,
) -> dict[str, Comparison]:
    """Each of the others beside the base, over `runs` turns of all jobs and one before them that does not count.

    jobs: their names. n_warm: jobs of that turn (None: all). sampled: which of the others need not answer as the base
    does, rounds: that none needs to, where answers differ already because steps have other sizes. Ratios are of
    seconds per token of the answers, which is those of seconds where answers are as long.
    """
    contestants: dict[str, Contestant] = {"": base, **others}
    found: dict[str, list[Outcome]] = {name: [] for name in contestants}
    orders = itertools.cycle(_orders(list(contestants)))
    gc.collect()
    for turn in range(-1, runs):
        for job in range(len(jobs) if turn >= 0 or n_warm is None else n_warm):
            for name in next(orders):
                outcome = contestants[name](job)
                if turn >= 0:
                    found[name].append(outcome)
    base_work = Work.of(found[""])
    names = [job for _ in range(runs) for job in jobs]
    results = {}
    for name in others:
        may_differ, pairs, differing = rounds or name in sampled, list[tuple[Outcome, Outcome]](), dict[str, None]()
        n_rounded = 0
        for job_name, ours, theirs in zip(names, found[name], found[""], strict=True):
            if ours.answers == theirs.answers or may_differ:
                pairs.append((theirs, ours))
                n_rounded += rounds and ours.answers != theirs.answers
            else:
                differing[f"{job_name}: {_first_difference(theirs, ours)}"] = None
        whole = [tuple(each.seconds / _n_tokens(each) for each in pair) for pair in pairs]
        decode = [tuple(each.decode_s / _n_tokens(each) for each in pair) for pair in pairs]
        work = Work.of(found[name])
        results[name] = Comparison(_ratio(whole), _ratio(decode), work, base_work, list(differing), n_rounded)
    return results


def _ratio(pairs: Sequence[tuple[float, ...]]) -> Ratio | None:
    """Of those that took time at all."""
    usable = [pair for pair in pairs if min(pair) > 0.0]
    return Ratio.of(*zip(*usable, strict=True)) if usable else None


def _orders(names: list[str]) -> list[list[str]]:
    """In which every name is at every place as often as at any other, and before any other as often as behind it."""
    turned = [names[at:] + names[:at] for at in range(len(names))]
    return [order for each in turned for order in (each, each[::-1])]


def _n_tokens(outcome: Outcome) -> int:
    return max(1, sum(map(len, outcome.answers)))


def _first_difference(base: Outcome, other: Outcome) -> str:
    for row, (theirs, ours) in enumerate(zip(base.answers, other.answers, strict=True)):
        if theirs != ours:
            at = next((at for at, pair in enumerate(zip(theirs, ours, strict=False)) if pair[0] != pair[1]), None)
            at = min(len(theirs), len(ours)) if at is None else at
            return f"answer {row}, token {at}: {list(theirs[at : at + 4])} without drafts, {list(ours[at : at + 4])}"
    return "the number of answers"
