"""Drafts of a small model for a larger one, over pages of its own.

    target     the  cat  sat | on   the            committed | drafted
    drafter    the  cat  sat   on  ->  the         its next round computes what it does not have yet, and guesses on
               |--- pages ---|

What the target has accepted stays in the drafter's pages; what it has not is written over. Drafting begins where the
prefix cache of the drafter ends, so a prompt that it has seen to decide on the route costs nothing again.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import torch

from engine.chunk_limit import Shape
from engine.cost_model import CostModel
from engine.guests import Guests
from engine.plan import Row, StepPlan
from engine.request import Request, TokenLogprob
from engine.runner import ModelRunner
from engine.sampler import Sampler
from engine.sampling_row import SamplingRow

__all__ = ["Asked", "DraftModel", "Guess"]

PREDICTIONS_HOLD = 512
FEW_KEYS = 256
"""Of a request that a forward pass is predicted for before anything is known of it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that wants another token. drafted: what follows its own tokens already. row: how to draw, with log-
    probabilities asked for."""

    request: Request
    drafted: Sequence[int]
    row: SamplingRow


@dataclass(frozen=True, slots=True)
class Guess:
    """What the drafter drew. logprob: with those of the best tokens beside it. distribution: float32 [vocab] that it
    was drawn from, where that is wanted."""

    token: int
    logprob: TokenLogprob
    distribution: torch.Tensor | None = None


@dataclass(slots=True)
class _Shadow:
    """The drafter's own request for one of the target."""

    request: Request
    n_known: int = 0  # of its tokens, so many are committed ones of the target
    n_read: int = 0  # of the target's tokens, so many are in the drafter's vocabulary


class DraftModel:
    """Drafts for the requests of one target. Not thread-safe: the core's thread owns it."""

    def __init__(
        self,
        runner: ModelRunner,
        guests: Guests,
        sampler: Sampler,
        *,
        window: int,
        vocab_size: int,
        root_key: Callable[[str], bytes],
        n_hosts: Callable[[], int],
        cost_model: CostModel,
        max_tokens: int,
        before: Callable[[], None],
        thread: Executor | None = None,
        wants_distributions: bool = False,
    ) -> None:
        """sampler: of the target's vocabulary. window: most tokens of a request of the drafter. vocab_size: of the
        target; one of both may have room for more tokens than the tokenizer has. root_key: of the drafter's prefix
        cache, by tenant (see `blocks.root_key`). n_hosts: how many requests of its own run, each of which may need a
        block. cost_model: of the drafter. max_tokens: of one of its steps. before: is called before each of
        its forward passes. thread: where its forward passes are computed (None: here).
        wants_distributions: whether drafts are verified by their ratio."""
        self._runner, self._guests, self._sampler, self._window = runner, guests, sampler, window
        self._root_key, self._n_hosts, self._thread = root_key, n_hosts, thread
        self._wants_distributions, self._vocab_size, self._cost_model = wants_distributions, vocab_size, cost_model
        self._max_tokens, self._before = max_tokens, before
        self._predicted: dict[tuple[int, int], float] = {}  # see predict_s
        self._n_predicted = 0
        self._shadows: dict[str, _Shadow] = {}
        self._steps = 0
        self.n_computed = 0
        """Tokens of the latest round."""

    def predict_s(self, n_rows: int, n_tokens: int) -> float:
        """Predicts the seconds of a forward pass over so many requests, with so many tokens in all. It is asked several
        times in a step, so an answer holds for some time."""
        self._n_predicted += 1
        if self._n_predicted % PREDICTIONS_HOLD == 0:
            self._predicted.clear()
        seconds = self._predicted.get((n_rows, n_tokens))
        if seconds is None:
            each = Shape(FEW_KEYS, max(1, n_tokens // max(1, n_rows)), 1)
            seconds = self._cost_model.seconds(self._cost_model.step([each] * n_rows))
            self._predicted[n_rows, n_tokens] = seconds
        return seconds

    def n_missing(self, request: Request) -> int | None:
        """How many tokens of a request have to be computed before its newest one; None where it has no room for it, or
        knows no such token."""
        if len(request.tokens) + 1 >= self._window:
            return None
        shadow = self._shadows.get(request.id)
        if shadow is None:
            own = Request(request.id, list(request.tokens), root_key=self._root_key(request.salt))
            shadow = self._shadows[request.id] = _Shadow(own)
        if not self._knows(request.tokens[shadow.n_read :]):
            return None
        own, shadow.n_read = shadow.request, len(request.tokens)
        if own.blocks:
            return max(0, len(request.tokens) - 1 - own.computed)
        own.tokens = list(request.tokens)
        return max(0, len(own.tokens) - 1 - self._guests.n_cached(own))

    def has_pages(self, request: Request) -> bool:
        """Whether anything of a request was computed and is still there."""
        shadow = self._shadows.get(request.id)
        return shadow is not None and bool(shadow.request.blocks)

    def catch_up(self, request: Request, most: int) -> bool:
        """Compute up to `most` tokens of a request before its newest one; False where there are no blocks for it."""
        own = self._shadows[request.id].request
        if not own.blocks:
            own.tokens = list(request.tokens)
            own.computed = own.registered = 0
            if not self._guests.place(own, self._n_hosts()):
                return False
        self._agree(request, ())
        n = min(most, self._max_tokens, len(own.tokens) - 1 - own.computed)
        if n > 0:
            if not self._guests.grow(own, own.computed + n, self._n_hosts()):
                return False
            is_draft = own.computed > own.n_prompt  # what is computed behind a draft cannot be shared
            self._run([self._guests.row(own, n, n_logits=0, is_draft=is_draft)])
            own.computed += n
            if not is_draft:
                self._guests.offer(own)
        return True

    def round(self, asked: Sequence[Asked]) -> list[Guess | None]:
        """Another token for each request, all of which have caught up; None where it has no room."""
        self.n_computed = 0
        rows, drawn_by, guesses = list[Row](), list[int](), list[Guess | None]()
        for index, each in enumerate(asked):
            guesses.append(None)
            own = self._shadows[each.request.id].request
            self._agree(each.request, each.drafted)
            end = len(own.tokens)
            if not own.blocks or end >= self._window or not self._knows(each.drafted):
                continue
            if not self._guests.grow(own, end, self._n_hosts()):
                continue
            rows.append(self._guests.row(own, end - own.computed, n_logits=1, is_draft=True))
            drawn_by.append(index)
            self.n_computed += rows[-1].n
            own.computed = end
        if not rows:
            return guesses
        logits = self._fitted(self._run(rows))
        prepared = self._sampler.prepare([asked[index].row for index in drawn_by])
        distributions = prepared.distribution(logits) if self._wants_distributions else None
        drawn = prepared.draw(logits).read()
        for at, (index, token) in enumerate(zip(drawn_by, drawn, strict=True)):
            if token.token_id >= 0 and token.logprob is not None:
                distribution = None if distributions is None else distributions[at]
                guesses[index] = Guess(token.token_id, token.logprob, distribution)
        return guesses

    def forget(self, request_id: str) -> None:
        """Give back what is kept of a request; unknown ids are ignored."""
        shadow = self._shadows.pop(request_id, None)
        if shadow is not None:
            self._guests.leave(shadow.request)

    def _agree(self, request: Request, drafted: Sequence[int]) -> None:
        """Bring the shadow's tokens up to date; what was computed of others has to be computed again."""
        shadow = self._shadows[request.id]
        own, n_committed = shadow.request, len(request.tokens)
        mine, at = own.tokens, min(shadow.n_known, own.computed)
        end = min(own.computed, n_committed + len(drafted))
        while at < end and mine[at] == (request.tokens[at] if at < n_committed else drafted[at - n_committed]):
            at += 1
        shadow.n_known = n_committed
        del mine[at:]
        mine.extend(request.tokens[at:])
        mine.extend(drafted[max(0, at - n_committed) :])
        # The last token is always computed, since its logits are what is wanted.
        own.computed = min(at, len(mine) - 1)

    def _knows(self, tokens: Sequence[int]) -> bool:
        """Whether it has all of these tokens, which are the target's."""
        n = self._runner.config.vocab_size
        return n >= self._vocab_size or all(token < n for token in tokens)

    def _fitted(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits [rows, vocab] of the drafter over the target's vocabulary: what only one of them has is impossible."""
        missing = self._vocab_size - logits.shape[1]
        if missing > 0:
            return torch.nn.functional.pad(logits, (0, missing), value=float("-inf"))
        return logits[:, : self._vocab_size].contiguous() if missing else logits

    def _run(self, rows: Sequence[Row]) -> torch.Tensor:
        self._steps += 1
        self._before()
        plan = StepPlan(self._steps, tuple(rows), copies=self._guests.take_copies())
        if self._thread is None:
            return self._runner.run(plan).logits
        return self._thread.submit(self._runner.run, plan).result().logits
