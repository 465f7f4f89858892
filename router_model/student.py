"""Student's t distribution, as far as intervals need it."""

import math
from statistics import NormalDist

LEAST_DF = 3.0
"""Fewer degrees of freedom than this are taken as this many: below, the expansion fails, and so does any interval."""


def student_quantile(p: float, df: float) -> float:
    """The quantile of Student's t at `p`, by the Cornish-Fisher expansion to df^-4 (Abramowitz and Stegun, 26.7.5).

    Off by less than 1 % at p 0.975 from 3 degrees of freedom on, by less than 0.001 from 8 on.
    """
    z, v = NormalDist().inv_cdf(p), max(df, LEAST_DF)
    if math.isinf(v):
        return z
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )
