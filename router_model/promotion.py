"""Whether a new router may take the place of the one in force: only if it is better on the same graded requests."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from router_model.artefact import RouterArtefact
from router_model.features import Embed, extract_outcome
from router_model.folds import group_numbers
from router_model.group_draws import GroupDraws, lower_bound, upper_bound
from router_model.logistic import Floats
from router_model.outcomes import Outcome
from router_model.score import EDGE

MIN_ROWS = 100
"""Fewer requests with both scores compare nothing."""


class PromotionRefused(ValueError):
    """The candidate is not measurably better; the message gives the numbers."""


class Difference(msgspec.Struct, frozen=True):
    """Candidate less incumbent, with its one-sided 95 % bounds (group_draws.py: with room for one group that was not
    seen and on which the other router is right).
    """

    value: float
    lower: float
    upper: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two routers on n_rows requests that both models answered.

    n_learned: such requests that were left out, since one of the two was trained on them. unchecked: hashes of those
    that do not say what they were trained on, so that nothing could be left out for them. apgr: of all large shares;
    None where the large model is not measurably better, so that there is no gap to recover parts of. quality: by target
    of the incumbent, the mean score when both send as many requests to the large model as the incumbent does for that
    target. Rows count by their weight in both.
    """

    candidate: str
    incumbent: str
    n_rows: int
    n_groups: int
    n_learned: int = 0
    unchecked: tuple[str, ...] = ()
    apgr: Difference | None
    quality: Mapping[str, Difference]

    @property
    def is_better(self) -> bool:
        """Better over all shares with 95 % confidence, and at no target measurably worse."""
        return self.apgr is not None and self.apgr.lower > 0 and all(one.upper >= 0 for one in self.quality.values())

    def require(self) -> None:
        """PromotionRefused unless `is_better`."""
        if self.is_better:
            return
        found = "the large model is not measurably better there, so no router can be"
        if self.apgr is not None:
            found = f"APGR differs by {self.apgr.value:+.3f}, at least {self.apgr.lower:+.3f} with 95 % confidence"
        worse = [name for name, one in self.quality.items() if one.upper < 0]
        at = f", and it is worse for {', '.join(worse)}" if worse else ""
        if self.n_learned:
            at += f" ({self.n_learned} more are left out: one of the routers was trained on them)"
        raise PromotionRefused(
            f"{self.candidate[:12]} is not measurably better than {self.incumbent[:12]} on {self.n_rows} graded "
            f"requests: {found}{at}. Grade more requests, or force the promotion"
        )


def compare(
    candidate: RouterArtefact,
    incumbent: RouterArtefact,
    outcomes: Sequence[Outcome],
    *,
    seed: int = 0,
    n_draws: int = 300,
    embed: Embed | None = None,
) -> Comparison:
    """Compare two routers by a paired bootstrap over groups.

    outcomes: those without both scores, or of weight 0, are left out, and so are those that one of the two was trained
    on, as far as it says. embed: the sentence encoder of routers that read embeddings. ValueError: fewer than MIN_ROWS
    remain, or features that one of the routers cannot read.
    """
    graded = [one for one in outcomes if one.has_both and one.weight > 0]
    known = [router.learned for router in (candidate, incumbent) if router.learned is not None]
    rows = [one for one in graded if not any(learned.knows(one) for learned in known)]
    n_learned = len(graded) - len(rows)
    if len(rows) < MIN_ROWS:
        others = f", beside {n_learned} that one of the routers was trained on" if n_learned else ""
        raise ValueError(
            f"{len(rows)} graded requests have the scores of both models{others}, and a comparison needs {MIN_ROWS}: "
            "run the shadow job, or bring a file of outcomes that neither router was trained on"
        )
    labels = np.array([(one.weak_score, one.strong_score) for one in rows])
    gains = labels[:, 1] - labels[:, 0]
    groups = group_numbers([one.group for one in rows])
    weights = GroupDraws(groups, np.array([one.weight for one in rows]))
    drawn = list(weights.draw(np.random.default_rng(seed), n_draws))
    new, _ = _ranking(candidate, rows, embed)
    old, is_far = _ranking(incumbent, rows, embed)
    quality = {}
    for name, point in incumbent.manifest.targets.items():
        goes = (old >= point.threshold) | (is_far & (name not in incumbent.manifest.share_targets))
        spread = (_top(new, weights.rows, float(weights.rows @ goes)).astype(np.float64) - goes) * gains
        quality[name] = _mean_difference(spread, weights.rows, drawn)
    return Comparison(
        candidate=candidate.hash,
        incumbent=incumbent.hash,
        n_rows=len(rows),
        n_groups=int(groups.max()) + 1,
        n_learned=n_learned,
        unchecked=tuple(dict.fromkeys(one.hash for one in (candidate, incumbent) if one.learned is None)),
        apgr=apgr_difference(new, old, gains, weights.rows, drawn),
        quality=quality,
    )


def _ranking(
    artefact: RouterArtefact, rows: Sequence[Outcome], embed: Embed | None
) -> tuple[Floats, NDArray[np.bool_]]:
    """The rows' scores [n], and which are out of domain."""
    features = [extract_outcome(one, artefact.kind, embed) for one in rows]
    seen = artefact.predict(features, [one.route for one in rows])
    return seen.score, seen.ood > EDGE


class _Areas:
    """The area that a ranking has below its quality, by large share, for any weights of the rows.

    scores [n]: the higher, the sooner large. gains [n]: of the large model. Equal scores are sent up in random order.
    """

    def __init__(self, scores: Floats, gains: Floats) -> None:
        _, self._steps = np.unique(-scores, return_inverse=True)
        self._gains = gains

    def area(self, weights: Floats) -> tuple[float, float]:
        """The area above the small model's quality, and the gap, in sums of scores that count `weights` [n] times."""
        widths = np.bincount(self._steps, weights)
        rises = np.bincount(self._steps, weights * self._gains)
        reached = np.cumsum(rises)
        return float(widths @ (reached - rises / 2) / widths.sum()), float(reached[-1])


def apgr_difference(
    new: Floats, old: Floats, gains: Floats, weights: Floats, drawn: Sequence[tuple[Floats, float]]
) -> Difference | None:
    """APGR of the ranking by `new` [n] less that of the ranking by `old` [n].

    gains [n]: of the large model. weights [n]: what rows count; drawn: what they, and the unseen group, count in each
    draw (`GroupDraws.draw`). The unseen group is one that only the large model gets right, and which one router sends
    up first and the other last. None where the large model is not measurably better.
    """
    newer, older = _Areas(new, gains), _Areas(old, gains)
    (after, gap), (before, _) = newer.area(weights), older.area(weights)
    found = np.array([(*newer.area(rows), older.area(rows)[0], unseen) for rows, unseen in drawn])
    over, gaps, unseen = found[:, 0] - found[:, 2], found[:, 1], found[:, 3]
    if lower_bound(gaps - unseen) <= 0:
        return None
    has_gap = gaps > 0
    below, above = ((over + side * unseen) / np.where(has_gap, gaps + unseen, 1.0) for side in (-1, 1))
    return Difference(
        (after - before) / gap,
        float(lower_bound(np.where(has_gap, below, -np.inf))),
        float(upper_bound(np.where(has_gap, above, np.inf))),
    )


def _mean_difference(spread: Floats, rows: Floats, drawn: Sequence[tuple[Floats, float]]) -> Difference:
    """The mean of differences [n] of scores; the unseen group differs by a whole one."""
    sums = np.array([(weights @ spread, weights.sum() + unseen, unseen) for weights, unseen in drawn])
    return Difference(
        float(rows @ spread / rows.sum()),
        float(lower_bound((sums[:, 0] - sums[:, 2]) / sums[:, 1])),
        float(upper_bound((sums[:, 0] + sums[:, 2]) / sums[:, 1])),
    )


def _top(scores: Floats, weights: Floats, wanted: float) -> NDArray[np.bool_]:
    """The rows of the highest scores (among equal ones the first) which together weigh about `wanted`: those whose
    middle, in weight, lies below it.
    """
    order = np.argsort(-scores, kind="stable")
    chosen = np.zeros(len(scores), np.bool_)
    chosen[order] = np.cumsum(weights[order]) - weights[order] / 2 < wanted
    return chosen
