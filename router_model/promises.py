"""Whether a router's promises held on rows that it was not trained on: quality by target, and wanted large shares."""

import enum
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from router_model.artefact import RouterArtefact
from router_model.controller import ShareController
from router_model.evaluation import Draws, Measured, from_draws
from router_model.logistic import Floats
from router_model.model import Predictions
from router_model.options import QualityScale, RouteOptions
from router_model.serving import planner_of, serve

SHARES = (0.2, 0.5, 0.8)
QUALITY = 0.9
"""Of the large model's score: what a gateway's `routing.quality_target` is by default."""

SETTLED = 500
"""Requests after which a kept share counts as settled."""


class Status(enum.StrEnum):
    """met, missed: the quality that was reached on these rows, against the one that was wished. uncalibrated: most of
    them were flagged as not covered by the promise, so it was not given.
    """

    MET = "met"
    MISSED = "missed"
    UNCALIBRATED = "uncalibrated"


class Realised(msgspec.Struct, frozen=True, kw_only=True):
    """What one way of deciding came to. quality: mean score; pgr: part of the gap; of_large: part of the large model's
    mean score. over_random: quality less that of random routing at the same large share, paired.
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
    that keep a share, with the share kept; calibrated_share: rows that the promise covered then. status: of `served`.
    """

    wanted: float
    scale: QualityScale
    promised_share: float
    promised: float
    fixed: Realised
    served: Realised
    calibrated_share: float
    status: Status


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
    artefact: RouterArtefact, seen: Predictions, labels: Floats, routes: Sequence[str], draws: Draws
) -> dict[str, TargetKept]:
    """Every named target of the artefact, and QUALITY of the large model's score as `quality 0.9`."""
    wishes = {name: RouteOptions(target=name) for name in artefact.manifest.targets}
    wishes[f"quality {QUALITY:g}"] = RouteOptions(quality=QUALITY)
    return {name: _target(artefact, seen, labels, routes, draws, options) for name, options in wishes.items()}


def _target(
    artefact: RouterArtefact,
    seen: Predictions,
    labels: Floats,
    routes: Sequence[str],
    draws: Draws,
    options: RouteOptions,
) -> TargetKept:
    scale = QualityScale.GAP if options.quality is None else options.quality_scale
    point = planner_of(artefact).plan(options).point
    found = serve(artefact, seen, options, routes)
    fixed, served = (_realised(goes, labels, draws) for goes in (found.fixed, found.served))
    reached = served.pgr.value if scale is QualityScale.GAP else served.of_large.value
    wanted = 0.0 if point.target is None else point.target
    calibrated_share = float(found.is_calibrated.mean())
    status = Status.MET if reached is not None and reached >= wanted - 1e-9 else Status.MISSED
    return TargetKept(
        wanted=wanted,
        scale=scale,
        promised_share=point.share,
        promised=point.lower if scale is QualityScale.GAP else point.quality_lower,
        fixed=fixed,
        served=served,
        calibrated_share=calibrated_share,
        status=Status.UNCALIBRATED if calibrated_share < 0.5 else status,
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


def _realised(goes: NDArray[np.bool_], labels: Floats, draws: Draws) -> Realised:
    """Everything on the same draws."""
    got = np.where(goes, labels[:, 1], labels[:, 0])
    table = np.stack([goes, got, labels[:, 0], labels[:, 1]], axis=1).astype(np.float64)
    share, quality, small, large = np.array([table[rows].mean(axis=0) for rows in draws]).T
    gap = large - small
    return Realised(
        large_share=from_draws(share),
        quality=from_draws(quality),
        pgr=from_draws(_ratio(quality - small, gap)),
        of_large=from_draws(_ratio(quality, large)),
        over_random=from_draws(quality - (small + share * gap)),
    )


def _ratio(over: Floats, under: Floats) -> Floats:
    known = np.abs(under) > 1e-12
    ratio: Floats = np.where(known, over / np.where(known, under, 1.0), np.nan)
    return ratio
