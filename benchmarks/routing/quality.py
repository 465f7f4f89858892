"""Quality at equal cost: the router against chance and against the length of the prompt, on requests nobody trained on.

Every ranking sends requests to the large model from the top down; what that costs is the recorded work at the prices of
the pair. The router pays the small model's prefill for what it sends to the large one, but for the clear cases that it
sends there before; its rivals read no prefill. Points are percentage points of exact match, averaged over the cost axis
from all small to all large.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_model.artefact import RouterArtefact
from router_model.circumstances import Circumstances, Offer
from router_model.costs import Prices, row_costs
from router_model.evaluation import Draws, Measured, bootstrap, from_draws
from router_model.features import Kind, extract_cheap, extract_outcome
from router_model.folds import group_numbers
from router_model.heads import LinearHeads, fit_heads
from router_model.labels import labels_of
from router_model.logistic import Floats, sigmoid
from router_model.outcomes import Outcome
from router_model.policy import Policy
from router_model.training import forest_size, train_features

GRID = np.linspace(0, 1, 101)
RANDOM, LENGTH = "random", "prompt length"
_L2 = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Outcomes with what they cost. tokens float64 [n, 3]: prompt, output of small, output of large."""

    outcomes: Sequence[Outcome]
    scores: Floats
    tokens: Floats
    prices: Prices
    draws: Draws

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], prices: Prices) -> "Rows":
        """With the draws that all comparisons share."""
        tokens = [(one.facts.prompt_tokens, one.small_tokens, one.large_tokens) for one in outcomes]
        groups = group_numbers([one.group for one in outcomes])
        return cls(
            outcomes,
            labels_of(outcomes).scores,
            np.array([[np.nan if n is None else n for n in row] for row in tokens], np.float64),
            prices,
            bootstrap(groups, np.random.default_rng(0)),
        )

    def taken(self, mask: NDArray[np.bool_]) -> "Rows":
        """Some of the rows, with draws of their own."""
        return Rows.of([one for one, is_in in zip(self.outcomes, mask, strict=True) if is_in], self.prices)

    def frontier(self, ranking: "Ranking | None", rows: NDArray[np.intp]) -> Floats:
        """Quality at each cost of GRID, from all small (0) to all large (1), where the first of a ranking go to the
        large model; None sends them at random."""
        costs = row_costs(self.prices, self.tokens, has_prefill=ranking is not None and ranking.early is not None)
        small, large = self.scores[rows].T
        base, whole = costs.small[rows].mean(), costs.large[rows].mean()
        if ranking is None:
            mixed: Floats = small.mean() + GRID * (large.mean() - small.mean())
            return mixed
        ranked = rows[np.argsort(-ranking.ranks[rows], kind="stable")]
        quality = small.mean() + np.cumsum(self.scores[ranked, 1] - self.scores[ranked, 0]) / len(rows)
        extra = np.cumsum(costs.extra[ranked])
        if ranking.early is not None:
            is_early = np.tril(ranking.early[ranked] >= ranking.ranks[ranked][:, None])  # [cuts, rows]
            extra = extra - is_early @ costs.route[ranked]
        spent = extra / len(rows) / (whole - base)
        found: Floats = np.interp(GRID, np.append(0.0, spent), np.append(small.mean(), quality))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """ranks [n]: what is compared with a threshold. early [n]: what of it is known before the prefill, at least; None
    where no prefill is read. A row goes up early at every threshold that this reaches."""

    ranks: Floats
    early: Floats | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Points of exact match of one ranking over another. over_axis: mean over all costs; at: at so much of the cost
    axis."""

    name: str
    rival: str
    over_axis: Measured
    at: dict[str, Measured]

    def __str__(self) -> str:
        parts = [f"{share}: {_points(found)}" for share, found in self.at.items()]
        return f"{_points(self.over_axis)} over the cost axis ({', '.join(parts)})"


def compare(rows: Rows, rankings: Mapping[str, Ranking], name: str, rivals: Sequence[str]) -> list[Comparison]:
    """One ranking against others on the same draws. rankings: by name, without RANDOM."""
    frontiers = {
        each: np.array([rows.frontier(rankings.get(each), drawn) for drawn in rows.draws]) for each in (name, *rivals)
    }
    found = []
    for rival in rivals:
        gain = 100 * (frontiers[name] - frontiers[rival])
        at = {f"{share:.0%}": from_draws(gain[:, round(100 * share)]) for share in (0.25, 0.5, 0.75)}
        found.append(Comparison(name, rival, from_draws(gain.mean(axis=1)), at))
    return found


def router_ranking(artefact: RouterArtefact, rows: Rows) -> Ranking:
    """As the policy decides: by gain and expected cost, and early by the front model's lower bound."""
    policy = Policy(artefact=artefact, epsilon=0.0, prices=rows.prices)
    ranks, early = list[float](), list[float]()
    for one, (n_prompt, _, _) in zip(rows.outcomes, rows.tokens.tolist(), strict=True):
        offers = [
            Offer(prompt_usd=n_prompt * price.input_usd, output_usd_per_token=price.output_usd)
            for price in (rows.prices.small, rows.prices.large)
        ]
        known = Circumstances(small=offers[0], large=offers[1], route_usd=offers[0].prompt_usd)
        ranks.append(policy.appraiser.appraise(extract_outcome(one, artefact.kind), one.route, known).rank_low)
        early.append(policy.appraiser.appraise_early(extract_cheap(one.text, one.facts), known).rank_low)
    return Ranking(np.array(ranks), np.array(early))


def length_ranking(rows: Rows) -> Ranking:
    """The longer prompts to the large model."""
    return Ranking(rows.tokens[:, 0])


def feature_sets(training: Sequence[Outcome], rows: Rows) -> dict[str, Ranking]:
    """Expected gains of the large model by routers that read different parts of a request, trained on the same
    outcomes. `state, free`: the same as `state`, were the small model's prefill for nothing."""
    labels = labels_of(training)
    cheap, unseen_cheap = (_cheap(outcomes) for outcomes in (training, rows.outcomes))
    mean, spread = cheap.mean(axis=0), cheap.std(axis=0) + 1e-6
    encoded = (cheap - mean) / spread
    heads = fit_heads(encoded, labels, LinearHeads.fit(encoded, labels, _L2), forest_size(len(training)), _L2, 0)
    outputs = heads.outputs((unseen_cheap - mean) / spread)
    halves = (sigmoid(outputs.linear) + outputs.forest) / 2
    found = {"cheap": Ranking(halves[:, 1] - halves[:, 0])}
    for name, kind in (("state", Kind.STATE), ("text", Kind.TEXT)):
        model = train_features([extract_outcome(one, kind) for one in training], training).model
        found[name] = Ranking(model.predict([extract_outcome(one, kind) for one in rows.outcomes]).score)
    never = np.full(len(rows.outcomes), -np.inf)
    return found | {"state, free": found["state"], "state": Ranking(found["state"].ranks, never)}


def _cheap(outcomes: Sequence[Outcome]) -> Floats:
    return np.array([extract_cheap(one.text, one.facts).cheap for one in outcomes], np.float64)


def _points(found: Measured) -> str:
    if found.value is None or found.lower is None or found.upper is None:
        return "unknown"
    return f"{found.value:+.1f} [{found.lower:+.1f}, {found.upper:+.1f}]"
