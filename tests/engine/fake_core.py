"""Plays the engine core over a Scheduler and a FakeRunner, and recounts after every step what must hold of both.

The numbers in the comments are those of docs/invariants.md.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from engine.blocks import BlockPool
from engine.config import SchedulerConfig
from engine.plan import Accepted, Row, StepPlan, StepResult
from engine.request import Request, RequestRefused, RequestStatus
from engine.scheduler import Scheduler
from tests.engine.fake_runner import VOCAB, FakeRunner, continuation, next_token
from tests.engine.keys import HOME, Scope, keys_of, root_of

MODEL_LEN = 64
HOLD_S = 5.0


@dataclass
class Live:
    """What the test knows of a request: its prompt, how many tokens it still wants, what was computed for it."""

    request: Request
    prompt: list[int]
    wanted: int
    scope: Scope
    reached: int = 0  # the end of what its rows were about
    cached: int = 0  # prompt tokens that no row of it computed before others did
    computed: int = 0  # prompt tokens that its rows computed for the first time

    def note(self, row: Row) -> None:
        """Count a row's part of the prompt: what lies before it and was never reached came from the cache."""
        fresh = range(self.reached, min(len(self.prompt), row.start + row.n))
        self.cached += sum(position < row.start for position in fresh)
        self.computed += sum(position >= row.start for position in fresh)
        self.reached = max(self.reached, row.start + row.n)


class FakeCore:
    """Submits, runs steps, verifies tails, finishes, and compares every answer with the oracle.

    now: what the scheduler's clock says. happened: how often each thing came about, so that a test can say that it saw
    what it is about.
    """

    def __init__(
        self, config: SchedulerConfig, pool: BlockPool, draw: random.Random | None = None, **options: object
    ) -> None:
        """options: of the Scheduler."""
        self.now = 0.0
        self.scheduler = Scheduler(config, pool, max_model_len=MODEL_LEN, clock=lambda: self.now, **options)  # type: ignore[arg-type]
        self.pool, self.draw = pool, draw or random.Random(0)
        self.runner = FakeRunner(pool.n_blocks, pool.block_size)
        self.live: dict[str, Live] = {}
        self.kept: dict[str, int] = {}
        self.happened: Counter[str] = Counter()
        self.ids = 0
        self.forces = True  # now and then two tokens follow without sampling
        self.visitors: dict[str, tuple[Request, list[int]]] = {}  # guests, with what they know without guessing
        self._visits = 0
        self._scopes: dict[int, Scope] = {}  # page -> whose request wrote it last
        self._first_in_line: tuple[str | None, int] = (None, 0)  # and for how many steps

    def submit(
        self,
        prompt: list[int],
        wanted: int,
        *,
        priority: int = 0,
        scope: Scope = HOME,
        holds: bool = False,
        deadline_s: float | None = None,
        forced: int = 0,
    ) -> str:
        """Offer a request, followed by `forced` tokens that need no sampling; says what became of it."""
        self.ids += 1
        request = Request(
            str(self.ids), list(prompt), priority=priority, root_key=root_of(scope), holds=holds, deadline_s=deadline_s
        )
        waiting, tokens = len(self._waiting()), sum(r.queued_tokens for r in self._waiting())
        config = self.scheduler.config
        is_full = waiting >= config.max_waiting_requests or (
            waiting > 0 and tokens + len(prompt) > config.max_waiting_tokens
        )
        code = "accepted"
        try:
            self.scheduler.add(request)
        except RequestRefused as refusal:
            code = refusal.code
        # 15, 32
        expected = "too_long" if len(prompt) >= self.scheduler.window else "overloaded" if is_full else "accepted"
        if expected == "accepted" and deadline_s is not None and code == "overloaded":
            expected = code  # by prediction: test_scheduler.py says when
        assert code == expected, f"{code} where {expected} was due"
        self.happened[code] += 1
        if code == "accepted":
            self.live[request.id] = live = Live(request, list(prompt), wanted, scope)
            if not holds:
                self._extend(live, forced)
        return request.id

    def drop(self, request_id: str) -> None:
        """End a request where it stands: cancelled, failed or finished."""
        self.scheduler.finish(self.live.pop(request_id).request)

    def pass_time(self, seconds: float) -> None:
        """Let the clock run; who is past the deadline is named once, and ended."""
        self.now += seconds
        due = {key for key, live in self.live.items() if (at := live.request.deadline_s) is not None and at <= self.now}
        late = [request.id for request in self.scheduler.expired()]
        assert sorted(late) == sorted(due)
        self.happened["expired"] += len(late)
        for request_id in late:
            self.drop(request_id)

    def held(self) -> list[str]:
        """Requests that are held now."""
        return [key for key, live in self.live.items() if live.request.status is RequestStatus.HELD]

    def resume(self, request_id: str, forced: int = 0, *, priority: int = 0, deadline_s: float | None = None) -> None:
        """Let a prepared request go on, whether its prompt is computed already or not."""
        live = self.live[request_id]
        self._extend(live, forced)
        self.scheduler.set_deadline(live.request, deadline_s)
        self.scheduler.resume(live.request, priority=priority)

    def propose(self) -> None:
        """Give every request that waits for one token a tail: partly right, partly junk, a chain or a tree."""
        for live in self.live.values():
            request = live.request
            if request.status is RequestStatus.RUNNING and request.remaining == 1 and not request.holds:
                right = continuation(request.tokens, self.draw.randrange(4))
                junk = [self.draw.randrange(VOCAB) for _ in range(self.draw.randrange(3))]
                request.tail, request.tail_parents = [*right, *junk], []
                if self.draw.random() < 0.5:
                    self._branch(request)

    def _branch(self, request: Request) -> None:
        """Put other branches between the nodes of a tail."""
        tokens, parents, paths = list[int](), list[int](), [list(request.tokens)]
        for _ in range(self.draw.randrange(1, 8)):
            parent = self.draw.randrange(-1, len(tokens))
            right = next_token(paths[1 + parent])
            token = right if self.draw.random() < 0.6 else self.draw.randrange(VOCAB)
            if (token, parent) not in zip(tokens, parents, strict=True):
                tokens.append(token)
                parents.append(parent)
                paths.append([*paths[1 + parent], token])
        request.tail, request.tail_parents = tokens, parents

    def step(self, cancel_in_flight: bool = False) -> StepPlan | None:
        """One step, with all that must hold of it; None where there was nothing to do."""
        before = {r.id: (r.computed, len(r.tokens), r.timeline.preemptions) for r in self.scheduler.requests()}
        running = {r.id for r in self.scheduler.requests() if r.status is RequestStatus.RUNNING}
        line = [request.id for request in self._queued()]
        plan = self.scheduler.schedule()
        is_idle = all(live.request.status is RequestStatus.HELD for live in self.live.values())
        assert (plan is None) == is_idle, "requests are live and none can move, or a step moves none"  # 13
        if plan is None:
            return None
        self.happened["steps"] += 1
        self._check_plan(plan)
        self._check_line(line)
        predictions = self.runner.run(plan)
        self._note_rows(plan)
        in_plan = self._blocks()
        if cancel_in_flight and self.live:
            self.drop(self.draw.choice(sorted(self.live)))
            assert self.pool.n_used == len(in_plan | self._blocks()), "a block of an unfinished step was freed"  # 2
        result = StepResult(plan.step_id)
        resumed = {request_id: [self.kept[request_id]] for request_id in plan.resumed}
        for request_id, picks in (predictions | resumed).items():
            if request_id in self.live:
                self._accept(self.live[request_id], picks, result)
        for row in plan.rows:
            if row.n_logits > 1 and row.request_id in result.accepted:
                self.runner.settle(row, result.accepted[row.request_id].path)
        self.scheduler.commit(result)
        for request_id in running & self.live.keys():  # 11
            request = self.live[request_id].request
            computed, n_tokens, preemptions = before[request_id]
            moved = request.computed > computed or len(request.tokens) > n_tokens
            self.happened["preempted"] += request.timeline.preemptions - preemptions
            left = request.timeline.preemptions > preemptions or request.status is RequestStatus.HELD
            assert moved or left, "a running request stood still"
        for request_id in [key for key, live in self.live.items() if self._is_done(live)]:
            self._check_answer(self.live[request_id])
            self.drop(request_id)
            self.happened["finished"] += 1
        self.check()
        return plan

    def check(self) -> None:
        """What must hold whenever no step is in flight."""
        self.scheduler.check_integrity()
        tables = self._tables()
        references = Counter(block for table in tables for block in table)
        assert self.pool.n_used == len(references), "a block is neither free nor referenced, or both"  # 1, 2, 3
        size = self.pool.block_size
        for live in self.live.values():
            request = live.request
            assert request.computed <= len(request.tokens)  # 14
            assert len(request.blocks) <= -(-len(request.tokens) // size), "blocks of what was rejected are kept"
            writable = request.blocks[request.computed // size :]
            assert all(references[block] == 1 for block in writable), "two requests may write one block"  # 5
            filled = request.blocks[: -(-request.computed // size)]
            assert self.pages_of(filled)[: request.computed] == request.tokens[: request.computed]  # 4, 14
            assert {self._scopes[block] for block in filled} <= {live.scope}, "tenants or models share"  # 8, 9
        fresh = [live for live in self.live.values() if not live.reached]  # 32
        assert len(fresh) <= self.scheduler.config.max_waiting_requests
        assert len(self._waiting()) == self.scheduler.n_waiting
        assert sum(r.queued_tokens for r in self._waiting()) == self.scheduler.waiting_tokens
        assert len(fresh) <= 1 or sum(len(live.prompt) for live in fresh) <= self.scheduler.config.max_waiting_tokens

    def visit(self, prompt: list[int]) -> None:
        """Let a guest do one thing, as a draft model does: come, catch up with known tokens, guess on, accept some of
        its guesses and take others back, or leave."""
        draw, guests, reserve = self.draw, self.scheduler.guests, self.scheduler.n_running
        name = f"guest {draw.randrange(3)}"
        guest, known = self.visitors.get(name, (None, []))
        if guest is None or draw.random() < 0.1:
            if guest is not None:
                guests.leave(guest)
            known = list(prompt)
            guest = Request(name, list(known), root_key=root_of(HOME))
            self.visitors[name] = guest, known
        elif not guest.blocks:
            self.happened["guest reclaimed"] += 1
        if not guest.blocks:
            guest.tokens, guest.computed, guest.registered = list(known), 0, 0
            if not guests.place(guest, reserve):
                return
            self.happened["guest hit"] += guest.computed > 0
            if draw.random() < 0.1:
                guests.leave(guest)  # before what was to be copied for it is there
                return
        elif draw.random() < 0.4:
            n_right = draw.randrange(1 + len(guest.tokens) - len(known))
            known += [*guest.tokens[len(known) : len(known) + n_right], draw.randrange(VOCAB)]
            self.happened["guest took back"] += len(known) <= guest.computed
            guest.computed = min(guest.computed, len(known) - 1)
            guest.tokens = list(known)
        left = len(known) - 1 - guest.computed
        n, is_guess = len(guest.tokens) - guest.computed, guest.computed > guest.n_prompt or left <= 0
        if left > 0:
            n = draw.randrange(1, 1 + left)
        if not guests.grow(guest, guest.computed + n, reserve):
            return
        self._visits -= 1
        row = guests.row(guest, n, n_logits=1, is_draft=is_guess)
        plan = StepPlan(self._visits, (row,), copies=guests.take_copies())
        self._scopes.update([(target, self._scopes[source]) for source, target in plan.copies])
        [picked] = self.runner.run(plan)[guest.id]
        self._scopes.update(dict.fromkeys(self._written(row), HOME))
        guest.computed += n
        assert picked == next_token(guest.tokens[: guest.computed]), "a guest's pages hold something else"
        if not is_guess:
            guests.offer(guest)
        if guest.computed == len(guest.tokens):
            guest.tokens.append(picked if draw.random() < 0.5 else draw.randrange(VOCAB))
        self.happened["guest computed"] += 1
        self.check()

    def probe(self, prompt: list[int], scope: Scope) -> None:
        """Whatever the cache finds for a prompt holds that prompt, written for that tenant and model."""
        keys = keys_of(prompt, self.pool.block_size, root_of(scope))
        blocks = self.pool.acquire(keys[: self.pool.lookup(keys)])
        assert self.pages_of(blocks) == prompt[: len(blocks) * self.pool.block_size]  # 4
        assert {self._scopes[block] for block in blocks} <= {scope}  # 8, 9
        self.pool.release(blocks)
        self.happened["probe hits"] += len(blocks) > 0

    def drain(self) -> None:
        """End everything in order; afterwards each block is blank or cached."""
        while self.scheduler.guests.reclaim():
            pass
        for _ in range(4000):
            for request_id in self.held():
                self.drop(request_id)
            if self.step() is None:
                break
        assert not self.live, "requests were left over"
        assert self.pool.n_free == self.pool.n_blocks, "blocks leaked"  # 7
        assert (self.scheduler.n_waiting, self.scheduler.waiting_tokens) == (0, 0)

    def pages_of(self, blocks: list[int]) -> list[int | None]:
        """The tokens that lie in these pages."""
        return [token for block in blocks for token in self.runner.pages[block]]

    def _extend(self, live: Live, forced: int) -> None:
        room = min(forced, live.wanted - 1, self.scheduler.window - len(live.prompt) - 1)
        self.scheduler.extend(live.request, continuation(live.prompt, room))

    def _waiting(self) -> list[Request]:
        return [live.request for live in self.live.values() if live.request.status is RequestStatus.WAITING]

    def _queued(self) -> list[Request]:
        head_start = self.scheduler.config.priority_s
        return sorted(self._waiting(), key=lambda r: (r.timeline.arrived_s - r.priority * head_start, r.arrival))

    def _blocks(self) -> set[int]:
        return {block for table in self._tables() for block in table}

    def _tables(self) -> list[list[int]]:
        return [request.blocks for request in [*self.scheduler.requests(), *self.scheduler.guests]]

    def _written(self, row: Row) -> Iterator[int]:
        for page in range(row.start // self.pool.block_size, -(-(row.start + row.n) // self.pool.block_size)):
            yield row.block_table[page]

    def _check_plan(self, plan: StepPlan) -> None:
        config = self.scheduler.config
        assert plan.n_tokens <= config.budget  # 10
        assert 0 < len(plan.rows) + len(plan.resumed) <= config.rows
        assert all(row.n <= (config.prefill_cap or config.budget) for row in plan.rows)
        writers = Counter(block for row in plan.rows for block in self._written(row))
        assert max(writers.values(), default=1) == 1, "two rows of a step write one block"  # 5

    def _check_line(self, line: list[str]) -> None:
        """12: nobody is overtaken, and who is first in line waits at most as long as those who run can go on."""
        still = {request.id for request in self._waiting()}
        admitted = [request_id for request_id in line if request_id not in still]
        assert admitted == line[: len(admitted)], "a waiting request was overtaken"
        first = next((request.id for request in self._queued()), None)
        same, n_steps = self._first_in_line
        # Those of higher priority may go before it; from then on it waits for them.
        self._first_in_line = (first, n_steps + 1 if first == same and not admitted else 0)
        assert first is None or self._first_in_line[1] <= self.scheduler.window, "a request starves"

    def _note_rows(self, plan: StepPlan) -> None:
        """What the plan computes, as told by its rows alone."""
        self._scopes.update([(target, self._scopes[source]) for source, target in plan.copies])
        self.happened["copied"] += len(plan.copies)
        for row in plan.rows:
            live = self.live[row.request_id]
            self.happened["hit"] += row.start > 0 == live.reached
            live.note(row)
            self._scopes.update(dict.fromkeys(self._written(row), live.scope))

    def _accept(self, live: Live, picks: list[int], result: StepResult) -> None:
        request = live.request
        if request.holds:
            self.kept[request.id] = picks[-1]
            self.scheduler.set_deadline(request, self.now + HOLD_S)
            return
        parents = request.tail_parents or list(range(-1, len(request.tail) - 1))
        assert all(parent < node for node, parent in enumerate(parents))
        assert len(parents) == len(request.tail) == len(picks) - 1, "the tail that was planned is another one"
        path, node = list[int](), -1
        while (child := self._child(request, parents, node, picks[1 + node])) is not None:
            path.append(node := child)
        self.happened["tail accepted"] += len(path)
        self.happened["tail rejected"] += len(request.tail) - len(path)
        self.happened["moved"] += path != list(range(len(path)))
        tokens = [*(request.tail[node] for node in path), picks[1 + node]]
        room = min(live.wanted, self.scheduler.window - len(live.prompt)) - (len(request.tokens) - len(live.prompt))
        forced = continuation([*request.tokens, *tokens], self.draw.choice([0, 0, 0, 2]) if self.forces else 0)
        tokens = [*tokens, *forced][:room]
        del path[max(0, len(tokens) - 1) :]
        result.accepted[request.id] = Accepted(tuple(tokens), len(path), tuple(path))

    @staticmethod
    def _child(request: Request, parents: list[int], node: int, token: int) -> int | None:
        """The child of a node that guessed this token."""
        guessed = zip(request.tail, parents, strict=True)
        return next((child for child, each in enumerate(guessed) if each == (token, node)), None)

    def _is_done(self, live: Live) -> bool:
        n_out = len(live.request.tokens) - len(live.prompt)
        return not live.request.holds and (n_out >= live.wanted or len(live.request.tokens) >= self.scheduler.window)

    def _check_answer(self, live: Live) -> None:
        request, timeline = live.request, live.request.timeline
        out = request.tokens[len(live.prompt) :]
        assert out == continuation(live.prompt, len(out)), "scheduling changed an answer"  # 16
        assert (timeline.cached_tokens, timeline.computed_tokens) == (live.cached, live.computed)  # 33
        assert live.cached + live.computed == timeline.prompt_tokens == len(live.prompt)
        assert timeline.recomputed_tokens == 0 or timeline.preemptions or request.id in self.kept
