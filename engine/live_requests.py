"""The requests of one model that are not over, and what their clients get to see of them."""

from collections.abc import Callable, Iterable

import torch

from engine.generation import Generation
from engine.guarded_matcher import GrammarFault
from engine.messages import Event, Failed, failed
from engine.openings import Openings
from engine.request import EngineError, FinishReason, Request
from engine.scheduler import Scheduler
from engine.stats import Counters

__all__ = ["LiveRequests"]


class LiveRequests:
    """Who is served. A prefill is a request without a generation, until it is submitted; then the generation has an id
    of its own.

    requests, generations: by request id; by_submit: generations by their own. kept: by request id, the logits [vocab]
    of a prepared prompt's last token. openings: answers that were begun with a prefill.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        openings: Openings,
        counters: Counters,
        *,
        forces: bool,
        on_end: Callable[[Generation], None],
    ) -> None:
        """forces: whether tokens that a grammar leaves no choice about are taken at once. on_end: is told of every
        generation that is forgotten."""
        self._scheduler, self.openings, self._counters = scheduler, openings, counters
        self._forces, self._on_end = forces, on_end
        self.requests: dict[str, Request] = {}
        self.generations: dict[str, Generation] = {}
        self.by_submit: dict[str, Generation] = {}
        self.kept: dict[str, torch.Tensor] = {}

    def begin(self, generation: Generation) -> None:
        """Let a live request generate."""
        self.generations[generation.request.id] = self.by_submit[generation.id] = generation

    def holds(self, handle: str) -> bool:
        """Whether `submit` could continue this prefill."""
        return handle in self.requests and handle not in self.generations

    def knows(self, id: str) -> bool:
        """Whether a live request has this id, as a submit or as a prefill."""
        return id in self.requests or id in self.by_submit

    def client_id(self, request_id: str) -> str:
        """What the client calls a request: a generation that continues a prefill has an id of its own."""
        generation = self.generations.get(request_id)
        return request_id if generation is None else generation.id

    def force(self, generation: Generation, faults: dict[str, GrammarFault]) -> None:
        """Commit what the grammar leaves no choice about.

        Sampling could not have chosen otherwise, so the output is what it would have been; only the forward passes
        between those tokens are saved, and their keys and values are computed as one chunk. faults: by request id, what
        a grammar's backend raised; a new one is added.
        """
        request_id, matcher = generation.request.id, generation.matcher
        if matcher is None or not self._forces or request_id in faults:
            return
        try:
            while generation.reason is None and generation.n_left > 0 and (token := matcher.only_token()) is not None:
                generation.accept_forced(token)
                self._counters.tokens_forced += 1
        except GrammarFault as fault:
            faults[request_id] = fault

    def events_of(self, generations: Iterable[Generation]) -> list[Event]:
        """What is new for the clients of these; those that are over are forgotten."""
        events: list[Event] = []
        for generation in generations:
            if generation.id not in self.by_submit:
                continue  # it failed in this step
            if delta := generation.take_delta():
                self._counters.tokens_generated += len(delta.token_ids)
                events.append(delta)
            if generation.reason is None:
                continue
            try:
                events.append(generation.finished())
                self._counters.finished[generation.reason.value] += 1
                self.forget(generation.request)
            except GrammarFault as fault:
                events.append(self.fail(generation, fault))
        return events

    def fail(self, generation: Generation, fault: EngineError) -> Failed:
        """End a request by an error of its own."""
        generation.end(FinishReason.ERROR)  # a step that runs ahead is not to ask its matcher again
        self._counters.finished[FinishReason.ERROR.value] += 1
        self.forget(generation.request)
        return failed(generation.id, fault)

    def forget(self, request: Request) -> None:
        """Drop all that is kept of a request, and give its blocks back."""
        self._scheduler.finish(request)
        del self.requests[request.id]
        self.kept.pop(request.id, None)
        self.openings.drop(request.id)
        generation = self.generations.pop(request.id, None)
        if generation is not None:
            del self.by_submit[generation.id]
            self._on_end(generation)
