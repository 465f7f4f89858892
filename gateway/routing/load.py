"""What the engine has to do, counted from this side of it: the gateway is its only client.

Every request is on one `Ticket` per model: opened when its prompt is sent to the engine, waiting until the first token,
decoding until the end. From the tickets come the load that a decision sees, and what the predictor of times to the
first token learns from. Both models run on one device, so the other model's work counts, too, in units of a model's
own: by the ratio of their parameters.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gateway.routing.catalogue import ServedModel
from router_model.ttft import LoadSnapshot, TtftModel


@dataclass(slots=True, eq=False)
class Ticket:
    """One request on one model. before: the load that it met; prompt_tokens: of its prompt, cached ones included.

    cached_tokens: expected at first, later what the engine said. predicted_s, ttft_s: from opening to first token.
    """

    alias: str
    prompt_tokens: int
    cached_tokens: int
    rows: int
    before: LoadSnapshot
    opened_s: float
    predicted_s: float | None
    ttft_s: float | None = None
    is_closed: bool = False

    @property
    def uncached_tokens(self) -> int:
        """Prompt tokens to compute."""
        return max(self.prompt_tokens - self.cached_tokens, 0)


@dataclass(slots=True)
class _Work:
    """One model's open tickets, summed."""

    size: float
    ttft: TtftModel = field(default_factory=TtftModel)
    waiting: int = 0
    running: int = 0
    prefill_tokens: int = 0
    decode_rows: int = 0


class Load:
    """The tickets of all models. overload_wait_s: see `pressure`. Used from the event loop only."""

    def __init__(
        self, models: Iterable[ServedModel], *, overload_wait_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._works = {model.alias: _Work(max(model.info.n_parameters, 1)) for model in models}
        self._overload_wait_s, self._clock = overload_wait_s, clock

    def submitted(self, alias: str, prompt_tokens: int, *, cached_tokens: int = 0, rows: int = 1) -> Ticket:
        """A prompt goes to the engine; close the ticket with `finished`, whatever happens.

        cached_tokens: how many of the prompt's are expected to be found; rows: answers to generate (`n`).
        """
        before = self.snapshot(alias)
        predicted = self._works[alias].ttft.predict(before, max(prompt_tokens - cached_tokens, 0))
        ticket = Ticket(alias, prompt_tokens, cached_tokens, rows, before, self._clock(), predicted)
        self._count_waiting(ticket, 1)
        return ticket

    def first_token(self, ticket: Ticket) -> None:
        """The first token of any of its answers came. Calling it again does nothing."""
        if ticket.ttft_s is not None or ticket.is_closed:
            return
        ticket.ttft_s = self._clock() - ticket.opened_s
        self._count_waiting(ticket, -1)
        self._count_running(ticket, 1)

    def finished(self, ticket: Ticket, *, cached_tokens: int | None = None) -> None:
        """It ended, in order or not; what it took is learned if it had a first token. Calling it again does nothing.

        cached_tokens: what the engine found of the prompt, None where it did not say.
        """
        if ticket.is_closed:
            return
        ticket.is_closed = True
        if ticket.ttft_s is None:
            self._count_waiting(ticket, -1)
            return
        self._count_running(ticket, -1)
        if cached_tokens is not None:
            ticket.cached_tokens = cached_tokens
        self._works[ticket.alias].ttft.observe(ticket.before, ticket.uncached_tokens, ticket.ttft_s)

    def snapshot(self, alias: str) -> LoadSnapshot:
        """What a request to this model meets now."""
        own = self._works[alias].size
        waiting = running = prefill = rows = 0.0
        for work in self._works.values():
            share = work.size / own
            waiting += share * work.waiting
            running += share * work.running
            prefill += share * work.prefill_tokens
            rows += share * work.decode_rows
        return LoadSnapshot(waiting=waiting, running=running, prefill_tokens=prefill, decode_rows=rows)

    def ttft_s(self, alias: str, prompt_tokens: int) -> float | None:
        """Predicted seconds to the first token of a request that computes that many prompt tokens; None: not enough was
        seen yet."""
        return self._works[alias].ttft.predict(self.snapshot(alias), prompt_tokens)

    def pressure(self, ttft_s: float | None) -> float:
        """How overloaded a model of that predicted wait is: 0 up to the bound, 1 from twice the bound."""
        if ttft_s is None:
            return 0.0
        return min(max(ttft_s / self._overload_wait_s - 1.0, 0.0), 1.0)

    @property
    def is_idle(self) -> bool:
        """Whether the engine has nothing to do."""
        return all(work.waiting == work.running == 0 for work in self._works.values())

    def counts(self) -> dict[str, float]:
        """For decision rows: by model what waits, what decodes, and the prompt tokens that are to be computed."""
        found: dict[str, float] = {}
        for alias, work in self._works.items():
            found[f"{alias}_waiting"] = work.waiting
            found[f"{alias}_running"] = work.running
            found[f"{alias}_prefill_tokens"] = work.prefill_tokens
        return found

    def _count_waiting(self, ticket: Ticket, sign: int) -> None:
        work = self._works[ticket.alias]
        work.waiting += sign
        work.prefill_tokens += sign * ticket.uncached_tokens

    def _count_running(self, ticket: Ticket, sign: int) -> None:
        work = self._works[ticket.alias]
        work.running += sign
        work.decode_rows += sign * ticket.rows
