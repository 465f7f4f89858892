"""Training: outcomes in, a router out, with all that is believed of it taken from folds that did not see the row.

outcomes -> features -> encoder -> K grouped folds -> outputs out of fold -> stack, maps -> held-out predictions
                                \\-> heads on everything -------------------------------> RouterModel
held-out scores    -> front model (which requests need no prefill)
held-out p, answer -> cascade model (is this answer right)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_model.calibration import fit_route_maps
from router_model.cascade import CascadeModel, fit_cascade
from router_model.encoder import Encoder
from router_model.features import Embed, Features, Kind, extract_outcome
from router_model.folds import group_numbers, grouped_folds
from router_model.forest import ForestSize
from router_model.front import FrontModel
from router_model.heads import HeadOutputs, LinearHeads, fit_heads
from router_model.labels import Labels, labels_of
from router_model.logistic import Floats, log_loss
from router_model.model import Calibrated, Predictions, RouterModel, predictions
from router_model.outcomes import Outcome
from router_model.stack import Stack

__all__ = ["Trained", "TrainingOptions", "kind_of", "labels_of", "train", "train_features"]

MIN_ROWS = 50
"""Fewer outcomes than this train nothing that could be trusted."""

OOD_QUANTILE = 0.99
"""The quantile of held-out distances that counts as ood 1."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """n_folds: of grouped cross-validation. l2_grid: penalties of the linear heads to choose from by held-out log loss.

    forest: None chooses by the number of rows, see `forest_size`.
    """

    seed: int = 0
    n_folds: int = 5
    l2_grid: tuple[float, ...] = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
    forest: ForestSize | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A router with what is known of it.

    held_out: predictions for each training row, in the order given, by models that did not see its group. front: of
    kind `state` only. cascade and held_out_right float64 [n] (probability that the small model's answer is right, NaN
    where the row has none): where enough rows have the small model's answer.
    """

    model: RouterModel
    held_out: Predictions
    l2: float
    front: FrontModel | None = None
    cascade: CascadeModel | None = None
    held_out_right: Floats | None = None


def train(outcomes: Sequence[Outcome], options: TrainingOptions | None = None, embed: Embed | None = None) -> Trained:
    """Train on outcomes: with prefill states where all of them have one, else on text.

    embed: a sentence encoder; given one, the router reads its embeddings instead. Equal outcomes and options give an
    equal router. ValueError: too few outcomes or groups, no score of one model, or rows of different kinds.
    """
    kind = kind_of(outcomes) if embed is None else Kind.EMBEDDING
    return train_features([extract_outcome(outcome, kind, embed) for outcome in outcomes], outcomes, options)


def kind_of(outcomes: Sequence[Outcome]) -> Kind:
    """The kind of router that outcomes can train. ValueError: too few, or states on some rows only."""
    _check_number(outcomes)
    kinds = [_kind(outcome) for outcome in outcomes]
    if len(set(kinds)) > 1:
        n = sum(kind is Kind.STATE for kind in kinds)
        raise ValueError(
            f"{n} of {len(outcomes)} outcomes have a prefill state: record one for every row, or for none"
            if n
            else f"the outcomes have features of kinds {', '.join(sorted(set(kinds)))}: train on rows of one kind"
        )
    return kinds[0]


def train_features(
    features: Sequence[Features], outcomes: Sequence[Outcome], options: TrainingOptions | None = None
) -> Trained:
    """`train` with features that were extracted before."""
    _check_number(outcomes)
    options = options or TrainingOptions()
    rng = np.random.default_rng(options.seed)
    labels, routes = labels_of(outcomes), [outcome.route for outcome in outcomes]
    _check_labels(labels)
    folds = grouped_folds(group_numbers([outcome.group for outcome in outcomes]), options.n_folds, rng)
    # The encoder never sees a label, so one fit may serve all folds.
    encoder = Encoder.fit(features, rng)
    encoded = encoder.encode_all(features)
    l2 = _choose_l2(encoded, labels, folds, options.l2_grid)
    size = options.forest or forest_size(len(outcomes))
    raw = _held_out_outputs(encoded, labels, folds, l2, size, options.seed)
    heads = fit_heads(encoded, labels, LinearHeads.fit(encoded, labels, l2), size, l2, options.seed)
    radius = max(float(np.quantile(raw.distance, OOD_QUANTILE)), 1e-9)
    model = RouterModel(encoder, heads, _calibrate(raw, labels, routes), radius)
    held_out = _held_out_predictions(raw, labels, routes, folds, model)
    front = FrontModel.fit(features, held_out.score, folds) if encoder.kind is Kind.STATE else None
    cascade, right = fit_cascade(outcomes, held_out.p_small, held_out.p_large, folds)
    return Trained(model, held_out, l2, front, cascade, right)


def forest_size(n_rows: int) -> ForestSize:
    """Few rows carry few splits: below 3,000 of them leaves are larger."""
    return ForestSize() if n_rows >= 3_000 else ForestSize(min_leaf=20)


def _kind(outcome: Outcome) -> Kind:
    if outcome.features is not None:
        return Features.unpack(outcome.features).kind
    return Kind.TEXT if outcome.state is None else Kind.STATE


def _check_number(outcomes: Sequence[Outcome]) -> None:
    if len(outcomes) < MIN_ROWS:
        raise ValueError(f"{len(outcomes)} outcomes are too few to train a router: bring at least {MIN_ROWS}")


def _check_labels(labels: Labels) -> None:
    for side, name in enumerate(("small", "large")):
        if not (np.isfinite(labels.scores[:, side]) & (labels.weights > 0)).any():
            raise ValueError(f"no outcome has a score of the {name} model: grade some of its answers")


def _choose_l2(encoded: Floats, labels: Labels, folds: NDArray[np.intp], grid: Sequence[float]) -> float:
    """The penalty with the smallest held-out log loss over both linear heads."""
    best: tuple[float, float] | None = None
    starts: dict[int, Floats] = {}
    for l2 in sorted(grid, reverse=True):
        logits = np.zeros_like(labels.scores)
        for fold in np.unique(folds):
            rest, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            heads = LinearHeads.fit(encoded[rest], labels.take(rest), l2, starts.get(int(fold)))
            starts[int(fold)] = heads.right
            logits[held] = heads.apply(encoded[held])[0]
        loss = sum(log_loss(logits[:, side], labels.scores[:, side]) for side in range(2))
        if best is None or loss < best[0]:
            best = loss, l2
    if best is None:
        raise ValueError("l2_grid is empty: give at least one penalty")
    return best[1]


def _held_out_outputs(
    encoded: Floats, labels: Labels, folds: NDArray[np.intp], l2: float, size: ForestSize, seed: int
) -> HeadOutputs:
    parts, rows = [], []
    for fold in np.unique(folds):
        rest, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        known = labels.take(rest)
        heads = fit_heads(encoded[rest], known, LinearHeads.fit(encoded[rest], known, l2), size, l2, seed)
        parts.append(heads.outputs(encoded[held]))
        rows.append(held)
    return HeadOutputs.joined(parts).take(np.argsort(np.concatenate(rows)))


def _held_out_predictions(
    raw: HeadOutputs, labels: Labels, routes: list[str], folds: NDArray[np.intp], model: RouterModel
) -> Predictions:
    """Predictions in which each fold's stack and maps were fitted to the other folds."""
    p = np.zeros_like(labels.scores)
    for fold in np.unique(folds):
        rest, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        fitted = _calibrate(raw.take(rest), labels.take(rest), [routes[i] for i in rest])
        p[held] = fitted.apply(raw.take(held), [routes[i] for i in held])
    return predictions(p, raw, model.radius)


def _calibrate(raw: HeadOutputs, labels: Labels, routes: Sequence[str]) -> Calibrated:
    """Fit stack and maps to outputs for rows that the heads did not see."""
    stack = Stack.fit(raw, labels)
    logits = stack.logits(raw)
    maps = [fit_route_maps(logits[:, side], labels.scores[:, side], routes, labels.weights) for side in range(2)]
    return Calibrated(stack, maps[0], maps[1])
