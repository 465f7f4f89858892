"""Scores of routers that need no training or cannot be had: what a trained one is measured beside."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from router_model.encoder import Encoder
from router_model.features import Features
from router_model.logistic import Floats
from router_model.outcomes import Outcome

KNN_NEIGHBOURS = 100

PRIOR_ROWS = 10.0
"""How many rows the mean of all subjects counts as, beside a subject's own."""


def random_scores(outcomes: Sequence[Outcome]) -> Floats:
    """All tied: metrics break ties at random by expectation, so this is the mean over all random routers."""
    return np.zeros(len(outcomes))


def length_scores(outcomes: Sequence[Outcome]) -> Floats:
    """The longer the prompt, the sooner to the large model; by tokens where only features were kept."""
    return np.array([len(one.text) or 4.0 * one.facts.prompt_tokens for one in outcomes], np.float64)


def oracle_scores(labels: Floats) -> Floats:
    """The true gain of every prompt, from labels [n, 2]: what no router can beat."""
    gains: Floats = labels[:, 1] - labels[:, 0]
    return gains


def subject_scores(train: Sequence[Outcome], train_labels: Floats, test: Sequence[Outcome]) -> Floats:
    """Mean gain of each row's subject in the training rows: what is won by knowing no more than the subject.

    A subject's mean is drawn towards that of all rows, which counts as PRIOR_ROWS rows; an unknown subject has that.
    """
    gains = train_labels[:, 1] - train_labels[:, 0]
    everyone = float(gains.mean())
    sums: dict[str, tuple[float, int]] = {}
    for one, gain in zip(train, gains.tolist(), strict=True):
        total, n = sums.get(one.subject, (0.0, 0))
        sums[one.subject] = total + gain, n + 1
    means = {name: (total + PRIOR_ROWS * everyone) / (n + PRIOR_ROWS) for name, (total, n) in sums.items()}
    return np.array([means.get(one.subject, everyone) for one in test], np.float64)


def knn_scores(encoder: Encoder, train: Sequence[Features], train_labels: Floats, test: Sequence[Features]) -> Floats:
    """Mean gain among the KNN_NEIGHBOURS training prompts nearest by cosine of the encoding."""
    known, asked = (_unit(encoder.encode_all(features)) for features in (train, test))
    gains = train_labels[:, 1] - train_labels[:, 0]
    k = min(KNN_NEIGHBOURS, len(known))
    scores = np.empty(len(asked))
    for start in range(0, len(asked), 512):  # blocks bound the memory of the similarities
        similar = asked[start : start + 512] @ known.T
        nearest = np.argpartition(-similar, k - 1, axis=1)[:, :k]
        scores[start : start + 512] = gains[nearest].mean(axis=1)
    return scores


def knn_scores_by_folds(
    encoder: Encoder, features: Sequence[Features], labels: Floats, folds: NDArray[np.intp]
) -> Floats:
    """`knn_scores` [n] without training rows: each row's neighbours are those of the other folds [n]."""
    scores = np.empty(len(features))
    for fold in np.unique(folds):
        held, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        known, asked = [features[int(i)] for i in rest], [features[int(i)] for i in held]
        scores[held] = knn_scores(encoder, known, labels[rest], asked)
    return scores


def _unit(encoded: Floats) -> Floats:
    unit: Floats = encoded / np.maximum(np.linalg.norm(encoded, axis=1, keepdims=True), 1e-12)
    return unit
