"""Evidence: held-out predictions beside what really came of them, kept with a router so that any wish can be answered.

Thresholds, bounds and calibration all come from here: for another price table, another wish or new labels nothing has
to be trained again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from router_model.costs import CostScale, Prices, RowCosts, row_costs
from router_model.escalation import second_ranks
from router_model.logistic import Floats
from router_model.model import Predictions
from router_model.options import Cascade
from router_model.recalibration import take
from router_model.score import EDGE
from router_model.thresholds import QualityCurve, fit_curve

PREFIX = "evidence."
"""Of the names of its arrays in an artefact."""


class EvidenceMeta(msgspec.Struct, frozen=True, kw_only=True):
    """What of the evidence is no array.

    routes: names that `route_codes` count through. has_prefill: the router reads the small model's prefill. seed: of
    the bootstrap.
    """

    routes: tuple[str, ...]
    has_prefill: bool
    seed: int


@dataclass(frozen=True, eq=False, kw_only=True)
class PricedRows:
    """Evidence at one price table.

    costs: of the n rows as they came. ranks float64 [n]. second_ranks float64 [n]: of the large model's gain over the
    small one's answer, by all that asking it then costs, NaN where there was no answer. scale: what extra costs are
    measured by; None where gains alone rank: without expected tokens, or where the large model is not dearer.
    answer_extra: least and most, of 98 % of the rows, that the large model's answer was expected to cost beyond the
    small one's, USD.
    """

    costs: RowCosts
    ranks: Floats
    second_ranks: Floats
    scale: CostScale | None = None
    answer_extra: tuple[float, float] = (0.0, 0.0)

    @cached_property
    def mean_extra(self) -> float:
        """What the large model cost beyond the small one, USD per row."""
        return float(self.costs.extra.mean())


@dataclass(frozen=True, eq=False, kw_only=True)
class Evidence:
    """n rows on which both models were graded.

    held_out: predictions by models that did not see the row. scores float64 [n, 2]: small, large. groups int [n].
    route_codes int [n] into meta.routes. tokens float64 [n, 3]: prompt, output of small, of large; NaN is not known.
    right float64 [n]: held-out probability that the small model's ANSWER is right, NaN where there was none. failed
    bool [n]: it was none (`escalation.has_failed`), False where there was no answer, or nobody noted it. weights
    float64 [n]: what the row counts in every curve, 1 on average: one over the probability by which it came to be, and
    what its label is worth.

    ValueError: no rows, or columns of different lengths.
    """

    meta: EvidenceMeta
    held_out: Predictions
    scores: Floats
    groups: NDArray[np.intp]
    route_codes: NDArray[np.intp]
    tokens: Floats
    right: Floats
    failed: NDArray[np.bool_]
    weights: Floats
    _curves: dict[tuple[Prices | None, bool, Cascade], QualityCurve] = field(
        default_factory=dict, init=False, repr=False
    )
    _priced: dict[Prices, PricedRows] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check that there are rows, and as many of each."""
        columns = (self.scores, self.groups, self.route_codes, self.tokens, self.right, self.failed, self.weights)
        lengths = {len(self.held_out.score), *map(len, columns)}
        if len(lengths) > 1 or not len(self.scores):
            raise ValueError("evidence needs rows on which both models were graded, and columns of one length")

    @property
    def routes(self) -> list[str]:
        """Each row's route."""
        return [self.meta.routes[code] for code in self.route_codes]

    @cached_property
    def mean_tokens(self) -> tuple[float | None, float | None]:
        """Mean output tokens of small and large, None where none were counted."""
        known = [column[np.isfinite(column)] for column in (self.tokens[:, 1], self.tokens[:, 2])]
        small, large = (float(column.mean()) if column.size else None for column in known)
        return small, large

    def priced(self, prices: Prices) -> PricedRows:
        """What the rows cost at those prices, computed once per price table."""
        if prices not in self._priced:
            self._priced[prices] = self._price(prices)
        return self._priced[prices]

    def ranks(self, prices: Prices | None) -> Floats:
        """The rows' ranks [n]: what a decision compares with the threshold."""
        return self.held_out.score if prices is None else self.priced(prices).ranks

    def second_ranks(self, prices: Prices | None, cascade: Cascade) -> Floats | None:
        """What a second chance compares with the threshold, where the small model answered at first: ranks [n], inf
        for a failure and -inf where there is none to be had. None: no row has one.
        """
        if cascade is Cascade.CONFIDENCE:
            gains = self._second_gains if prices is None else self.priced(prices).second_ranks
        else:
            gains = np.full(len(self.failed), np.nan)
        failed = np.zeros_like(self.failed) if cascade is Cascade.OFF else self.failed
        if not failed.any() and not np.isfinite(gains).any():
            return None
        return second_ranks(gains, failed)

    def curve(
        self, prices: Prices | None = None, *, is_guarded: bool = True, cascade: Cascade = Cascade.OFF
    ) -> QualityCurve:
        """The curve of the ranking at those prices, computed once per price table and cascade.

        is_guarded: rows out of domain go to the large model whatever the threshold, as they do for quality targets.
        cascade: the second chance that every small answer gets. Where the evidence knows nothing of answers, that is
        none: more is never promised than was seen.
        """
        key = prices, is_guarded, cascade
        if key not in self._curves:
            self._curves[key] = fit_curve(
                self.ranks(prices),
                self.scores,
                self.groups,
                np.random.default_rng(self.meta.seed),
                costs=None if prices is None else self.priced(prices).costs,
                always=self.held_out.ood > EDGE if is_guarded else None,
                second=self.second_ranks(prices, cascade),
                weights=self.weights,
            )
        return self._curves[key]

    @property
    def _second_gains(self) -> Floats:
        """The large model's expected gain over the small one's answer, NaN where there was none."""
        return self.held_out.p_large - self.right

    def _price(self, prices: Prices) -> PricedRows:
        has_prefill, gains = self.meta.has_prefill, self.held_out.score
        costs = row_costs(prices, self.tokens, has_prefill=has_prefill)
        small, large = self.held_out.small_tokens, self.held_out.large_tokens
        if small is None or large is None:
            return PricedRows(costs=costs, ranks=gains, second_ranks=self._second_gains)
        # The tokens that the router expected are all that a decision knows.
        expected = np.stack([self.tokens[:, 0], small, large], axis=1)
        before = row_costs(prices, expected, has_prefill=has_prefill)
        extra = before.extra
        scale = CostScale.of(extra)
        answers = large * prices.large.output_usd - small * prices.small.output_usd
        least, most = np.quantile(answers, [0.01, 0.99])
        ranks, second_ranks = gains, self._second_gains
        if scale is not None:
            # The small answer is paid for by then, so that a second one costs all that the large model does.
            ranks, second_ranks = scale.rank(gains, extra), scale.rank(second_ranks, before.large)
        return PricedRows(
            costs=costs,
            ranks=ranks,
            second_ranks=second_ranks,
            scale=scale,
            answer_extra=(float(least), float(most)),
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but `meta`, by name."""
        one = self.held_out
        arrays: dict[str, NDArray[Any]] = {
            "p_small": one.p_small,
            "p_large": one.p_large,
            "ood": one.ood,
            "score": one.score,
            "scores": self.scores,
            "groups": self.groups,
            "route_codes": self.route_codes,
            "tokens": self.tokens,
            "right": self.right,
        }
        if one.small_tokens is not None and one.large_tokens is not None:
            arrays |= {"small_tokens": one.small_tokens, "large_tokens": one.large_tokens}
        if self.failed.any():
            # Artefacts from before this column, and those of rows without answers, lack it and keep their hash.
            arrays["failed"] = self.failed
        if (self.weights != 1).any():
            # Likewise for rows that all count the same.
            arrays["weights"] = self.weights
        return {
            PREFIX + name: array.astype(np.float32 if array.dtype.kind == "f" else np.int32)
            for name, array in arrays.items()
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], meta: EvidenceMeta) -> "Evidence":
        """The opposite of `arrays`. KeyError: one is missing; ValueError: they do not fit together."""
        own = {name.removeprefix(PREFIX): array for name, array in arrays.items() if name.startswith(PREFIX)}
        floats: dict[str, Floats] = {name: array.astype(np.float64) for name, array in own.items()}
        groups, codes = own["groups"].astype(np.int64), own["route_codes"].astype(np.int64)
        held_out = Predictions(
            floats["p_small"],
            floats["p_large"],
            floats["ood"],
            floats["score"],
            floats.get("small_tokens"),
            floats.get("large_tokens"),
        )
        return cls(
            meta=meta,
            held_out=held_out,
            scores=floats["scores"],
            groups=groups,
            route_codes=codes,
            tokens=floats["tokens"],
            right=floats["right"],
            failed=own["failed"] > 0 if "failed" in own else np.zeros(len(groups), np.bool_),
            weights=floats.get("weights", np.ones(len(groups))),
        )


def evidence_of(
    held_out: Predictions,
    scores: Floats,
    groups: NDArray[np.intp],
    *,
    routes: Sequence[str] = (),
    tokens: Floats | None = None,
    right: Floats | None = None,
    failed: NDArray[np.bool_] | None = None,
    weights: Floats | None = None,
    has_prefill: bool = False,
    seed: int = 0,
) -> Evidence:
    """The evidence in held-out predictions of n rows: those on which both scores [n, 2] are known, and which count.

    tokens [n, 3], right [n], failed [n], weights [n] and routes [n] may be left out. ValueError: there is no such row.
    """
    counts = np.ones(len(scores)) if weights is None else weights
    both = np.flatnonzero(np.isfinite(scores).all(axis=1) & (counts > 0))
    if not both.size:
        raise ValueError(
            "no row that counts has the scores of both models, so no threshold can be computed: run the shadow job"
        )
    names = tuple(sorted(set(routes))) or ("",)
    codes = np.array([names.index(route) for route in routes] or [0] * len(scores), np.int64)
    n = len(scores)
    kept_tokens = np.full((n, 3), np.nan) if tokens is None else tokens
    return Evidence(
        meta=EvidenceMeta(routes=names, has_prefill=has_prefill, seed=seed),
        held_out=_rounded(take(held_out, both)),
        scores=_single(scores[both]),
        groups=np.unique(groups[both], return_inverse=True)[1].astype(np.int64),
        route_codes=codes[both],
        tokens=_single(kept_tokens[both]),
        right=_single((np.full(n, np.nan) if right is None else right)[both]),
        failed=(np.zeros(n, np.bool_) if failed is None else failed)[both],
        weights=_single(counts[both] / counts[both].mean()),
    )


def _rounded(one: Predictions) -> Predictions:
    """In the precision that an artefact keeps, so that a loaded router has the very thresholds of the saved one."""
    return Predictions(
        _single(one.p_small),
        _single(one.p_large),
        _single(one.ood),
        _single(one.score),
        None if one.small_tokens is None else _single(one.small_tokens),
        None if one.large_tokens is None else _single(one.large_tokens),
    )


def _single(values: Floats) -> Floats:
    return values.astype(np.float32).astype(np.float64)
