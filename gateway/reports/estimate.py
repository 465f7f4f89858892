"""What routing saved, with an interval."""

from collections.abc import Sequence

import msgspec
import numpy as np

_RESAMPLES = 1000
_MAX_BUCKETS = 500
_LEVEL = 0.95
# Far below the price of any token: less than this is nothing to divide by.
_LEAST_USD = 1e-15


class Saving(msgspec.Struct, frozen=True):
    """Cost beside what the same requests would have cost on the large model.

    share is saved_usd / cost_if_large_usd, between low and high with 95 % confidence; None where there is nothing to
    divide by, and no interval for fewer than two requests. Negative: routing cost more than it saved.
    """

    cost_usd: float
    cost_if_large_usd: float
    saved_usd: float
    share: float | None
    low: float | None
    high: float | None


def estimate_saving(cost_usd: Sequence[float], cost_if_large_usd: Sequence[float], *, seed: int = 0) -> Saving:
    """The saving over requests, with a percentile bootstrap interval (Efron, 1979) of the ratio of sums.

    Requests are resampled in pairs, so the interval covers which requests happened to come; it does not cover the
    assumption behind cost_if_large_usd. Many requests are first summed in random buckets, which leaves the variance of
    sums as it is and bounds the work. The seed makes a report reproducible.
    """
    pairs = np.array([cost_usd, cost_if_large_usd], dtype=np.float64)  # [2, requests]
    cost, if_large = (float(total) for total in pairs.sum(axis=1))
    share = 1 - cost / if_large if if_large > _LEAST_USD else None
    low = high = None
    n = pairs.shape[1]
    if share is not None and n >= 2:
        rng = np.random.default_rng(seed)
        if n > _MAX_BUCKETS:
            buckets = rng.permutation(n) % _MAX_BUCKETS
            pairs = np.stack([np.bincount(buckets, weights=row, minlength=_MAX_BUCKETS) for row in pairs])
            n = _MAX_BUCKETS
        drawn = rng.integers(0, n, size=(_RESAMPLES, n))
        resampled = np.stack([row[drawn].sum(axis=1) for row in pairs], axis=1)  # [resamples, 2]
        resampled = resampled[resampled[:, 1] > _LEAST_USD]
        tail = (1 - _LEVEL) / 2
        low, high = (float(bound) for bound in np.quantile(1 - resampled[:, 0] / resampled[:, 1], [tail, 1 - tail]))
    return Saving(cost, if_large, if_large - cost, share, low, high)
