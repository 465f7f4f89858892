"""What is expected of one request: gain, costs, and the rank that is compared with the threshold."""

from dataclasses import dataclass

import numpy as np

from router_model.artefact import RouterArtefact
from router_model.cheap import NAMES
from router_model.circumstances import Circumstances
from router_model.costs import TYPICAL_TOKENS, CostScale, Prices, RowCosts, request_costs
from router_model.features import Features
from router_model.options import Action
from router_model.score import EDGE

_MAX_TOKENS = NAMES.index("log_max_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Appraisal:
    """One request.

    rank_low, rank_high: bounds of the rank, equal once the small model's prefill was read. score: expected gain of the
    large model, of the lower one. p_small, p_large, ood: None before the prefill. *_tokens: expected output, None is
    unknown. costs: arrays of length 1, None without prices.
    """

    score: float
    rank_low: float
    rank_high: float
    p_small: float | None = None
    p_large: float | None = None
    ood: float | None = None
    small_tokens: float | None = None
    large_tokens: float | None = None
    costs: RowCosts | None = None

    @property
    def is_far(self) -> bool:
        """Whether it is known to be out of domain."""
        return self.ood is not None and self.ood > EDGE

    @property
    def cost_usd(self) -> dict[Action, float] | None:
        """Expected cost by model, with the router's prefill where the large one answers."""
        if self.costs is None:
            return None
        return {
            Action.SMALL: float(self.costs.small[0]),
            Action.LARGE: float(self.costs.large[0] + self.costs.route[0]),
        }


@dataclass(frozen=True, slots=True)
class Appraiser:
    """Appraises requests by an artefact, at the prices that its thresholds are computed for."""

    artefact: RouterArtefact
    prices: Prices | None

    def appraise(self, features: Features, route: str, circumstances: Circumstances) -> Appraisal:
        """From everything. ValueError: features of another kind than the artefact's."""
        seen = self.artefact.predict([features], [route])
        small, large = seen.small_tokens, seen.large_tokens
        small_tokens = None if small is None else _capped(float(small[0]), features)
        large_tokens = None if large is None else _capped(float(large[0]), features)
        costs = self.costs(small_tokens, large_tokens, circumstances)
        score = float(seen.score[0])
        rank = self.rank(score, None if costs is None else float(costs.extra[0]))
        return Appraisal(
            score=score,
            rank_low=rank,
            rank_high=rank,
            p_small=float(seen.p_small[0]),
            p_large=float(seen.p_large[0]),
            ood=float(seen.ood[0]),
            small_tokens=small_tokens,
            large_tokens=large_tokens,
            costs=costs,
        )

    def appraise_early(self, features: Features, circumstances: Circumstances) -> Appraisal:
        """From what needs no prefill: bounds, as wide as can be without a front model."""
        low, high = (-1.0, 1.0) if self.artefact.front is None else self.artefact.front.bounds(features)
        rank_low, rank_high = low, high
        if self._scale is not None and self.prices is not None and circumstances.has_prices:
            prompt = circumstances.large.prompt_usd + circumstances.route_usd - circumstances.small.prompt_usd
            least, most = self.artefact.evidence.priced(self.prices).answer_extra
            if (allowed := circumstances.max_tokens) is not None:
                # Where both answers are cut off, they differ by no more than that many tokens.
                on_small, on_large = (one.output_usd_per_token for one in (circumstances.small, circumstances.large))
                least, most = min(least, allowed * (on_large - on_small)), min(most, allowed * on_large)
            # The answers' lengths are not predicted yet: the lower bound is that of the dearest, for gain and loss.
            rank_low, rank_high = self.rank(low, prompt + most), self.rank(high, prompt + least)
        return Appraisal(
            score=low,
            rank_low=rank_low,
            rank_high=max(rank_low, rank_high),
            costs=self.costs(None, None, circumstances),
        )

    def costs(
        self, small_tokens: float | None, large_tokens: float | None, circumstances: Circumstances
    ) -> RowCosts | None:
        """Expected costs, None without prices. Without expected tokens the evidence's mean is taken."""
        if not circumstances.has_prices:
            return None
        small_mean, large_mean = self.artefact.evidence.mean_tokens
        small = next(n for n in (small_tokens, small_mean, TYPICAL_TOKENS[1]) if n is not None)
        large = next(n for n in (large_tokens, large_mean, TYPICAL_TOKENS[2]) if n is not None)
        return request_costs(circumstances, small, large)

    def rank(self, gain: float, extra_usd: float | None) -> float:
        """The rank of a gain for which that much more is paid; the gain itself where costs say nothing."""
        if self._scale is None or extra_usd is None:
            return gain
        return float(self._scale.rank(np.array(gain), np.array(extra_usd)))

    @property
    def _scale(self) -> CostScale | None:
        return None if self.prices is None else self.artefact.evidence.priced(self.prices).scale


def _capped(tokens: float, features: Features) -> float:
    """Expected tokens, no more than the request allows."""
    allowed = float(np.expm1(features.cheap[_MAX_TOKENS]))
    return min(tokens, allowed) if allowed >= 1 else tokens
