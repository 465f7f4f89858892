"""How fast answers began and ended by model, and what deciding took."""

from collections.abc import Sequence

import msgspec
import numpy as np

from gateway.reports.facts import Facts


class Quantiles(msgspec.Struct, frozen=True):
    """Of n measurements in seconds; None without any."""

    n: int
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Of one model's answers. ttft: request to first token; itl: mean time between tokens; duration: to the last."""

    model: str
    ttft: Quantiles
    itl: Quantiles
    duration: Quantiles
    cached_share: float | None
    draft_accept_rate: float | None


def speeds(facts: Sequence[Facts]) -> list[Speed]:
    """Of every model that answered, by name."""
    return [
        _speed(model, [one for one in facts if one.model_served == model])
        for model in sorted({one.model_served for one in facts})
    ]


def quantiles(seconds: Sequence[float | None]) -> Quantiles:
    """Of what was measured."""
    known = [one for one in seconds if one is not None]
    if not known:
        return Quantiles(0, None, None, None)
    p50, p95, p99 = (float(bound) for bound in np.quantile(known, (0.5, 0.95, 0.99)))
    return Quantiles(len(known), p50, p95, p99)


def _speed(model: str, members: Sequence[Facts]) -> Speed:
    prompt = sum(one.prompt_tokens for one in members)
    drafted = sum(one.drafted_tokens for one in members)
    return Speed(
        model=model,
        ttft=quantiles([one.ttft_s for one in members]),
        itl=quantiles([one.itl_s for one in members]),
        duration=quantiles([one.duration_s for one in members]),
        cached_share=sum(one.cached_tokens for one in members) / prompt if prompt else None,
        draft_accept_rate=sum(one.accepted_tokens for one in members) / drafted if drafted else None,
    )
