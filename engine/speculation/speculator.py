"""Gives the requests of a step their drafts, from wherever they are cheapest, as long as they pay.

    forced text, prediction, n-gram      cost nothing: asked first, and again wherever a draft has come to
    draft model                          rounds of one token for every request that is still worth it
    branches                             other tokens at places of doubt, and the n-gram's way where it is another one

After every node and before every round the outlook is asked whether it raises the tokens per second of the step. Where
a constraint holds, the grammar is led along what the draft model writes, so that it only guesses what is allowed.
"""

import time
from collections.abc import Sequence
from math import exp

import msgspec

from engine.chunk_limit import Shape
from engine.generation import Generation
from engine.guarded_matcher import GrammarFault
from engine.plan import StepPlan
from engine.sampling_row import GREEDY_BELOW
from engine.speculation.config import SpeculationConfig
from engine.speculation.controller import Controller
from engine.speculation.draft import DraftBuilder
from engine.speculation.draft_model import Asked, DraftModel, Guess
from engine.speculation.growing import Branch, Growing, Memory, ends, side_branches
from engine.speculation.outlook import Outlook, Unlimited
from engine.speculation.proposer import MAX_NODES, DraftTree, Proposer, Source
from engine.stats import Counters

__all__ = ["Speculator"]

CATCH_UP = 512
"""Tokens of a prompt that the draft model computes at once, at most."""
FEW_MISSING = 32
"""So many tokens the draft model computes in its next round, beside the draft."""
PATIENCE = 16
"""Steps until it is asked again whether a round of the draft model pays, or a prompt on it."""
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
        self.config, self.controller, self._vocab_size = config, controller, vocab_size
        self.wants_hidden = any(proposer.wants_hidden for proposer in proposers)
        self._free, self._draft_model, self._counters = proposers, draft_model, counters
        self._memories: dict[str, Memory] = {}
        self._streams: Sequence[Generation] = ()
        self._found_outlook: Outlook | None = None
        self._gain = 1.0  # what the free proposers brought lately, each time they were asked
        self._plain_s = 0.0  # of the latest step whose outlook was asked for
        self._n_steps = 0
        self._refused_for = self._refusals_left = 0
        self._planned = (0, 0)  # rows and tokens of the coming step, if nothing else joins it
        self._ask_s = 0.0  # of one request for which the free proposers are asked, with all that follows from it
        self._is_probe = False  # what the draft model says now is verified whether it seems to pay or not
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
        self._begin(generations)
        model = self._draft_model if self._may_ask_model(len(generations)) else None
        growing, due = self._begin_drafts(generations, is_model_asked=model is not None)
        faults: dict[str, GrammarFault] = {}
        self._ask_free(due, faults)
        if model is not None:
            self._draft_by_model(model, growing, faults)
        is_idle = True
        for each in growing:
            if (each.drafted or each.walk is not None) and each.generation.request.id not in faults:
                try:
                    self._settle(each)
                except GrammarFault as fault:
                    faults[each.generation.request.id] = fault
                is_idle = is_idle and not each.drafted
        outlook = self._found_outlook
        if not is_idle and not self._outlook.pays and self.config.verification == "coupled":  # see _append_drawn
            self._outlook.drop()
            for each in growing:
                each.generation.request.clear_tail()
        self._planned = (len(generations), sum(generation.request.remaining for generation in generations))
        self._n_idle = self._n_idle + 1 if is_idle else 0
        self._idle_left = min(self._n_idle, MOST_IDLE)
        seconds = time.perf_counter() - began
        self._counters.draft_s += seconds
        free_s = seconds if outlook is None else seconds - outlook.drafting_s
        if due:
            self._ask_s += ASK_RATE * (free_s / len(due) - self._ask_s)
        if outlook is not None:
            outlook.spend(free_s)
        return faults

    def _begin(self, streams: Sequence[Generation]) -> None:
        self._streams, self._found_outlook = streams, None

    @property
    def _outlook(self) -> Outlook:
        """Of the coming step; made when it is first asked for, since most steps without drafts need none."""
        outlook = self._found_outlook
        if outlook is None:
            outlook = self._found_outlook = Unlimited()
            if self.config.is_adaptive:
                requests = [generation.request for generation in self._streams]
                rows = [Shape(request.computed, len(request.tokens) - request.computed, 1) for request in requests]
                outlook = self._found_outlook = self.controller.outlook(rows, len(rows))
                self._plain_s = outlook.plain_s
        return outlook

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
        outlook, self._found_outlook = self._found_outlook, None
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
        if self._draft_model is not None:
            self._draft_model.forget(request_id)
        self.controller.observe_answer(len(generation.output))

    def _memory(self, generation: Generation) -> Memory:
        request_id = generation.request.id
        memory = self._memories.get(request_id)
        if memory is None:
            n_top = self.config.width if self.config.width > 1 else 0
            params = msgspec.structs.replace(generation.params, logprobs=n_top)
            memory = self._memories[request_id] = Memory(params, gain=max(self._gain, LEAST_GAIN))
        return memory

    def _estimate(self, growing: Growing, source: Source, belief: float) -> float:
        return self.controller.acceptance.estimate(source, belief, growing.memory.trust(source))

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
                self._extend_freely(each, self._forced_at_root(each))
            except GrammarFault as fault:
                faults[each.generation.request.id] = fault
            if not each.drafted:
                self._note_gain(each.memory, 0)

    def _note_gain(self, memory: Memory, n_tokens: int) -> None:
        memory.gain += GAIN_RATE * (n_tokens - memory.gain)
        self._gain += ASK_RATE * (n_tokens - self._gain)

    def _may_ask_model(self, n_streams: int) -> bool:
        """Whether the draft model is thought of in this step: not soon after one in which it did not pay, unless
        another number of requests is served now."""
        if n_streams != self._refused_for:
            self._refusals_left = 0
        self._refusals_left -= 1
        return self._draft_model is not None and self._refusals_left < 0

    def _forced_at_root(self, growing: Growing) -> bytes:
        matcher = growing.generation.matcher
        if matcher is None or Source.FORCED not in self.config.sources:
            return b""
        return matcher.forced_text()

    def _extend_freely(self, growing: Growing, forced_text: bytes, least: float = 0.0) -> None:
        """Go on by what costs nothing to propose, as long as there is something and it pays. least: the estimate from
        which on that is better than a round of the draft model."""
        while growing.room > len(growing.drafted):
            best, best_estimate = DraftTree(), least
            situation = growing.situation(forced_text)
            for proposer in self._free:
                tree = proposer.propose(situation, growing.room - len(growing.drafted))
                estimate = self._estimate(growing, proposer.source, tree.probabilities[0]) if tree else 0.0
                if estimate > best_estimate:
                    best, best_estimate = tree, estimate
            if not best or not self._take(growing, best):
                return
            forced_text = b"" if growing.walk is None else growing.walk.forced_text()

    def _take(self, growing: Growing, tree: DraftTree) -> bool:
        """Append the first path of a tree, its other nodes become branches; False where it was not taken to its end."""
        path, chosen = 0, list[int]()
        for node, parent in enumerate(tree.parents):
            if parent == (chosen[-1] if chosen else -1):
                chosen.append(node)
        depth, root = len(growing.drafted), growing.tip
        for node in chosen:
            if not self._append(growing, tree.tokens[node], tree.probabilities[node], tree.sources[node]):
                break
            path += 1
        if len(chosen) < len(tree):
            growing.branches += side_branches(tree, chosen[:path], depth, root, growing)
        return path == len(chosen)

    def _append(self, growing: Growing, token: int, belief: float, source: Source) -> bool:
        """Append a token to the main path, if it pays and is possible."""
        generation, walk = growing.generation, growing.walk
        if not 0 <= token < self._vocab_size or ends(generation, token):
            return False
        if walk is not None and not walk.allows(token):
            return False
        reach = growing.reach * self._estimate(growing, source, belief)
        if self._is_probe:
            self._outlook.add(reach, is_masked=growing.is_masked)
        elif not self._outlook.take(reach, is_masked=growing.is_masked):
            if not growing.drafted and growing.memory.peek is None:
                growing.memory.peek = (source, token, belief)
            return False
        growing.append(token, belief, source, reach)
        return walk is None or growing.follow(walk, token)

    def _draft_by_model(self, model: DraftModel, growing: Sequence[Growing], faults: dict[str, GrammarFault]) -> None:
        active = self._caught_up(model, [each for each in growing if each.generation.request.id not in faults])
        if not active and not any(each.memory.catches_up for each in growing):
            self._refuse_model()
        is_first = True
        while active:
            if not self._pays_round(active, is_first=is_first):
                if is_first:
                    self._refuse_model()
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
            self._outlook.spend(seconds)
            self._counters.draft_rounds += 1
            n_masked = sum(each.is_masked for each in active)
            self.controller.observe_round(len(active), model.n_computed, n_masked, seconds)
            still = list[Growing]()
            for each, guess in zip(active, guesses, strict=True):
                try:
                    if guess is not None and self._go_on(each, guess):
                        still.append(each)
                except GrammarFault as fault:
                    faults[each.generation.request.id] = fault
            active, is_first = [] if self._is_probe else still, False
            self._is_probe = False

    def _refuse_model(self) -> None:
        self._refused_for, self._refusals_left = len(self._streams), PATIENCE

    def _caught_up(self, model: DraftModel, growing: Sequence[Growing]) -> list[Growing]:
        """The requests for which the draft model can go on at once; at most one other is brought closer to that."""
        ready, may_catch_up = list[Growing](), True
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
        if not self.config.is_adaptive:
            return True
        controller = self.controller
        if controller.worth_catching_up(missing, growing.generation.n_left, n_streams):
            return True
        return controller.may_probe(controller.round_seconds(1, missing, 0))

    def _chunk(self, missing: int, n_streams: int) -> int:
        """How many tokens of a prompt to compute while others wait: no longer than their step takes."""
        n = min(missing, CATCH_UP)
        while n_streams > 1 and n > FEW_MISSING and self.controller.round_seconds(1, n, 0) > self._outlook.seconds:
            n //= 2
        return n

    def _n_tokens(self, active: Sequence[Growing], *, is_first: bool) -> int:
        """About how many tokens a round computes: those of the last draft's correction, too, in the first one."""
        return len(active) * (2 if is_first else 1)

    def _pays_round(self, active: list[Growing], *, is_first: bool) -> bool:
        """Whether another round pays; those that are the least worth it are taken out first."""
        if not self.config.is_adaptive:
            return True
        acceptance, source = self.controller.acceptance, Source.DRAFT_MODEL
        gains = {id(each): each.reach * acceptance.expected(source, each.memory.trust(source)) for each in active}
        least = self._outlook.least_reach(is_masked=True)
        active[:] = [each for each in active if gains[id(each)] >= least] or active[:1]
        n_masked = sum(each.is_masked for each in active)
        gain = sum(gains[id(each)] for each in active)
        seconds = self.controller.round_seconds(len(active), self._n_tokens(active, is_first=is_first), n_masked)
        if self._outlook.worth(gain, seconds, n_nodes=len(active), n_masked=n_masked):
            return True
        if not is_first:
            return False
        best = max(active, key=lambda each: gains[id(each)])
        seconds = self.controller.round_seconds(1, self._n_tokens([best], is_first=True), best.is_masked)
        loss_s = self._outlook.loss(gains[id(best)], seconds, n_nodes=1, n_masked=best.is_masked)
        self._is_probe = self.controller.may_probe(loss_s)
        active[:] = [best]
        return self._is_probe

    def _ask(self, growing: Growing) -> Asked:
        generation = growing.generation
        if generation.matcher is not None and growing.walk is None:
            self._begin_walk(growing)
        mask = None if growing.walk is None else growing.walk.mask
        row = generation.sampling_row(growing.drafted, mask, growing.memory.draft_params)
        return Asked(generation.request, growing.drafted, row)

    def _begin_walk(self, growing: Growing) -> None:
        """Lead the grammar along what is drafted already; what it does not allow is given up."""
        matcher = growing.generation.matcher
        if matcher is None:
            return
        walk = growing.walk = matcher.walk()
        growing.masks.append(walk.mask)
        drafted, builder, growing.builder = growing.drafted, growing.builder, DraftBuilder()
        growing.drafted, growing.tip, growing.reach, node = [], -1, 1.0, -1
        for token in drafted:
            node = builder.find(node, token) or 0
            if not walk.advance(token):
                break
            belief, source = builder.evidence(node)
            growing.append(token, belief, source, builder.reach(node))
            growing.masks.append(walk.mask)
            growing.builder.set_mask(growing.tip, walk.mask)

    def _go_on(self, growing: Growing, guess: Guess) -> bool:
        """Take what the draft model guessed, and what follows from it for nothing; False where the draft ends."""
        belief, depth, parent = exp(min(0.0, guess.logprob.logprob)), len(growing.drafted), growing.tip
        for token, logprob in guess.logprob.top[: self.config.width]:
            if token != guess.token:
                branch = Branch(depth, parent, (token,), (exp(logprob),), Source.DRAFT_MODEL)
                growing.branches.append(branch)
        if guess.distribution is None or growing.generation.params.temperature < GREEDY_BELOW:
            if not self._append(growing, guess.token, belief, Source.DRAFT_MODEL):
                return False
        elif not self._append_drawn(growing, guess, belief):
            return False
        forced = b""
        if growing.walk is not None and Source.FORCED in self.config.sources:
            forced = growing.walk.forced_text()
        trust = growing.memory.trust(Source.DRAFT_MODEL)
        self._extend_freely(growing, forced, self.controller.acceptance.expected(Source.DRAFT_MODEL, trust))
        return len(growing.drafted) < growing.room

    def _append_drawn(self, growing: Growing, guess: Guess, belief: float) -> bool:
        """Append a token that is verified by its ratio, whatever it is: to leave some of what is drawn out because of
        what it is would change the distribution of the answer. Whether to go on after it may depend on it."""
        reach = growing.reach * self._estimate(growing, Source.DRAFT_MODEL, belief)
        pays = self._outlook.take(reach, is_masked=growing.is_masked)
        if not pays:
            self._outlook.add(reach, is_masked=growing.is_masked)
        growing.append(guess.token, belief, Source.DRAFT_MODEL, reach, guess)
        if ends(growing.generation, guess.token):
            return False
        return pays and (growing.walk is None or growing.follow(growing.walk, guess.token))

    def _settle(self, growing: Growing) -> None:
        """Add the branches that pay, put the grammar back, and hand the draft to its request."""
        generation, walk = growing.generation, growing.walk
        if self.config.width > 1 and growing.walks_with_model:
            growing.branches += self._free_branch(growing)
        try:
            for branch in sorted(growing.branches, key=lambda each: -each.depth):
                self._add_branch(growing, branch)
        finally:
            if walk is not None:
                walk.close()
        if walk is not None and generation.matcher is not None:
            generation.matcher.note_walk(walk)
        draft = growing.builder.finish(growing.tip, growing.masks[0] if growing.masks else None)
        if draft.tree:
            request = generation.request
            generation.draft = draft
            request.tail = list(draft.tree.tokens)
            request.tail_parents = [] if draft.tree.is_chain else list(draft.tree.parents)

    def _free_branch(self, growing: Growing) -> list[Branch]:
        """What the free proposers say at the beginning, where the main path says something else (SpecInfer's merge)."""
        branches = list[Branch]()
        drafted, growing.drafted = growing.drafted, []
        for proposer in self._free:
            tree = proposer.propose(growing.situation(), growing.room)
            if not tree or not tree.is_chain:
                continue
            node, depth = -1, 0
            while depth < len(tree) and (found := growing.builder.find(node, tree.tokens[depth])) is not None:
                node, depth = found, depth + 1
            if depth < len(tree) and (depth == 0 or tree.tokens[:depth] == tuple(drafted[:depth])):
                branches.append(Branch(depth, node, tree.tokens[depth:], tree.probabilities[depth:], proposer.source))
        growing.drafted = drafted
        return branches

    def _add_branch(self, growing: Growing, branch: Branch) -> None:
        generation, walk, builder = growing.generation, growing.walk, growing.builder
        if branch.depth > len(growing.drafted):
            return  # the grammar did not allow what it follows
        if walk is not None:
            n_back = len(growing.masks) - 1 - branch.depth
            if n_back < 0:
                return  # where the grammar could not be led to
            if n_back:
                walk.back(n_back, growing.masks[branch.depth])
                del growing.masks[branch.depth + 1 :]
        parent, n_taken = branch.parent, 0
        reach = builder.reach(parent) * (1.0 - builder.taken_share(parent))
        for token, belief in zip(branch.tokens, branch.beliefs, strict=True):
            if builder.find(parent, token) is not None or len(builder) >= MAX_NODES or ends(generation, token):
                break
            if not 0 <= token < self._vocab_size or (walk is not None and not walk.allows(token)):
                break
            reach *= self._estimate(growing, branch.source, belief)
            if not self._outlook.take(reach, is_masked=growing.is_masked):
                break
            parent = builder.add(token, parent, belief, branch.source, reach)
            if walk is not None:
                if not walk.advance(token):
                    break
                n_taken += 1
                builder.set_mask(parent, walk.mask)
        if walk is not None and n_taken:
            walk.back(n_taken, growing.masks[branch.depth])
