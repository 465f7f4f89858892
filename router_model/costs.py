"""What a request costs on either model, and how dear the large one is for it: plain numbers per token."""

from dataclasses import dataclass

import numpy as np

from router_model.circumstances import Circumstances
from router_model.logistic import Floats

TYPICAL_TOKENS = (400.0, 200.0, 200.0)
"""Prompt, small model's and large model's output, of rows where nobody counted: only the ratio of prices is known."""

REL_RANGE = (0.125, 8.0)
"""How far one request's extra cost may move its rank, as a factor of the mean extra cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPrice:
    """USD per token of a prompt (not cached) and of an answer. ValueError: a price below 0 or not finite."""

    input_usd: float
    output_usd: float

    def __post_init__(self) -> None:
        """Check the range."""
        if not (0 <= self.input_usd < np.inf and 0 <= self.output_usd < np.inf):
            raise ValueError(f"prices are {self.input_usd} and {self.output_usd} USD a token: use finite ones from 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Both models' prices."""

    small: TokenPrice
    large: TokenPrice


@dataclass(frozen=True, slots=True, eq=False)
class RowCosts:
    """USD of n requests, each float64 [n].

    small, large: prompt and answer on that model. route: what the router's prefill costs if the large model answers
    (the small model's answer continues it). A request that is sent to large without asking the router costs `large`.
    """

    small: Floats
    large: Floats
    route: Floats

    @property
    def extra(self) -> Floats:
        """What the large model costs beyond the small one, once the router was asked."""
        return self.large + self.route - self.small


def row_costs(prices: Prices, tokens: Floats, *, has_prefill: bool) -> RowCosts:
    """Costs of rows with tokens float64 [n, 3]: prompt, output of small, output of large; NaN is not known.

    What is not known is taken as the mean of the rows where it is, else as TYPICAL_TOKENS. has_prefill: the router
    reads the small model's prefill.
    """
    known = np.isfinite(tokens)
    means = np.where(known.any(axis=0), np.where(known, tokens, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1), 0)
    filled = np.where(known, tokens, np.where(known.any(axis=0), means, TYPICAL_TOKENS))
    small = filled[:, 0] * prices.small.input_usd + filled[:, 1] * prices.small.output_usd
    large = filled[:, 0] * prices.large.input_usd + filled[:, 2] * prices.large.output_usd
    route = filled[:, 0] * prices.small.input_usd if has_prefill else np.zeros(len(tokens))
    return RowCosts(small, large, route)


def request_costs(circumstances: Circumstances, small_tokens: float, large_tokens: float) -> RowCosts:
    """Costs of one request, arrays of length 1, at the offers' prices and with that many expected output tokens, but no
    more than it allows.
    """
    small, large = circumstances.small, circumstances.large
    if (allowed := circumstances.max_tokens) is not None:
        small_tokens, large_tokens = min(small_tokens, allowed), min(large_tokens, allowed)
    return RowCosts(
        np.array([small.prompt_usd + small_tokens * small.output_usd_per_token]),
        np.array([large.prompt_usd + large_tokens * large.output_usd_per_token]),
        np.array([circumstances.route_usd]),
    )


@dataclass(frozen=True, slots=True)
class CostScale:
    """What the extra cost of a request is measured by: its mean in training, and the range that training saw.

    mean_extra: USD. low and high: bounds of a request's extra cost as a factor of the mean.
    """

    mean_extra: float
    low: float = REL_RANGE[0]
    high: float = REL_RANGE[1]

    @classmethod
    def of(cls, extra: Floats) -> "CostScale | None":
        """The scale of extra costs [n]; None where the large model is not dearer, so that cost gives no order.

        The range is that of the middle 98 % within REL_RANGE: dearer requests than training saw must not slip below a
        threshold that was proved without them.
        """
        mean = float(extra.mean())
        if mean <= 0:
            return None
        low, high = np.clip(np.quantile(extra / mean, [0.01, 0.99]), *REL_RANGE)
        return cls(mean, float(low), float(high))

    def rank(self, gain: Floats, extra: Floats) -> Floats:
        """Gains [n] in knapsack order (Dantzig, 1957): per unit of extra cost [n], in units of the mean.

        The cheapest way to a quality takes the requests with the most gain per dollar first. An expected loss (a
        negative gain) is multiplied instead: divided, the dearest loss would come first.
        """
        rel = np.clip(extra / self.mean_extra, self.low, self.high)
        ranked: Floats = np.where(gain >= 0, gain / rel, gain * rel)
        return ranked

    def rank_one(self, gain: float, extra: float) -> float:
        """`rank` of one gain."""
        rel = min(max(extra / self.mean_extra, self.low), self.high)
        return gain / rel if gain >= 0 else gain * rel
