"""What routing saved, against the large model alone and against random routing at the same share; never without the
quality that it cost or gained.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from gateway.reports.curve import valued
from gateway.reports.estimate import Saving, estimate_saving
from gateway.reports.facts import Facts
from gateway.reports.knowledge import Knowledge
from gateway.reports.logged import policy_log
from router_model.off_policy import Unidentifiable
from router_model.policy_value import Valued


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """against: `all_large`, or `matched_random` (random at the large share that the router had).

    saving: of all routed requests; its cost_if_large_usd is what that other policy would have cost. quality_difference:
    the router's mean score less that policy's, from `quality_source`; None where unknown, and quality_note says why.
    """

    against: str
    saving: Saving
    quality_difference: Valued | None
    quality_source: str | None
    quality_note: str


def comparisons(facts: Sequence[Facts], known: Knowledge | Unidentifiable) -> list[Comparison]:
    """Both comparisons over the routed requests; none without any."""
    routed = [one for one in facts if one.is_routed]
    if not routed:
        return []
    log = policy_log(routed)
    share = float(log.went_large.mean())
    random_usd = log.cost_small_usd + share * (log.cost_large_usd - log.cost_small_usd)
    return [
        _compared("all_large", [one.cost_usd for one in routed], [one.cost_if_large_usd for one in routed], 1.0, known),
        _compared("matched_random", log.cost_usd.tolist(), random_usd.tolist(), share, known),
    ]


def _compared(
    against: str, cost_usd: Sequence[float], other_usd: Sequence[float], share: float, known: Knowledge | Unidentifiable
) -> Comparison:
    quality, source, note = None, None, ""
    if isinstance(known, Unidentifiable):
        note = str(known)
    else:
        try:
            quality, source = valued(known.quality_over(np.full(known.n, share))), known.source
        except Unidentifiable as error:
            note = str(error)
    return Comparison(
        against=against,
        saving=estimate_saving(cost_usd, other_usd),
        quality_difference=quality,
        quality_source=source,
        quality_note=note,
    )
