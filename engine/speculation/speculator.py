"""Gives the requests of a step their drafts, from wherever they are cheapest, as long as they pay.

    forced text, prediction, n-gram      cost nothing: asked first, and again wherever a draft has come to
    draft model                          rounds of one token for every request that is still worth it
    branches                             other tokens at places of doubt, and the n-gram's way where it is another one

A DraftWriter writes them all; ModelRounds asks the draft model. After every node and before every round the outlook is
asked whether it raises the tokens per second of the step. Where a constraint holds, the grammar is led along what the
draft model writes, so that it only guesses what is allowed.
"""

import time
from collections.abc import Sequence

import msgspec

from engine.generation import Generation
from engine.guarded_matcher import GrammarFault
from engine.plan import StepPlan
from engine.speculation.config import SpeculationConfig
from engine.speculation.controller import Controller
from engine.speculation.draft_model import DraftModel
from engine.speculation.draft_writer import DraftWriter
from engine.speculation.growing import Growing, Memory
from engine.speculation.model_rounds import ModelRounds
from engine.speculation.proposer import Proposer, Source
from engine.stats import Counters

__all__ = ["Speculator"]

RESTING_AFTER, RESTING_STRIDE = 16, 4
"""After so many steps in a row in which nothing paid for anybody, drafts are thought of in one of so many."""
MOST_IDLE = 8
"""Steps that are launched ahead, at most, before drafts are thought of again."""
LONGEST_STRIDE = 16
"""Steps from one time to the next, at most, that the free proposers are asked for a request."""
GAIN_RATE, ASK_RATE = 0.15, 0.05
"""How fast it is noticed that they are of use to a request, or of none, and what they are for all of them."""
LEAST_GAIN = 0.2
"""What they are taken to bring to a request for which they were never asked, in tokens."""
PLAIN_STEPS = 8
"""Of so many steps without drafts one is learned from."""


class Speculator:
    """The drafts of one model's requests. Not thread-safe: the core's thread owns it."""

    def __init__(
        self,
        config: SpeculationConfig,
        proposers: Sequence[Proposer],
        controller: Controller,
        counters: Counters,
        vocab_size: int,
        draft_model: DraftModel | None = None,
    ) -> None:
        """proposers: those that cost next to nothing. vocab_size: of the target; no other token is ever drafted."""
        self.config, self.controller = config, controller
        self.wants_hidden = any(proposer.wants_hidden for proposer in proposers)
        self._free, self._counters = proposers, counters
        self._writer = DraftWriter(config, proposers, controller, vocab_size)
        self._rounds: ModelRounds | None = None
        if draft_model is not None:
            self._rounds = ModelRounds(draft_model, self._writer, config, controller, counters)
        self._memories: dict[str, Memory] = {}
        self._gain = 1.0  # what the free proposers brought lately, each time they were asked
        self._plain_s = 0.0  # of the latest step whose outlook was asked for
        self._n_steps = 0
        self._planned = (0, 0)  # rows and tokens of the coming step, if nothing else joins it
        self._ask_s = 0.0  # of one request for which the free proposers are asked, with all that follows from it
        self._n_idle = self._idle_left = 0  # decisions in a row that drafted nothing; steps that need no new one

    def draft(self, generations: Sequence[Generation]) -> dict[str, GrammarFault]:
        """Give each of these running requests a tail, if it pays. Returns by request id what a grammar's backend
        raised."""
        if self.config.is_adaptive and self._n_idle >= RESTING_AFTER and self._n_idle % RESTING_STRIDE:
            self._n_idle += 1
            self._idle_left = MOST_IDLE
            return {}
        began = time.perf_counter()
        for generation in generations:
            generation.draft = None
            generation.request.clear_tail()
        self._writer.begin(generations)
        rounds = self._rounds if self._rounds is not None and self._rounds.may_begin(len(generations)) else None
        growing, due = self._begin_drafts(generations, is_model_asked=rounds is not None)
        faults: dict[str, GrammarFault] = {}
        self._ask_free(due, faults)
        if rounds is not None:
            rounds.draft(growing, faults)
        is_idle = True
        for each in growing:
            if (each.drafted or each.walk is not None) and each.generation.request.id not in faults:
                try:
                    self._writer.finish(each)
                except GrammarFault as fault:
                    faults[each.generation.request.id] = fault
                is_idle = is_idle and not each.drafted
        if not is_idle and not self._writer.outlook.pays and self.config.verification == "coupled":  # see ModelRounds
            self._writer.outlook.drop()
            for each in growing:
                each.generation.request.clear_tail()
        self._planned = (len(generations), sum(generation.request.remaining for generation in generations))
        self._n_idle = self._n_idle + 1 if is_idle else 0
        self._idle_left = min(self._n_idle, MOST_IDLE)
        outlook, seconds = self._writer.found_outlook, time.perf_counter() - began
        self._counters.draft_s += seconds
        free_s = seconds if outlook is None else seconds - outlook.drafting_s
        if due:
            self._ask_s += ASK_RATE * (free_s / len(due) - self._ask_s)
        if outlook is not None:
            if self.config.is_adaptive:
                self._plain_s = outlook.plain_s
            outlook.spend(free_s)
        return faults

    def may_run_ahead(self) -> bool:
        """Whether the next step may be launched before the tokens of this one are known, so without drafts: not soon
        after one that paid."""
        if self._idle_left > 0:
            self._idle_left -= 1
            return True
        return False

    def learn(self, generation: Generation) -> None:
        """Learn from what became of a request's draft, before its step is committed."""
        memory, draft = self._memories.get(generation.request.id), generation.draft
        if memory is None or (draft is None and memory.peek is None):
            return
        acceptance = self.controller.acceptance
        new = generation.uncommitted()
        if memory.peek is not None and new:
            source, token, belief = memory.peek
            acceptance.observe(source, belief, token == new[0], memory.trust(source))
        memory.peek = None
        if draft is None:
            return
        tree = draft.tree
        for node, is_accepted in generation.verdicts:
            source = tree.sources[node]
            acceptance.observe(source, tree.probabilities[node], is_accepted, memory.trust(source))
        accepted, n_free = {node for node, is_accepted in generation.verdicts if is_accepted}, 0
        for node in range(len(generation.request.tail)):
            is_accepted = node in accepted
            self._counters.note_draft(tree.sources[node], 1, int(is_accepted))
            n_free += is_accepted and tree.sources[node] is not Source.DRAFT_MODEL
        self._note_gain(memory, n_free)
        generation.draft = None

    def learn_step(self, plan: StepPlan, forward_s: float, seconds: float) -> None:
        """Learn what the step took that `draft` was last asked about. seconds: all of it but for drafting."""
        outlook = self._writer.take_outlook()
        planned, self._planned = self._planned, (0, 0)
        self._n_steps += 1
        is_plain = outlook is None or not outlook.n_nodes
        if is_plain:
            self._plain_s = seconds
        if not self.config.is_adaptive or (is_plain and self._n_steps % PLAIN_STEPS):
            return  # plain steps are alike, and to learn takes time
        if (len(plan.rows), plan.n_tokens) != planned:
            return
        n_nodes, n_masked = (0, 0) if outlook is None else (outlook.n_nodes, outlook.n_masked)
        self.controller.observe_step(len(plan.rows), n_nodes, n_masked, max(0.0, seconds - forward_s))
        if outlook is not None:
            self.controller.observe_outcome(outlook, seconds + outlook.drafting_s)

    def forget(self, generation: Generation) -> None:
        """Drop what is kept of a request that is over."""
        request_id = generation.request.id
        self._memories.pop(request_id, None)
        for proposer in self._free:
            proposer.forget(request_id)
        if self._rounds is not None:
            self._rounds.model.forget(request_id)
        self.controller.observe_answer(len(generation.output))

    def _memory(self, generation: Generation) -> Memory:
        request_id = generation.request.id
        memory = self._memories.get(request_id)
        if memory is None:
            n_top = self.config.width if self.config.width > 1 else 0
            params = msgspec.structs.replace(generation.params, logprobs=n_top)
            memory = self._memories[request_id] = Memory(params, gain=max(self._gain, LEAST_GAIN))
        return memory

    def _begin_drafts(
        self, generations: Sequence[Generation], *, is_model_asked: bool
    ) -> tuple[list[Growing], list[Growing]]:
        """The requests that may get a draft in this step, and those of them for which the free proposers are asked.

        To ask takes some microseconds for each request, so it has to pay, too: where what they said lately was of
        little use, they are asked in one step of LONGEST_STRIDE only.
        """
        token_s = self._plain_s / max(1, len(generations))
        growing, due = list[Growing](), list[Growing]()
        for generation in generations:
            memory = self._memory(generation)
            memory.n_steps += 1
            is_useful = not self.config.is_adaptive or memory.gain * token_s >= self._ask_s
            is_due = is_useful or not memory.n_steps % LONGEST_STRIDE
            room = min(self.config.max_draft, generation.n_left - 1)
            matcher = generation.matcher
            if room > 0 and (is_due or is_model_asked) and (matcher is None or matcher.allows_drafts):
                growing.append(Growing(generation, memory, room))
                if is_due:
                    due.append(growing[-1])
        return growing, due

    def _ask_free(self, due: Sequence[Growing], faults: dict[str, GrammarFault]) -> None:
        """Let the free proposers say what they have."""
        for each in due:
            try:
                self._writer.extend_freely(each, self._writer.forced_text(each))
            except GrammarFault as fault:
                faults[each.generation.request.id] = fault
            if not each.drafted:
                self._note_gain(each.memory, 0)

    def _note_gain(self, memory: Memory, n_tokens: int) -> None:
        memory.gain += GAIN_RATE * (n_tokens - memory.gain)
        self._gain += ASK_RATE * (n_tokens - self._gain)
