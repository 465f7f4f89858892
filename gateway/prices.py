"""What a request costs: a versioned price table, and the sum over everything that was computed for it.

A routed request pays for more than its answer: the router's prefill on the small model (unless the answer continues
it), an answer that was discarded when the request escalated, and the tokens that the small model drafted for the large.
Tokens drafted from texts (the prompt's own, a prediction, what a grammar prescribes) are computed by nobody, and free.
"""

import enum
from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

Price = Annotated[float, Meta(ge=0, description="USD per million tokens")]


class WorkKind(enum.StrEnum):
    """Why tokens were computed: the answer itself, the router's prefill, a discarded answer, or a draft."""

    ANSWER = "answer"
    ROUTE = "route"
    DISCARDED = "discarded"
    DRAFT = "draft"


class ModelPrice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model's prices in USD per million tokens: prompt tokens, prompt tokens found in the cache, generated tokens."""

    input: Price
    cached_input: Price
    output: Price


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens that one model computed for a request.

    input_tokens: prompt tokens that were computed; cached_tokens: those found in the cache, not among input_tokens;
    output_tokens: generated tokens (for a draft: proposed tokens, accepted or not).
    """

    model: str
    kind: WorkKind
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


class RequestCost(msgspec.Struct, frozen=True, kw_only=True):
    """A request's cost in USD, in all and by kind of work, and what the answer would have cost on the large model.

    cost_if_large_usd assumes that the large model would have written as many tokens and found as much of the prompt in
    its cache: an estimate when the small model answered, exact when the large one did. It has no drafts in it.
    """

    version: str
    total_usd: float
    answer_usd: float
    route_usd: float
    discarded_usd: float
    draft_usd: float
    cost_if_large_usd: float


class PriceTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prices by model name. Change `version` whenever a price changes: it is stored with every request."""

    version: str
    models: dict[str, ModelPrice]

    def price(self, model: str) -> ModelPrice:
        """The model's prices. Raises LookupError that says which names have one."""
        try:
            return self.models[model]
        except KeyError:
            known = ", ".join(sorted(self.models))
            raise LookupError(f"no price for model {model!r}: add [prices.models.{model}] (known: {known})") from None

    def cost_usd(self, work: Work) -> float:
        """What one piece of work costs. Raises LookupError when the model has no price."""
        price = self.price(work.model)
        micro_usd = (
            work.input_tokens * price.input
            + work.cached_tokens * price.cached_input
            + work.output_tokens * price.output
        )
        return micro_usd / 1e6

    def request_cost(self, work: Iterable[Work], *, large: str = "large") -> RequestCost:
        """The whole request's cost; `large` names the model that the comparison is made with.

        Raises LookupError when a model has no price.
        """
        by_kind = dict.fromkeys(WorkKind, 0.0)
        if_large = 0.0
        for piece in work:
            by_kind[piece.kind] += self.cost_usd(piece)
            if piece.kind is WorkKind.ANSWER:
                if_large += self.cost_usd(msgspec.structs.replace(piece, model=large))
        return RequestCost(
            version=self.version,
            total_usd=sum(by_kind.values()),
            answer_usd=by_kind[WorkKind.ANSWER],
            route_usd=by_kind[WorkKind.ROUTE],
            discarded_usd=by_kind[WorkKind.DISCARDED],
            draft_usd=by_kind[WorkKind.DRAFT],
            cost_if_large_usd=if_large,
        )


def bundled_prices() -> PriceTable:
    """Prices for the bundled pair. No one sells it: they are notional, in the ratio of their parameters, 1 to 6.9."""
    return PriceTable(
        version="2026-11-28",
        models={
            "small": ModelPrice(input=0.02, cached_input=0.005, output=0.08),
            "large": ModelPrice(input=0.138, cached_input=0.0345, output=0.552),
        },
    )
