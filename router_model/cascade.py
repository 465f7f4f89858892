"""The cascade model: how far the small model's answer can be trusted, once it is there.

A logistic regression on the answer's form (its arithmetic, its ending, its doubts, its log probabilities) and on what
the router thought of the request before, then a calibration map; both from answers that were graded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_model.answer import Answer, answer_features
from router_model.calibration import IDENTITY, CalibrationMap, fit_calibration, logit
from router_model.logistic import Floats, fit_logistic, log_loss, with_ones
from router_model.outcomes import Outcome

__all__ = ["Answer", "CascadeModel", "answer_features", "answer_of", "fit_cascade"]

MIN_ANSWERS = 100
"""Fewer rows with an answer and a score of the small model train no cascade."""

L2_GRID = (3.0, 10.0, 30.0, 100.0)

NEAR = 4.0
"""Deviations at which the inputs are held."""

CHARS_PER_TOKEN = 4.0
"""Where a row does not say how many tokens its answer has."""


@dataclass(frozen=True, slots=True, eq=False)
class CascadeModel:
    """mean and scale float64 [d] standardise the inputs; weights [d + 1]; `calibration` maps their logit.

    The inputs are the answer's features and the logits of p_small and p_large.
    """

    mean: Floats
    scale: Floats
    weights: Floats
    calibration: CalibrationMap

    def p_right(self, p_small: float, p_large: float, answer: Answer) -> float:
        """Calibrated probability that the answer is right. p_small, p_large: of the decision that led to it."""
        inputs = _inputs(np.array([p_small]), np.array([p_large]), answer_features(answer)[None])
        return float(self.p_right_all(inputs)[0])

    def p_right_all(self, inputs: Floats) -> Floats:
        """The same for inputs [n, d]."""
        return np.asarray(self.calibration.apply(self._logits(inputs)))

    def _logits(self, inputs: Floats) -> Floats:
        logits: Floats = _design(inputs, self.mean, self.scale) @ self.weights
        return logits


def answer_of(outcome: Outcome) -> Answer | None:
    """The small model's answer in an outcome, as far as it was recorded; None where nothing of it was.

    Rows say nothing of how an answer ended, so that its end counts as `stop`.
    """
    marks = (outcome.small_logprob_mean, outcome.small_logprob_min, outcome.small_valid)
    if outcome.weak_response is None and all(mark is None for mark in marks):
        return None
    text = outcome.weak_response or ""
    n_tokens = outcome.small_tokens
    return Answer(
        text=text,
        n_tokens=round(len(text) / CHARS_PER_TOKEN) if n_tokens is None else n_tokens,
        logprob_mean=outcome.small_logprob_mean,
        logprob_min=outcome.small_logprob_min,
        is_valid=outcome.small_valid,
    )


def fit_cascade(
    outcomes: Sequence[Outcome], p_small: Floats, p_large: Floats, folds: NDArray[np.intp]
) -> tuple[CascadeModel | None, Floats | None]:
    """The model, and for every row [n] the probability by folds that did not see it, NaN where there is no answer.

    p_small and p_large [n] held out, folds [n]. None and None where fewer than MIN_ANSWERS rows can teach anything.
    """
    answers = [answer_of(outcome) for outcome in outcomes]
    has_answer = np.array([answer is not None for answer in answers])
    scores = np.array([outcome.weak_score for outcome in outcomes])
    weights = np.array([outcome.weight for outcome in outcomes])
    can_teach = has_answer & np.isfinite(scores) & (weights > 0)
    if can_teach.sum() < MIN_ANSWERS or len(np.unique(folds[can_teach])) < 2:
        return None, None
    form = np.stack([answer_features(answer) for answer in answers if answer is not None])
    inputs = np.full((len(outcomes), form.shape[1] + 2), np.nan)
    inputs[has_answer] = _inputs(p_small[has_answer], p_large[has_answer], form)
    rows = np.flatnonzero(can_teach)
    data = _Graded(inputs[rows], scores[rows], weights[rows], folds[rows])
    l2 = data.best_l2()
    logits = data.held_out_logits(l2)
    calibration = fit_calibration(logits, data.scores, data.weights)
    model = data.fit(l2, calibration)
    right = np.full(len(outcomes), np.nan)
    # Answers without a score were seen by nobody: the final model may speak of them.
    right[has_answer] = model.p_right_all(inputs[has_answer])
    for fold in np.unique(data.folds):
        rest, held = data.folds != fold, data.folds == fold
        right[rows[held]] = fit_calibration(logits[rest], data.scores[rest], data.weights[rest]).apply(logits[held])
    return model, right


@dataclass(frozen=True, slots=True, eq=False)
class _Graded:
    """Inputs [n, d] of answers with their scores, weights and folds, [n] each."""

    inputs: Floats
    scores: Floats
    weights: Floats
    folds: NDArray[np.intp]

    def take(self, rows: NDArray[np.bool_]) -> "_Graded":
        return _Graded(self.inputs[rows], self.scores[rows], self.weights[rows], self.folds[rows])

    def fit(self, l2: float, calibration: CalibrationMap) -> CascadeModel:
        deviation = self.inputs.std(axis=0)
        mean, scale = self.inputs.mean(axis=0), np.where(deviation > 1e-4, deviation, 1.0)
        near = _design(self.inputs, mean, scale)[:, :-1]
        return CascadeModel(mean, scale, fit_logistic(near, self.scores, l2, counts=self.weights), calibration)

    def held_out_logits(self, l2: float) -> Floats:
        logits = np.zeros(len(self.scores))
        for fold in np.unique(self.folds):
            model = self.take(self.folds != fold).fit(l2, IDENTITY)
            held = self.folds == fold
            logits[held] = model._logits(self.inputs[held])
        return logits

    def best_l2(self) -> float:
        return min(L2_GRID, key=lambda l2: log_loss(self.held_out_logits(l2), self.scores))


def _inputs(p_small: Floats, p_large: Floats, form: NDArray[np.float32]) -> Floats:
    return np.concatenate([form.astype(np.float64), logit(p_small)[:, None], logit(p_large)[:, None]], axis=1)


def _design(inputs: Floats, mean: Floats, scale: Floats) -> Floats:
    return with_ones(np.clip((inputs - mean) / scale, -NEAR, NEAR))
