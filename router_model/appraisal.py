"""What is expected of one request: gain, costs, and the rank that is compared with the threshold."""

from dataclasses import dataclass, field

import numpy as np

from router_model.artefact import RouterArtefact
from router_model.cheap import NAMES
from router_model.circumstances import Circumstances
from router_model.costs import TYPICAL_TOKENS, Prices, RowCosts, request_costs
from router_model.evidence import PricedRows
from router_model.features import Features
from router_model.front import SCORES
from router_model.model import Prediction
from router_model.options import Action
from router_model.score import EDGE

_MAX_TOKENS = NAMES.index("log_max_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Appraisal:
    """One request.

    rank_low, rank_high: bounds of the rank, equal once the small model's prefill was read. score: expected gain of the
    large model, of the lower one. p_small, p_large, ood: None before the prefill. *_tokens: expected output, None is
    unknown. costs: arrays of length 1, None without prices. cost_usd: by model, with the router's prefill where the
    large one answers.
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
    cost_usd: dict[Action, float] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Add the costs up, which are asked for several times."""
        if self.costs is not None:
            small, large = float(self.costs.small[0]), float(self.costs.large[0] + self.costs.route[0])
            object.__setattr__(self, "cost_usd", {Action.SMALL: small, Action.LARGE: large})

    @property
    def is_far(self) -> bool:
        """Whether it is known to be out of domain."""
        return self.ood is not None and self.ood > EDGE


@dataclass(frozen=True, slots=True)
class Appraiser:
    """Appraises requests by an artefact, at the prices that its thresholds are computed for."""

    artefact: RouterArtefact
    prices: Prices | None
    _priced: PricedRows | None = field(init=False, repr=False, compare=False)
    _usual_tokens: tuple[float, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Look up once what the evidence says at these prices."""
        evidence = self.artefact.evidence
        small, large = evidence.mean_tokens
        usual = TYPICAL_TOKENS[1] if small is None else small, TYPICAL_TOKENS[2] if large is None else large
        object.__setattr__(self, "_priced", None if self.prices is None else evidence.priced(self.prices))
        object.__setattr__(self, "_usual_tokens", usual)

    def appraise(self, features: Features, route: str, circumstances: Circumstances) -> Appraisal:
        """From everything. ValueError: features of another kind than the artefact's."""
        seen = self._seen(features, route)
        allowed = float(np.expm1(features.cheap[_MAX_TOKENS]))
        small_tokens, large_tokens = _capped(seen.small_tokens, allowed), _capped(seen.large_tokens, allowed)
        costs = self.costs(small_tokens, large_tokens, circumstances)
        rank = self.rank(seen.score, None if costs is None else float(costs.extra[0]))
        return Appraisal(
            score=seen.score,
            rank_low=rank,
            rank_high=rank,
            p_small=seen.p_small,
            p_large=seen.p_large,
            ood=seen.ood,
            small_tokens=small_tokens,
            large_tokens=large_tokens,
            costs=costs,
        )

    def appraise_early(self, features: Features | None, circumstances: Circumstances) -> Appraisal:
        """From what needs no prefill: bounds, as wide as can be without a front model. features: None were read."""
        front = self.artefact.front
        low, high = SCORES if front is None or features is None else front.bounds(features)
        rank_low, rank_high = low, high
        priced = self._priced
        if priced is not None and priced.scale is not None and circumstances.has_prices:
            prompt = circumstances.large.prompt_usd + circumstances.route_usd - circumstances.small.prompt_usd
            least, most = priced.answer_extra
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
        usual_small, usual_large = self._usual_tokens
        return request_costs(
            circumstances,
            usual_small if small_tokens is None else small_tokens,
            usual_large if large_tokens is None else large_tokens,
        )

    def rank(self, gain: float, extra_usd: float | None) -> float:
        """The rank of a gain for which that much more is paid; the gain itself where costs say nothing."""
        scale = None if self._priced is None else self._priced.scale
        return gain if scale is None or extra_usd is None else scale.rank_one(gain, extra_usd)

    def _seen(self, features: Features, route: str) -> Prediction:
        """What `RouterArtefact.predict` gives for this request."""
        seen, again = self.artefact.model.predict_one(features, route), self.artefact.recalibration
        return seen if again is None else again.apply_one(seen, route)


def _capped(tokens: float | None, allowed: float) -> float | None:
    """Expected tokens, no more than the request allows; below 1 nothing is known of that."""
    return tokens if tokens is None or allowed < 1 else min(tokens, allowed)
