"""Training: outcomes in, a router out, with every calibration and threshold taken from folds that did not see the row.

outcomes -> features -> encoder -> K grouped folds -> logits out of fold -> maps -> scores -> curve
                                \\-> heads on everything ------------------------------------> RouterModel
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_model.calibration import CalibrationMap, fit_calibration
from router_model.encoder import Encoder
from router_model.features import Features, Kind, extract_outcome
from router_model.folds import group_numbers, grouped_folds
from router_model.heads import HeadOutputs, Labels, fit_heads
from router_model.logistic import Floats, log_loss
from router_model.model import Predictions, RouterModel
from router_model.outcomes import Outcome
from router_model.score import routing_score
from router_model.thresholds import QualityCurve, fit_curve

MIN_ROWS = 50
"""Fewer outcomes than this train nothing that could be trusted."""

OOD_QUANTILE = 0.99
"""The quantile of held-out distances that counts as ood 1."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """n_folds:

    of grouped cross-validation. l2_grid: penalties to choose from by held-out log loss. n_draws: of the bootstrap.
    """

    seed: int = 0
    n_folds: int = 5
    l2_grid: tuple[float, ...] = (10.0, 30.0, 100.0, 300.0, 1000.0)
    n_draws: int = 400


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A router with what it was fitted on:

    held-out predictions for each row, in the order given, and the curve of them.
    """

    model: RouterModel
    curve: QualityCurve
    held_out: Predictions
    l2: float


def train(outcomes: Sequence[Outcome], options: TrainingOptions | None = None) -> Trained:
    """Train on outcomes: with prefill states where all of them have one, else on text alone.

    Equal outcomes and options give an equal router. ValueError: too few outcomes or groups, or states on some rows
    only.
    """
    kind = kind_of(outcomes)
    return train_features([extract_outcome(outcome, kind) for outcome in outcomes], outcomes, options)


def kind_of(outcomes: Sequence[Outcome]) -> Kind:
    """The kind of router that outcomes can train. ValueError: too few, or states on some rows only."""
    if len(outcomes) < MIN_ROWS:
        raise ValueError(f"{len(outcomes)} outcomes are too few to train a router: bring at least {MIN_ROWS}")
    with_state = sum(outcome.state is not None for outcome in outcomes)
    if with_state not in {0, len(outcomes)}:
        raise ValueError(
            f"{with_state} of {len(outcomes)} outcomes have a prefill state: record one for every row, or for none"
        )
    return Kind.STATE if with_state else Kind.TEXT


def train_features(
    features: Sequence[Features], outcomes: Sequence[Outcome], options: TrainingOptions | None = None
) -> Trained:
    """`train` with features that were extracted before."""
    options = options or TrainingOptions()
    rng = np.random.default_rng(options.seed)
    groups = group_numbers([outcome.group for outcome in outcomes])
    folds = grouped_folds(groups, options.n_folds, rng)
    labels = labels_of(outcomes)
    # The encoder never sees a label, so one fit may serve all folds.
    encoder = Encoder.fit(features, rng)
    encoded = encoder.encode_all(features)
    l2, raw = _choose_l2(encoded, labels, folds, options.l2_grid)
    heads = fit_heads(encoded, labels, l2)
    maps = [fit_calibration(logits, labels.scores[:, m]) for m, logits in enumerate((raw.logit_small, raw.logit_large))]
    radius = max(float(np.quantile(raw.distance, OOD_QUANTILE)), 1e-9)
    model = RouterModel(encoder, heads, maps[0], maps[1], radius, float(labels.scores[:, 1].mean()))
    held_out = _held_out_predictions(raw, labels, folds, model)
    curve = fit_curve(held_out.score, labels.scores, groups, rng, options.n_draws)
    return Trained(model, curve, held_out, l2)


def labels_of(outcomes: Sequence[Outcome]) -> Labels:
    """The outcomes' scores and token counts as arrays, small before large."""
    scores = np.array([(one.weak_score, one.strong_score) for one in outcomes], np.float64)
    tokens = [(one.small_tokens, one.large_tokens) for one in outcomes]
    return Labels(scores, np.array([[np.nan if n is None else n for n in pair] for pair in tokens], np.float64))


def _choose_l2(
    encoded: Floats, labels: Labels, folds: NDArray[np.intp], grid: Sequence[float]
) -> tuple[float, HeadOutputs]:
    """The penalty with the smallest held-out log loss over both heads, and its held-out outputs."""
    best: tuple[float, float, HeadOutputs] | None = None
    starts: dict[int, Floats] = {}
    for l2 in sorted(grid, reverse=True):
        raw = _empty_outputs(labels)
        for fold in np.unique(folds):
            rest, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            heads = fit_heads(encoded[rest], labels.take(rest), l2, starts.get(int(fold)))
            starts[int(fold)] = heads.right
            _fill(raw, held, heads.outputs(encoded[held]))
        loss = log_loss(raw.logit_small, labels.scores[:, 0]) + log_loss(raw.logit_large, labels.scores[:, 1])
        if best is None or loss < best[0]:
            best = loss, l2, raw
    if best is None:
        raise ValueError("l2_grid is empty: give at least one penalty")
    return best[1], best[2]


def _empty_outputs(labels: Labels) -> HeadOutputs:
    n = len(labels.scores)
    tokens = (np.full(n, np.nan), np.full(n, np.nan)) if np.isfinite(labels.tokens).any() else (None, None)
    return HeadOutputs(np.zeros(n), np.zeros(n), np.zeros(n), *tokens)


def _fill(into: HeadOutputs, rows: NDArray[np.intp], part: HeadOutputs) -> None:
    into.logit_small[rows], into.logit_large[rows] = part.logit_small, part.logit_large
    into.distance[rows] = part.distance
    if into.small_tokens is not None and part.small_tokens is not None:
        into.small_tokens[rows] = part.small_tokens
    if into.large_tokens is not None and part.large_tokens is not None:
        into.large_tokens[rows] = part.large_tokens


def _held_out_predictions(raw: HeadOutputs, labels: Labels, folds: NDArray[np.intp], model: RouterModel) -> Predictions:
    """Calibrated predictions in which each fold's maps were fitted to the other folds."""
    p = np.zeros_like(labels.scores)
    for m, logits in enumerate((raw.logit_small, raw.logit_large)):
        for fold in np.unique(folds):
            rest, held = folds != fold, folds == fold
            one: CalibrationMap = fit_calibration(logits[rest], labels.scores[rest, m])
            p[held, m] = one.apply(logits[held])
    ood: Floats = np.asarray(raw.distance / model.radius)
    score = routing_score(p[:, 0], p[:, 1], ood, model.large_prior)
    return Predictions(p[:, 0], p[:, 1], ood, score, raw.small_tokens, raw.large_tokens)
