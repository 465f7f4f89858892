"""Which tokens are computed next: continuous batching under one token budget, without torch.

A request is `tokens` + `tail` + `computed`; each step lets `computed` catch up. A prefill chunk, a decode step, a
prefix hit, a preemption, a jump over forced tokens and a draft to verify are the same thing here with different
numbers (the idea is vLLM V1's `num_computed_tokens`, taken to its end).

Order of service: by rank, the time of arrival less a head start for each level of priority. So priority is worth a
stated time of waiting, and everyone's turn comes: nothing that arrives later than that head start is served before.
What runs comes before what waits, but for long prompts under way, which let a waiting request of lower rank begin
first. Since victims of preemption come from the end of that order, and rows are granted from its start, a request that
was granted a row is never preempted in the same step.

While answers are streaming, the prompts that are computed beside them are cut so that the step does not take much
longer (Pace, ChunkLimit).
"""

import time
from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence

from engine.accounts import Accounts
from engine.block_tables import ONE_GROUP, BlockTables
from engine.blocks import BlockPool
from engine.chunk_limit import ChunkLimit
from engine.config import SchedulerConfig
from engine.cost_model import CostModel
from engine.deadlines import Deadlines
from engine.guests import Guests
from engine.kv_groups import KVGroup
from engine.pace import Pace, is_chunk
from engine.plan import Row, StepPlan, StepResult
from engine.plans_in_flight import PlansInFlight
from engine.request import Request, RequestRefused, RequestStatus
from engine.stats import Counters
from engine.waiting_queue import WaitingQueue

__all__ = ["Scheduler"]


class Scheduler:
    """Decides each step of one model: `schedule()`, run the plan, `commit()`; then again.

    max_model_len: positions the model can address. max_held: beyond it the oldest prepared request loses its blocks
    (None: four times the rows of a step). groups, splits_blocks: see BlockTables. cost_model: see Pace. clock: seconds,
    monotonic.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        pool: BlockPool,
        *,
        max_model_len: int,
        max_held: int | None = None,
        groups: Sequence[KVGroup] = ONE_GROUP,
        splits_blocks: bool = True,
        counters: Counters | None = None,
        cost_model: CostModel | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config, self.pool = config, pool
        self._tables = BlockTables(pool, groups, max_chunk=config.budget, splits_blocks=splits_blocks)
        self.window = self._tables.longest(max_model_len)
        self.guests = Guests(self._tables, pool)
        # Every running request gets a token in every step, so there can be no more of them than the budget has tokens.
        self.max_running = min(config.rows, config.budget)
        self.max_held = 4 * config.rows if max_held is None else max_held
        self._prefill_cap = config.prefill_cap or config.budget
        self.counters = counters or Counters()
        self._accounts, self._in_flight = Accounts(self.counters), PlansInFlight(pool, self.counters)
        self.pace, self._clock = Pace(config, cost_model), clock
        self._live: dict[str, Request] = {}
        self._running: list[Request] = []
        self._queue = WaitingQueue()
        self._parked: dict[str, Request] = {}  # own blocks but do not run: held, or resumed and waiting; oldest first
        self._deadlines = Deadlines()
        self._arrivals = 0

    @property
    def has_work(self) -> bool:
        """Whether a step could compute something."""
        return bool(self._running or self._queue)

    @property
    def is_streaming(self) -> bool:
        """Whether somebody waits for the next token of an answer that has begun."""
        return any(len(request.tokens) > request.n_prompt for request in self._running)

    @property
    def n_running(self) -> int:
        """Requests that the next step computes."""
        return len(self._running)

    @property
    def n_waiting(self) -> int:
        """Requests that were accepted and are not admitted yet, or were preempted."""
        return len(self._queue)

    @property
    def n_held(self) -> int:
        """Prepared requests that nobody has submitted or released yet."""
        return sum(request.status is RequestStatus.HELD for request in self._live.values())

    @property
    def waiting_tokens(self) -> int:
        """Tokens that waiting requests have still to compute, by the count at their arrival."""
        return self._queue.n_tokens

    def requests(self) -> Iterator[Request]:
        """Every live request."""
        return iter(self._live.values())

    def add(self, request: Request) -> None:
        """Queue a new request. Raises RequestRefused: `too_long` if it can never fit, `overloaded` if the queue is full
        or the request would still wait when its deadline passes.
        """
        if request.id in self._live:
            raise RequestRefused("duplicate_id", f"request id {request.id!r} is in use: choose another")
        if not request.tokens:
            raise RequestRefused("empty_prompt", "the prompt has no tokens: send at least one")
        if len(request.tokens) >= self.window:
            raise RequestRefused(
                "too_long",
                f"the prompt has {len(request.tokens)} tokens and the window {self.window}, of which one is "
                "for the answer: shorten the prompt",
            )
        request.arrival = self._arrivals
        request.timeline.arrived_s = request.timeline.arrived_s or self._clock()
        request.timeline.prompt_tokens = request.n_prompt
        request.rank = self._rank(request)
        self._refuse_overload(request)
        self._arrivals += 1
        self._live[request.id] = request
        self._enqueue(request)
        self.set_deadline(request, request.deadline_s)

    def set_deadline(self, request: Request, deadline_s: float | None) -> None:
        """Let `expired` name the request once the clock passes `deadline_s`."""
        self._deadlines.set(request, deadline_s)

    def extend(self, request: Request, tokens: Sequence[int]) -> None:
        """Append tokens that are known to follow without sampling, outside of a step."""
        if tokens:
            request.tokens.extend(tokens)
            request.logits_kept = False

    def resume(self, request: Request, *, priority: int = 0) -> None:
        """Let a held request generate."""
        request.holds = request.wants_state = False
        request.priority = priority
        request.rank = self._rank(request)
        self.counters.resumed += 1
        if request.status is RequestStatus.RUNNING:
            self._running.sort(key=lambda running: running.rank)
        else:
            self._queue.leave(request)
            self._enqueue(request)

    def finish(self, request: Request) -> None:
        """Forget the request and give its blocks back; those of an unfinished step stay untouched until its commit."""
        if request.status is RequestStatus.FINISHED:
            return
        self._queue.leave(request)
        if request.status is RequestStatus.RUNNING:
            self._running.remove(request)
        self._parked.pop(request.id, None)
        del self._live[request.id]
        request.status = RequestStatus.FINISHED
        self._drop_blocks(request)

    def expired(self) -> list[Request]:
        """Live requests whose deadline has passed, each named once."""
        return self._deadlines.expired(self._clock())

    def earliest_deadline(self) -> float | None:
        """The next deadline of a live request, on the scheduler's clock."""
        return self._deadlines.earliest()

    def most_pressing(self) -> Request | None:
        """The request with the earliest deadline among those that wait or run (those held need no steps)."""
        return self._deadlines.most_pressing()

    def schedule(self) -> StepPlan | None:
        """The next step, or None where nothing can run. Every plan must be committed before the next one is made."""
        self._in_flight.check_empty()
        budget, limit = self.config.budget, self.pace.limit(self._running, has_waiting=bool(self._queue))
        has_prompts = self._queue or any(map(is_chunk, self._running))
        spared = budget // 2 if has_prompts else 0  # guesses leave that much for prompts
        granted: list[tuple[Request, int]] = []
        while len(granted) < len(self._running):
            request = self._running[len(granted)]
            is_long = is_chunk(request)
            # One token of the budget stays reserved for every later request, so that all of them advance.
            reserved = len(self._running) - len(granted) - 1
            if is_long and (first := next(self._admit(budget - reserved - 1, limit, request), None)) is not None:
                granted.append(first)
                budget -= first[1]
                continue
            n = self._grant(request, budget - reserved, limit if is_long else None, spared)
            if request.tail:
                n = self._fit_tail(request, n, self._running[len(granted) + 1 :])
            if not self._grow(request, n):
                break
            self._tables.announce(request, request.computed + n)
            granted.append((request, n))
            budget -= n
        granted.extend(self._admit(budget, limit))
        if not granted:
            return None
        rows = tuple(self._row(request, n) for request, n in granted if n)
        resumed = tuple(request.id for request, n in granted if not n)
        return self._begin(rows, tuple(request for request, n in granted if n), resumed)

    def schedule_ahead(self, awaited: Mapping[str, int]) -> StepPlan | None:
        """The step after the one in flight, before that one is committed: one token more for each request of `awaited`,
        which get exactly one token from the step in flight and go on after it; by id, the number of the draw that it
        will be. All others sit this step out.

        None where `schedule` might do something else once the tokens are known: requests wait that could be admitted,
        or somebody would have to be preempted. A request that ended meanwhile is passed over by `commit`; one that got
        forced tokens, too, has computed one more of its tokens.
        """
        requests = [request for request in self._running if request.id in awaited]
        missing = [self._tables.missing(request, len(request.tokens) + 1) for request in requests]
        may_admit = self._queue and len(self._running) < self.max_running
        if not requests or may_admit or sum(missing) > self.pool.n_free:
            return None
        for request, n in zip(requests, missing, strict=True):
            if n:
                self._tables.grow(request, len(request.tokens) + 1)
        rows = tuple(self._row_at(r, len(r.tokens), (-1 - awaited[r.id],), n_logits=1) for r in requests)
        return self._begin(rows, tuple(requests))

    def commit(self, result: StepResult) -> None:
        """Take in what a step produced. Requests that were cancelled during it are passed over."""
        plan, requests = self._in_flight.end(result.step_id)
        misled = list[Request]()
        for row, request in zip(plan.rows, requests, strict=True):
            if request.status is RequestStatus.RUNNING:
                accepted = result.accepted.get(request.id)
                rejected = len(request.tail) - (accepted.n_tail if accepted else 0)
                self._accounts.computed(request, row.start, row.start + row.n - rejected)
                request.computed = row.start + row.n - rejected
                request.clear_tail()
                if rejected:
                    misled.append(request)
        for request_id, accepted in result.accepted.items():
            live = self._live.get(request_id)
            if live is not None and live.status is RequestStatus.RUNNING:
                live.tokens.extend(accepted.tokens)
                live.logits_kept = False
        for request in misled:
            self._tables.shrink(request)
        for request in requests:
            if request.status is RequestStatus.RUNNING:
                self._tables.advance(request)
                if request.holds and request.computed == len(request.tokens):
                    self._hold(request)

    def check_integrity(self) -> None:
        """Raise RuntimeError if blocks, queues and requests contradict each other."""
        self._tables.check_integrity(self._live.values(), self.guests)
        for request in self._live.values():
            at_end = request.computed == len(request.tokens)
            if request.computed > len(request.tokens) or (at_end and not request.logits_kept):
                raise RuntimeError(f"request {request.id}: {request.computed} of {len(request.tokens)} tokens computed")
            if request.computed > len(request.blocks) * self.pool.block_size:
                raise RuntimeError(
                    f"request {request.id}: {len(request.blocks)} blocks cannot hold {request.computed} tokens"
                )
        places = len(self._running) + len(self._queue) + self.n_held
        if places != len(self._live) or any(request.id not in self._live for request in self._running):
            raise RuntimeError(f"{len(self._live)} requests are live, {places} are running, waiting or held")

    def _begin(self, rows: tuple[Row, ...], requests: tuple[Request, ...], resumed: tuple[str, ...] = ()) -> StepPlan:
        """Put a step in flight. requests: those of the rows, in their order."""
        return self._in_flight.begin(rows, requests, resumed=resumed, copies=self._tables.take_copies())

    def _refuse_overload(self, request: Request) -> None:
        """Raise RequestRefused where the queue is full, or too long for the request's deadline."""
        tokens = self._queue.n_tokens + len(request.tokens)
        full = len(self._queue) >= self.config.max_waiting_requests
        if full or (self._queue and tokens > self.config.max_waiting_tokens):
            raise RequestRefused(
                "overloaded",
                f"{len(self._queue)} requests with {self._queue.n_tokens} tokens are waiting: try again later",
                retry_after_s=self.wait_s(self._queue.n_tokens),
            )
        if request.deadline_s is None:
            return
        ahead = self._queue.n_tokens_before(request.rank)
        ahead += sum(len(running.tokens) - running.computed for running in self._running if is_chunk(running))
        wait_s, left_s = self.wait_s(ahead), request.deadline_s - self._clock()
        if ahead and wait_s > left_s:
            raise RequestRefused(
                "overloaded",
                f"about {wait_s:.1f} s of work comes first and the deadline is in {left_s:.1f} s: try again later",
                retry_after_s=wait_s - max(left_s, 0.0),
            )

    def wait_s(self, n_tokens: int) -> float:
        """Predicts in how many seconds that many waiting tokens are computed, at the pace of the next step."""
        return self.pace.wait_s(n_tokens, self._running, has_waiting=bool(self._queue))

    def _rank(self, request: Request) -> tuple[float, int]:
        """A place in line that never changes: arrival, moved forward by what the priority is worth."""
        return (request.timeline.arrived_s - request.priority * self.config.priority_s, request.arrival)

    def streams(self) -> list[Request]:
        """The requests that the next step will surely get a token of: those that run and are no prompts under way."""
        return [request for request in self._running if not is_chunk(request)]

    def _grant(self, request: Request, budget: int, limit: ChunkLimit | None, spared: int = 0) -> int:
        """How many tokens of the request go into this step; its tail is cut to what fits behind them, if it is to leave
        `spared` of the budget to others."""
        known = len(request.tokens) - request.computed
        room = min(self._prefill_cap, budget, self.window - request.computed)
        if limit is not None:
            room = limit.take(request.computed, min(known, room), request.timeline.arrived_s)
        request.cut_tail(max(0, min(room, budget - spared) - known))
        return min(known + len(request.tail), room)

    def _fit_tail(self, request: Request, n: int, later: Sequence[Request]) -> int:
        """Cut the tail to what has blocks without anybody losing theirs for a guess: those who are granted theirs later
        in the step get what their known tokens need. Returns what is left of the n tokens."""
        needed = None
        while request.tail and (missing := self._tables.missing(request, request.computed + n)):
            if needed is None:
                needed = sum(self._tables.missing(each, len(each.tokens)) for each in later)
            if missing + needed <= self.pool.n_free:
                break
            request.cut_tail(len(request.tail) - 1)
            n -= 1
        return n

    def _grow(self, request: Request, n: int) -> bool:
        """Give the request blocks for `n` more tokens; False if it had to be preempted itself."""
        end = request.computed + n
        missing = self._tables.missing(request, end)
        while missing > self.pool.n_free:
            if self.guests.reclaim():
                continue
            if self._running[-1] is not request:
                self._preempt(self._running[-1])
            elif not self._release_parked(request):
                self._preempt(request)
                return False
        if missing:
            self._tables.grow(request, end)
        return True

    def _admit(
        self, budget: int, limit: ChunkLimit | None, before: Request | None = None
    ) -> Iterator[tuple[Request, int]]:
        """Move waiting requests to the running ones, strictly in order: one that does not fit is never overtaken.

        before: only those that are served before this one.
        """
        while budget > 0 and len(self._running) < self.max_running:
            request = self._queue.first()
            if (
                request is None
                or (before is not None and request.rank > before.rank)
                or (limit is not None and limit.is_spent)
            ):
                break
            if not self._place(request):
                if self.guests.reclaim():
                    continue
                if not self._running and self._release_parked(request):
                    continue
                break
            self._queue.leave(request)
            self._parked.pop(request.id, None)
            request.status = RequestStatus.RUNNING
            request.timeline.admitted_s = request.timeline.admitted_s or self._clock()
            insort(self._running, request, key=lambda running: running.rank)
            n = self._grant(request, budget, limit)
            self._tables.announce(request, request.computed + n)
            budget -= n
            yield request, n

    def _place(self, request: Request) -> bool:
        """Give a waiting request the blocks of all its tokens, shared ones first; False where they are not free."""
        hit = None if request.blocks else self._tables.find(request)
        # A block for each running request stays free, or the next step would have to preempt what this one admits.
        if not self._tables.place(request, hit, reserve=len(self._running)):
            return False
        if hit is not None:
            self._accounts.hit(request, hit)
        return True

    def _row(self, request: Request, n: int) -> Row:
        end = request.computed + n
        is_whole = n == request.remaining
        tokens = request.tokens[request.computed : end]
        return self._row_at(
            request,
            request.computed,
            tuple(tokens + request.tail if is_whole else tokens),
            n_logits=1 + len(request.tail) if is_whole else 0,
            wants_state=request.wants_state and is_whole,
            turn_start=request.turn_start,
            parents=tuple(request.tail_parents) if is_whole else (),
        )

    def _row_at(
        self,
        request: Request,
        start: int,
        tokens: tuple[int, ...],
        *,
        n_logits: int,
        wants_state: bool = False,
        turn_start: int = 0,
        parents: tuple[int, ...] = (),
    ) -> Row:
        block_table, *other_tables = self._tables.frozen(request)
        return Row(
            request_id=request.id,
            start=start,
            tokens=tokens,
            block_table=block_table,
            n_logits=n_logits,
            wants_state=wants_state,
            other_tables=tuple(other_tables),
            parents=parents,
            turn_start=turn_start,
        )

    def _hold(self, request: Request) -> None:
        self._running.remove(request)
        request.status, request.logits_kept = RequestStatus.HELD, True
        self._parked[request.id] = request
        self.counters.prepared += 1
        while len(self._parked) > self.max_held and self._release_parked(request):
            pass

    def _release_parked(self, but: Request) -> bool:
        """Take the blocks of the request that has been parked longest; it is recomputed when it goes on."""
        for request in self._parked.values():
            if request is not but:
                del self._parked[request.id]
                self._drop_blocks(request)
                self.counters.holds_released += 1
                return True
        return False

    def _preempt(self, request: Request) -> None:
        self._running.remove(request)
        self._drop_blocks(request)
        request.timeline.preemptions += 1
        self.counters.preemptions += 1
        self._enqueue(request)

    def _drop_blocks(self, request: Request) -> None:
        self._tables.drop(request, in_flight=self._in_flight.compute(request))
        request.clear_tail()
        request.logits_kept = False

    def _enqueue(self, request: Request) -> None:
        request.status = RequestStatus.WAITING
        self._queue.push(request)
