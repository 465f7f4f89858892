"""Whether a new router may take the place of the one in force: only if it is better on the same graded requests."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from router_model.artefact import RouterArtefact
from router_model.features import Embed, extract_outcome
from router_model.folds import group_numbers
from router_model.logistic import Floats
from router_model.metrics import apgr
from router_model.outcomes import Outcome
from router_model.score import EDGE

MIN_ROWS = 100
"""Fewer requests with both scores compare nothing."""

BOUND = 0.05
"""One-sided: a difference lies above `lower` with 95 % confidence."""


class PromotionRefused(ValueError):
    """The candidate is not measurably better; the message gives the numbers."""


class Difference(msgspec.Struct, frozen=True):
    """Candidate less incumbent, with its one-sided 95 % bounds."""

    value: float
    lower: float
    upper: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two routers on n_rows requests that both models answered.

    apgr: of all large shares; None where the models are equally good. quality: by target of the incumbent, the mean
    score when both send as many requests to the large model as the incumbent does for that target.
    """

    candidate: str
    incumbent: str
    n_rows: int
    n_groups: int
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
        found = "the models are equally good on these requests, so routing gains nothing"
        if self.apgr is not None:
            found = f"APGR differs by {self.apgr.value:+.3f}, at least {self.apgr.lower:+.3f} with 95 % confidence"
        worse = [name for name, one in self.quality.items() if one.upper < 0]
        at = f", and it is worse for {', '.join(worse)}" if worse else ""
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

    outcomes: rows that neither was trained on; those without both scores are left out. embed: the sentence encoder of
    routers that read embeddings. ValueError: fewer than MIN_ROWS
    of them, or features that one of the routers cannot read.
    """
    rows = [one for one in outcomes if one.has_both]
    if len(rows) < MIN_ROWS:
        raise ValueError(
            f"{len(rows)} graded requests have the scores of both models, and a comparison needs {MIN_ROWS}: run the "
            "shadow job, or bring a file of outcomes"
        )
    labels = np.array([(one.weak_score, one.strong_score) for one in rows])
    groups = group_numbers([one.group for one in rows])
    draws = _draws(groups, np.random.default_rng(seed), n_draws)
    new, _ = _ranking(candidate, rows, embed)
    old, is_far = _ranking(incumbent, rows, embed)
    quality = {}
    for name, point in incumbent.manifest.targets.items():
        goes = (old >= point.threshold) | (is_far & (name not in incumbent.manifest.share_targets))
        gains = labels[:, 1] - labels[:, 0]
        differences = (_top(new, int(goes.sum())).astype(np.float64) - goes) * gains
        drawn = np.array([differences[draw].mean() for draw in draws])
        quality[name] = _difference(float(differences.mean()), drawn)
    return Comparison(
        candidate=candidate.hash,
        incumbent=incumbent.hash,
        n_rows=len(rows),
        n_groups=int(groups.max()) + 1,
        apgr=_apgr_difference(new, old, labels, draws),
        quality=quality,
    )


def _ranking(
    artefact: RouterArtefact, rows: Sequence[Outcome], embed: Embed | None
) -> tuple[Floats, NDArray[np.bool_]]:
    """The rows' scores [n], and which are out of domain."""
    features = [extract_outcome(one, artefact.kind, embed) for one in rows]
    seen = artefact.predict(features, [one.route for one in rows])
    return seen.score, seen.ood > EDGE


def _apgr_difference(new: Floats, old: Floats, labels: Floats, draws: Sequence[NDArray[np.intp]]) -> Difference | None:
    value = apgr(new, labels) - apgr(old, labels)
    drawn = np.array([apgr(new[draw], labels[draw]) - apgr(old[draw], labels[draw]) for draw in draws])
    drawn = drawn[np.isfinite(drawn)]
    return _difference(value, drawn) if np.isfinite(value) and drawn.size else None


def _top(scores: Floats, n: int) -> NDArray[np.bool_]:
    """The n rows of the highest scores; among equal ones the first."""
    chosen = np.zeros(len(scores), np.bool_)
    chosen[np.argsort(-scores, kind="stable")[:n]] = True
    return chosen


def _difference(value: float, drawn: Floats) -> Difference:
    lower, upper = np.quantile(drawn, [BOUND, 1 - BOUND])
    return Difference(value, float(lower), float(upper))


def _draws(groups: NDArray[np.intp], rng: np.random.Generator, n_draws: int) -> list[NDArray[np.intp]]:
    """Row numbers of `n_draws` draws of whole groups with replacement."""
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.searchsorted(groups[order], np.unique(groups))[1:])
    picked = (rng.integers(0, len(members), len(members)) for _ in range(n_draws))
    return [np.concatenate([members[i] for i in numbers]) for numbers in picked]
