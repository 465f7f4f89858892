"""What each model would take for a request, as far as it is known at the decision: prices, warm prefixes, waits.

Prices come from the table, warm prefixes from what the conversation's earlier turns left in the cache (of the small
model's prompt the engine says it, once it is prefilled), times to the first token from the load. A time counts from the
request's arrival, as the client sees it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from engine.messages import Prepared
from gateway.prices import PriceTable
from gateway.routing.catalogue import Catalogue
from gateway.routing.load import Load, Ticket
from gateway.routing.question import Question
from router_model.circumstances import Circumstances, Offer

_TOKENS = 1e6
"""Prices are for a million tokens."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """The router's prefill of a request on the small model, with its ticket."""

    prepared: Prepared
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Offers:
    """Makes the circumstances of decisions."""

    catalogue: Catalogue
    prices: PriceTable
    load: Load
    clock: Callable[[], float] = time.monotonic

    def circumstances(self, question: Question, prefill: Prefill | None = None) -> Circumstances:
        """prefill: the one that the decision reads; None before it, or where it reads none."""
        elapsed_s = self.clock() - question.arrived_s
        large_warm = self.warm_tokens(question, "large")
        large_wait_s = self._wait_s(question, "large", large_warm)
        if prefill is None:
            small_warm = self.warm_tokens(question, "small")
            small_ttft_s = _after(elapsed_s, self._wait_s(question, "small", small_warm))
        else:
            predicted_s = prefill.ticket.predicted_s  # from the beginning of the prefill, which is behind us
            began_s = prefill.ticket.opened_s - question.arrived_s
            small_ttft_s = None if predicted_s is None else max(elapsed_s, began_s + predicted_s)
            small_warm = prefill.prepared.cached_tokens
        small = self._offer(question, "small", small_warm, small_ttft_s)
        large = self._offer(question, "large", large_warm, _after(elapsed_s, large_wait_s))
        return Circumstances(
            small=small,
            large=large,
            route_usd=0.0 if prefill is None else small.prompt_usd,
            pressure=self.load.pressure(large_wait_s),
            max_tokens=question.max_tokens,
        )

    def warm_tokens(self, question: Question, alias: str) -> int:
        """Prompt tokens that the model has in its cache by all that is known: whole pages of the last turn's prompt."""
        past = question.session.past
        if past is None or alias not in question.prompts:
            return 0
        page = self.catalogue[alias].info.block_size
        # The last token is computed in any case: its logits are the answer's first.
        known = min(past.warm_tokens(alias, question.salt), len(question.prompts[alias]) - 1)
        return known // page * page

    def _wait_s(self, question: Question, alias: str, warm_tokens: int) -> float | None:
        if alias not in question.prompts:
            return None
        return self.load.ttft_s(alias, len(question.prompts[alias]) - warm_tokens)

    def _offer(self, question: Question, alias: str, warm_tokens: int, ttft_s: float | None) -> Offer:
        price, n_tokens = self.prices.price(alias), len(question.prompts.get(alias, ()))
        cold = (n_tokens - warm_tokens) * price.input
        return Offer(
            prompt_usd=(cold + warm_tokens * price.cached_input) / _TOKENS,
            output_usd_per_token=question.n * price.output / _TOKENS,
            ttft_s=ttft_s,
            warm_tokens=warm_tokens,
            warm_usd=warm_tokens * max(price.input - price.cached_input, 0.0) / _TOKENS,
        )


def _after(elapsed_s: float, wait_s: float | None) -> float | None:
    return None if wait_s is None else elapsed_s + wait_s
