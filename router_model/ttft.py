"""Predicts a request's time to the first token from the load of the model it would go to, learning as it serves."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_model.logistic import Floats

MIN_SEEN = 20
"""Requests after which a prediction means something: four for each thing that is learned, but the constant."""

WINDOW = 256
"""Requests that are remembered: the oldest counts a thirteenth of the latest."""

FORGETTING = 0.99
"""Weight of one request against the next: about the last 100 count, so that another machine load is learned in
minutes.
"""

RIDGE = 1e-3
"""How much a coefficient clings to what it was, as a part of what the remembered requests say of it. Being a part, it
is the same at every scale; what they say nothing of stays as it is.
"""

FLOOR = 0.1
"""Errors count in relation to the time that was predicted, or to this part of the usual time if that is more."""

OUTLIER = 3.0
"""Errors beyond this many times the median one count no more than that: one stall is no law (Huber, Robust Estimation
of a Location Parameter, 1964).
"""

_AGE = FORGETTING ** np.arange(WINDOW - 1, -1, -1.0)
_TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSnapshot:
    """One model's queue when a request is decided.

    waiting, running: requests. prefill_tokens: prompt tokens of those that are still to be computed. decode_rows:
    sequences that take part in each decode step. Parts of one count what runs beside it on the same device.
    """

    waiting: float = 0
    running: float = 0
    prefill_tokens: float = 0
    decode_rows: float = 0


class TtftModel:
    """One model's time to the first token: least squares over the last requests, the late ones counting more, on the
    load and the request's own uncached prompt tokens.

    No coefficient is negative, since load only adds time; so no prediction is, however the load grows. Whatever the
    unit of the machine or of the prompts, 1 ms or 1 minute, 10 tokens or 10,000, the same is learned in as many
    requests: nothing in it has a scale of its own.
    """

    def __init__(self) -> None:
        size = len(_row(LoadSnapshot(), 0))
        self._weights: Floats = np.zeros(size)
        self._plain: list[float] = self._weights.tolist()  # one request costs numpy more than it takes
        self._rows, self._times_s = np.zeros((WINDOW, size)), np.zeros(WINDOW)  # the latest is the last
        self._seen = 0

    @property
    def n_seen(self) -> int:
        """Requests learned from."""
        return self._seen

    def predict(self, load: LoadSnapshot, prompt_tokens: int) -> float | None:
        """Expected seconds to the first token, at least 0; None until MIN_SEEN requests were observed.

        prompt_tokens: of this request, without those in the prefix cache.
        """
        if self._seen < MIN_SEEN:
            return None
        base, waiting, running, prefill, own, rows = self._plain
        return (
            base
            + waiting * load.waiting
            + running * load.running
            + prefill * load.prefill_tokens
            + own * prompt_tokens
            + rows * load.decode_rows
        )

    def observe(self, load: LoadSnapshot, prompt_tokens: int, ttft_s: float) -> None:
        """Learn from a request: what `predict` was asked, and what came of it. Takes some 0.1 ms.

        ValueError: ttft_s below 0, or not finite.
        """
        if not 0 <= ttft_s < np.inf:
            raise ValueError(f"the time to the first token is {ttft_s} s: use a finite number from 0")
        self._rows[:-1], self._times_s[:-1] = self._rows[1:], self._times_s[1:]
        self._rows[-1], self._times_s[-1] = _row(load, prompt_tokens), ttft_s
        self._seen += 1
        rows, times_s = self._rows[-self._seen :], self._times_s[-self._seen :]
        weights = self._request_weights(rows, times_s)
        weighted = rows.T * weights
        self._weights = _least_squares(weighted @ rows, weighted @ times_s, self._weights)
        self._plain = self._weights.tolist()

    def _request_weights(self, rows: Floats, times_s: Floats) -> Floats:
        """What each remembered request counts [n]: by its age, by the scale of its error, and less for an outlier."""
        age = _AGE[-len(times_s) :]
        predicted_s = rows @ self._weights
        scale = predicted_s + FLOOR * max(float(age @ times_s / age.sum()), _TINY)
        error = np.abs(times_s - predicted_s) / scale
        bound = OUTLIER * max(float(np.median(error)), 0.01)
        weights: Floats = age * np.minimum(1.0, bound / np.maximum(error, _TINY)) / scale**2
        return weights


def _row(load: LoadSnapshot, prompt_tokens: int) -> Floats:
    """[1, waiting, running, prefill, own prompt, decode rows]."""
    return np.array(
        [1.0, load.waiting, load.running, load.prefill_tokens, prompt_tokens, load.decode_rows], dtype=np.float64
    )


def _least_squares(gram: Floats, moment: Floats, before: Floats) -> Floats:
    """The least squares solution without negative coefficients, held near `before`. gram [d, d], moment [d].

    What would be negative is set to 0 and the rest solved again, at most d times: near enough to the best of all
    (Lawson and Hanson, 1974, also takes some of them back), and all are free again at the next request.
    """
    scale = np.sqrt(np.diag(gram))
    known = scale > 0
    unit = np.where(known, scale, 1.0)
    scaled, clung = gram / np.outer(unit, unit), before * unit
    target = moment / unit + RIDGE * clung
    scaled = scaled + RIDGE * np.eye(len(unit))
    free: NDArray[np.bool_] = known.copy()
    found = np.where(known, 0.0, clung)
    while free.any():
        found[free] = np.linalg.solve(scaled[np.ix_(free, free)], target[free])
        negative = free & (found < 0)
        if not negative.any():
            break
        found[negative] = 0.0
        free &= ~negative
    solved: Floats = found / unit
    return solved
