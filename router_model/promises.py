"""Whether a router's promises held on rows that it was not trained on: quality by target, and wanted large shares."""

import enum
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from router_model.artefact import RouterArtefact
from router_model.controller import ShareController
from router_model.evaluation import Draws, Measured, from_draws
from router_model.group_draws import GroupDraws
from router_model.logistic import Floats
from router_model.model import Predictions
from router_model.options import Cascade, QualityScale, RouteOptions
from router_model.serving import planner_of, serve

SHARES = (0.2, 0.5, 0.8)
QUALITY = 0.9
"""Of the large model's score: what a gateway's `routing.quality_target` is by default."""

SETTLED = 500
"""Requests after which a kept share counts as settled."""


MIN_GROUPS = 20
"""Effective number of groups below which draws of them say nothing of what other groups would have come to."""


class Status(enum.StrEnum):
    """met, missed: the quality that was reached on these rows, against the one that was wished. uncalibrated: most of
    them were flagged as not covered by the promise, so it was not given. not identifiable: these rows cannot tell.
    """

    MET = "met"
    MISSED = "missed"
    UNCALIBRATED = "uncalibrated"
    NOT_IDENTIFIABLE = "not identifiable"


class Realised(msgspec.Struct, frozen=True, kw_only=True):
    """What one way of deciding came to. quality: mean score; pgr: part of the gap, None where these rows prove none;
    of_large: part of the large model's mean score, None where that is 0. over_random: quality less that of random
    routing at the same large share, paired.
    """

    large_share: Measured
    quality: Measured
    pgr: Measured
    of_large: Measured
    over_random: Measured


class TargetKept(msgspec.Struct, frozen=True, kw_only=True):
    """One wish for quality. wanted: on `scale` (gap or large). promised_share, promised: large share and lower bound
    on that scale by the training data.

    fixed: by the threshold alone. served: one after the other, with drift noticed (no grades told) and, for targets
    that keep a share, with the share kept; calibrated_share: rows that the promise covered then. status: of `served`;
    reason: why it is not identifiable, else None.
    """

    wanted: float
    scale: QualityScale
    promised_share: float
    promised: float
    fixed: Realised
    served: Realised
    calibrated_share: float
    status: Status
    reason: str | None = None


class ShareKept(msgspec.Struct, frozen=True, kw_only=True):
    """One wanted large share. fixed: realised by its threshold on the training data; controlled: by the controller,
    one after the other, over all rows; controlled_at_500: over the first 500; controlled_after_500: over the others
    (None without any).
    """

    wanted: float
    fixed: float
    controlled: float
    controlled_at_500: float | None
    controlled_after_500: float | None


def targets_kept(
    artefact: RouterArtefact,
    seen: Predictions,
    labels: Floats,
    routes: Sequence[str],
    draws: Draws,
    second: Floats | None = None,
    *,
    groups: NDArray[np.intp],
) -> dict[str, TargetKept]:
    """Every named target of the artefact, and QUALITY of the large model's score as `quality 0.9`.

    second [n]: what the small answers are judged by (`escalation.second_ranks`), None where rows hold no answers. With
    it there is also `quality 0.9, second chance`, as a gateway keeps it whose cascade is `confidence`. groups [n]:
    those that `draws` are of.
    """
    wishes = {name: RouteOptions(target=name) for name in artefact.manifest.targets}
    wishes[f"quality {QUALITY:g}"] = RouteOptions(quality=QUALITY)
    if second is not None:
        wishes[f"quality {QUALITY:g}, second chance"] = RouteOptions(quality=QUALITY, cascade=Cascade.CONFIDENCE)
    rows = _Rows(labels, draws, groups)
    return {name: _target(artefact, seen, rows, routes, options, second) for name, options in wishes.items()}


def _target(
    artefact: RouterArtefact,
    seen: Predictions,
    rows: "_Rows",
    routes: Sequence[str],
    options: RouteOptions,
    second: Floats | None,
) -> TargetKept:
    scale = QualityScale.GAP if options.quality is None else options.quality_scale
    point = planner_of(artefact).plan(options).point
    found = serve(artefact, seen, options, routes, second)
    fixed, served = (rows.realised(goes) for goes in (found.fixed, found.served))
    reached = (served.pgr if scale is QualityScale.GAP else served.of_large).value
    wanted = 0.0 if point.target is None else point.target
    calibrated_share = float(found.is_calibrated.mean())
    reason = None
    if calibrated_share < 0.5:
        status = Status.UNCALIBRATED
    elif (reason := rows.unknown(scale)) is not None or reached is None:
        status = Status.NOT_IDENTIFIABLE
    else:
        status = Status.MET if reached >= wanted - 1e-9 else Status.MISSED
    return TargetKept(
        wanted=wanted,
        scale=scale,
        promised_share=point.share,
        promised=point.lower if scale is QualityScale.GAP else point.quality_lower,
        fixed=fixed,
        served=served,
        calibrated_share=calibrated_share,
        status=status,
        reason=reason,
    )


def shares_kept(artefact: RouterArtefact, seen: Predictions) -> list[ShareKept]:
    """Each of SHARES."""
    return [_share(artefact, seen, wanted) for wanted in SHARES]


def _share(artefact: RouterArtefact, seen: Predictions, wanted: float) -> ShareKept:
    threshold = artefact.evidence.curve(is_guarded=False).threshold_at(wanted)
    controller = ShareController(wanted, threshold, artefact.evidence.ranks(None))
    goes = np.zeros(len(seen.score), np.bool_)
    for i, rank in enumerate(seen.score.tolist()):
        goes[i] = rank >= controller.threshold()
        controller.observe(rank, float(goes[i]) - wanted)
    n = len(goes)
    return ShareKept(
        wanted=wanted,
        fixed=float((seen.score >= threshold).mean()),
        controlled=float(goes.mean()),
        controlled_at_500=float(goes[:SETTLED].mean()) if n >= SETTLED else None,
        controlled_after_500=float(goes[SETTLED:].mean()) if n > SETTLED else None,
    )


class _Rows:
    """What the models scored on n rows, labels [n, 2], and what can be told from that, on the same draws for all."""

    def __init__(self, labels: Floats, draws: Draws, groups: NDArray[np.intp]) -> None:
        self._labels, self._draws = labels, draws
        self._n_groups, self._n_effective = len(np.unique(groups)), GroupDraws(groups).n_effective
        self._large = float(labels[:, 1].mean())
        gaps = labels[:, 1] - labels[:, 0]
        self._lead = from_draws(np.array([gaps[rows].mean() for rows in draws]))

    def unknown(self, scale: QualityScale) -> str | None:
        """Why these rows cannot tell of a target on that scale whether it was met; None where they can."""
        if self._n_effective < MIN_GROUPS:
            return (
                f"the number of groups is {self._n_groups}, worth {self._n_effective:.1f} of one size, and "
                f"intervals need {MIN_GROUPS}: bring more requests that are not alike"
            )
        if scale is QualityScale.GAP and not self._has_gap:
            one = self._lead
            return (
                f"the large model leads by {one.value:+.3f} [{one.lower:+.3f}, {one.upper:+.3f}] on these rows, "
                "which proves no gap that a part could be told of"
            )
        return None if self._large > 0 else "the large model scored 0 on all rows, so there is no part of its quality"

    @property
    def _has_gap(self) -> bool:
        """Whether the large model is better by the whole of the interval."""
        return self._lead.lower is not None and self._lead.lower > 0

    def realised(self, goes: NDArray[np.bool_]) -> Realised:
        """What it came to that these rows [n] were answered by the large model."""
        got = np.where(goes, self._labels[:, 1], self._labels[:, 0])
        table = np.stack([goes, got, self._labels[:, 0], self._labels[:, 1]], axis=1).astype(np.float64)
        share, quality, small, large = np.array([table[rows].mean(axis=0) for rows in self._draws]).T
        gap = large - small
        return Realised(
            large_share=from_draws(share),
            quality=from_draws(quality),
            pgr=from_draws(_ratio(quality - small, gap)) if self._has_gap else Measured(None, None, None),
            of_large=from_draws(_ratio(quality, large)),
            over_random=from_draws(quality - (small + share * gap)),
        )


def _ratio(over: Floats, under: Floats) -> Floats:
    """NaN where there is nothing to be a part of."""
    known = under > 1e-12
    ratio: Floats = np.where(known, over / np.where(known, under, 1.0), np.nan)
    return ratio
