"""The rounds of the draft model: each gives a token to every draft that is still worth one.

    step          round 1     round 2     round 3
    request A     the         cat         sat
    request B     {           "name":     .             forced text joins at once, and costs no round
    request C     I           .           .             the third token is too unlikely to be worth a round

Before every round the outlook of the step is asked whether it pays.
"""

import time
from collections.abc import Sequence
from math import exp

from engine.guarded_matcher import GrammarFault
from engine.sampling_row import GREEDY_BELOW
from engine.speculation.config import SpeculationConfig
from engine.speculation.controller import Controller
from engine.speculation.draft_model import Asked, DraftModel, Guess
from engine.speculation.draft_writer import DraftWriter
from engine.speculation.growing import Branch, Growing, ends
from engine.speculation.proposer import Source
from engine.stats import Counters

__all__ = ["ModelRounds"]

CATCH_UP = 512
"""Tokens of a prompt that the draft model computes at once, at most."""
FEW_MISSING = 32
"""So many tokens the draft model computes in its next round, beside the draft."""
PATIENCE = 16
"""Steps until it is asked again whether a round of the draft model pays, or a prompt on it."""


class ModelRounds:
    """One draft model and when it is asked: `may_begin`, then `draft`, in each step."""

    def __init__(
        self,
        model: DraftModel,
        writer: DraftWriter,
        config: SpeculationConfig,
        controller: Controller,
        counters: Counters,
    ) -> None:
        """writer: of the drafts that the model's tokens go to. counters: of the target."""
        self.model, self._writer, self._config = model, writer, config
        self._controller, self._counters = controller, counters
        self._n_streams = 0
        self._refused_for = self._refusals_left = 0

    def may_begin(self, n_streams: int) -> bool:
        """Whether the model is thought of in a step of so many requests: not soon after one in which it did not pay,
        unless another number of requests is served now."""
        self._n_streams = n_streams
        if n_streams != self._refused_for:
            self._refusals_left = 0
        self._refusals_left -= 1
        return self._refusals_left < 0

    def draft(self, growing: Sequence[Growing], faults: dict[str, GrammarFault]) -> None:
        """Let these drafts grow by what the model writes, as long as that pays. faults: by request id, what a grammar's
        backend raised; theirs are passed over, and new ones are added."""
        model = self.model
        active = self._caught_up([each for each in growing if each.generation.request.id not in faults])
        if not active and not any(each.memory.catches_up for each in growing):
            self._refuse()
        is_first = True
        while active:
            if not self._pays_round(active, is_first=is_first):
                if is_first:
                    self._refuse()
                return
            asked = list[Asked]()
            for each in list(active):
                try:
                    asked.append(self._ask(each))
                except GrammarFault as fault:
                    faults[each.generation.request.id] = fault
                    active.remove(each)
            if not asked:
                return
            began = time.perf_counter()
            guesses = model.round(asked)
            seconds = time.perf_counter() - began
            self._writer.outlook.spend(seconds)
            self._counters.draft_rounds += 1
            n_masked = sum(each.is_masked for each in active)
            self._controller.observe_round(len(active), model.n_computed, n_masked, seconds)
            still = list[Growing]()
            for each, guess in zip(active, guesses, strict=True):
                try:
                    if guess is not None and self._go_on(each, guess):
                        still.append(each)
                except GrammarFault as fault:
                    faults[each.generation.request.id] = fault
            active, is_first = [] if self._writer.is_probe else still, False
            self._writer.is_probe = False

    def _refuse(self) -> None:
        self._refused_for, self._refusals_left = self._n_streams, PATIENCE

    def _caught_up(self, growing: Sequence[Growing]) -> list[Growing]:
        """The requests for which the draft model can go on at once; at most one other is brought closer to that."""
        model, ready, may_catch_up = self.model, list[Growing](), True
        for each in growing:
            request, memory = each.generation.request, each.memory
            if len(each.drafted) >= each.room or memory.n_patient > 0:
                memory.n_patient = max(0, memory.n_patient - 1)
                continue
            missing = model.n_missing(request)
            if missing is None:
                continue
            if missing > FEW_MISSING:
                if not may_catch_up:
                    continue
                may_catch_up = False
                if not memory.catches_up or not model.has_pages(request):
                    memory.catches_up = self._is_worth_catching_up(each, missing, len(growing))
                n = self._chunk(missing, len(growing))
                if not memory.catches_up or not model.catch_up(request, n):
                    memory.catches_up, memory.n_patient = False, PATIENCE
                    continue
                missing = model.n_missing(request)
            if missing is None or missing > FEW_MISSING:
                continue
            if model.has_pages(request) or model.catch_up(request, missing):
                ready.append(each)
            else:
                memory.n_patient = PATIENCE
        return ready

    def _is_worth_catching_up(self, growing: Growing, missing: int, n_streams: int) -> bool:
        if not self._config.is_adaptive:
            return True
        controller = self._controller
        if controller.worth_catching_up(missing, growing.generation.n_left, n_streams):
            return True
        return controller.may_probe(controller.round_seconds(1, missing, 0))

    def _chunk(self, missing: int, n_streams: int) -> int:
        """How many tokens of a prompt to compute while others wait: no longer than their step takes."""
        n, seconds = min(missing, CATCH_UP), self._controller.round_seconds
        while n_streams > 1 and n > FEW_MISSING and seconds(1, n, 0) > self._writer.outlook.seconds:
            n //= 2
        return n

    def _n_tokens(self, active: Sequence[Growing], *, is_first: bool) -> int:
        """About how many tokens a round computes: those of the last draft's correction, too, in the first one."""
        return len(active) * (2 if is_first else 1)

    def _pays_round(self, active: list[Growing], *, is_first: bool) -> bool:
        """Whether another round pays; those that are the least worth it are taken out first."""
        if not self._config.is_adaptive:
            return True
        acceptance, source = self._controller.acceptance, Source.DRAFT_MODEL
        gains = {id(each): each.reach * acceptance.expected(source, each.memory.trust(source)) for each in active}
        least = self._writer.outlook.least_reach(is_masked=True)
        active[:] = [each for each in active if gains[id(each)] >= least] or active[:1]
        n_masked = sum(each.is_masked for each in active)
        gain = sum(gains[id(each)] for each in active)
        seconds = self._controller.round_seconds(len(active), self._n_tokens(active, is_first=is_first), n_masked)
        if self._writer.outlook.worth(gain, seconds, n_nodes=len(active), n_masked=n_masked):
            return True
        if not is_first:
            return False
        best = max(active, key=lambda each: gains[id(each)])
        seconds = self._controller.round_seconds(1, self._n_tokens([best], is_first=True), best.is_masked)
        loss_s = self._writer.outlook.loss(gains[id(best)], seconds, n_nodes=1, n_masked=best.is_masked)
        self._writer.is_probe = self._controller.may_probe(loss_s)
        active[:] = [best]
        return self._writer.is_probe

    def _ask(self, growing: Growing) -> Asked:
        generation = growing.generation
        if generation.matcher is not None and growing.walk is None:
            self._writer.lead(growing)
        mask = None if growing.walk is None else growing.walk.mask
        row = generation.sampling_row(growing.drafted, mask, growing.memory.draft_params)
        return Asked(generation.request, growing.drafted, row)

    def _go_on(self, growing: Growing, guess: Guess) -> bool:
        """Take what the draft model guessed, and what follows from it for nothing; False where the draft ends."""
        belief, depth, parent = exp(min(0.0, guess.logprob.logprob)), len(growing.drafted), growing.tip
        for token, logprob in guess.logprob.top[: self._config.width]:
            if token != guess.token:
                branch = Branch(depth, parent, (token,), (exp(logprob),), Source.DRAFT_MODEL)
                growing.branches.append(branch)
        if guess.distribution is None or growing.generation.params.temperature < GREEDY_BELOW:
            if not self._writer.append(growing, guess.token, belief, Source.DRAFT_MODEL):
                return False
        elif not self._append_drawn(growing, guess, belief):
            return False
        forced = b""
        if growing.walk is not None and Source.FORCED in self._config.sources:
            forced = growing.walk.forced_text()
        trust = growing.memory.trust(Source.DRAFT_MODEL)
        self._writer.extend_freely(growing, forced, self._controller.acceptance.expected(Source.DRAFT_MODEL, trust))
        return len(growing.drafted) < growing.room

    def _append_drawn(self, growing: Growing, guess: Guess, belief: float) -> bool:
        """Append a token that is verified by its ratio, whatever it is: to leave some of what is drawn out because of
        what it is would change the distribution of the answer. Whether to go on after it may depend on it."""
        reach = growing.reach * self._writer.estimate(growing, Source.DRAFT_MODEL, belief)
        pays = self._writer.outlook.take(reach, is_masked=growing.is_masked)
        if not pays:
            self._writer.outlook.add(reach, is_masked=growing.is_masked)
        growing.append(guess.token, belief, Source.DRAFT_MODEL, reach, guess)
        if ends(growing.generation, guess.token):
            return False
        return pays and (growing.walk is None or growing.follow(growing.walk, guess.token))
