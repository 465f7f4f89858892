"""One submitted request as its client sees it: tokens become text, and something decides that it is over."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from engine.detokenizer import IncrementalDecoder, StopMatch, StopMatcher
from engine.guarded_matcher import GuardedMatcher
from engine.messages import Delta, Finished
from engine.request import FinishReason, Request, SamplingParams, TokenLogprob
from engine.sampling_row import SamplingRow
from engine.speculation.draft import Draft

__all__ = ["Generation"]


class Generation:
    """Takes a request's tokens one by one, until `reason` is set.

    id: of the Submit, while `request.id` is the scheduler's (a continued request keeps its handle). end_ids: the
    model's end tokens. window: most tokens of prompt and answer. seed: of the sampling noise. matcher: None without a
    constraint.
    """

    def __init__(
        self,
        id: str,
        request: Request,
        params: SamplingParams,
        *,
        seed: int,
        decoder: IncrementalDecoder,
        end_ids: frozenset[int],
        window: int,
        matcher: GuardedMatcher | None = None,
        prediction: Sequence[int] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """prediction: see Submit."""
        self.id, self.request, self.params, self.seed, self.matcher = id, request, params, seed, matcher
        self.output: list[int] = []
        self._prompt = request.tokens[: request.n_prompt]
        self.reason: FinishReason | None = None
        self.prediction = prediction
        self.draft: Draft | None = None  # where the tail of the coming step comes from
        # Of the latest step: how many tokens of its tail were verified; which ones; and of every node that was reached,
        # its number in the tail and whether it was verified.
        self.n_tail = 0
        self.path: tuple[int, ...] = ()
        self.verdicts: list[tuple[int, bool]] = []
        self._decoder, self._clock = decoder, clock
        self._stops = StopMatcher(params.stop, include_stop=params.include_stop_str)
        self._stop_match: str | int | None = None
        self.hidden: torch.Tensor | None = None  # [hidden_size] that the newest token was drawn from, where it is kept
        self.end_ids, self._ends = end_ids, tuple(end_ids)
        room = window - request.n_prompt
        self._max_tokens = room if params.max_tokens is None else min(params.max_tokens, room)
        self._sent: list[str] = []
        self._text: list[str] = []
        self._fresh: list[int] = []
        self._logprobs: list[TokenLogprob] = []

    @property
    def n_left(self) -> int:
        """Tokens that may still come."""
        return self._max_tokens - len(self.output)

    def sampling_row(
        self, drafted: Sequence[int], mask: np.ndarray | None, params: SamplingParams | None = None
    ) -> SamplingRow:
        """What decides the token after the answer so far and `drafted`. params: other ones than the request's."""
        n_output = len(self.output) + len(drafted)
        return SamplingRow(
            params=params or self.params,
            seed=self.seed,
            position=self.request.n_prompt + n_output,
            n_output=n_output,
            prompt_ids=self._prompt,
            output_ids=[*self.output, *drafted] if drafted else self.output,
            end_ids=self._ends,
            mask=mask,
        )

    def uncommitted(self) -> list[int]:
        """Accepted tokens that the scheduler does not have yet."""
        return self.output[len(self.request.tokens) - self.request.n_prompt :]

    def accept(self, token: int, logprob: TokenLogprob | None = None) -> None:
        """Take the next token; sets `reason` if it is the last. Raises GrammarFault where the constraint's backend
        fails.

        An end token ends the answer and adds no text; neither does a stop token, unless stop strings are to be
        included.
        """
        self.output.append(token)
        self._fresh.append(token)
        if logprob is not None:
            self._logprobs.append(logprob)
        if self.matcher is not None:
            self.matcher.advance(token)
        if token in self.end_ids:
            self.end(FinishReason.STOP)
        elif token in self.params.stop_token_ids:
            self._stop_match = token
            if self.params.include_stop_str:
                self._take_text(self._decoder.push([token]))
            self.end(FinishReason.STOP)
        else:
            self._take_text(self._decoder.push([token]))
            if self.reason is None and self.matcher is not None and self.matcher.is_over:
                self.end(FinishReason.STOP)
            elif self.reason is None and self.n_left <= 0:
                self.end(FinishReason.LENGTH)

    def accept_forced(self, token: int) -> None:
        """Take a token that was the only one possible: its probability under the mask is 1."""
        logprob = None
        if self.params.logprobs is not None:
            logprob = TokenLogprob(token, 0.0, ((token, 0.0),) if self.params.logprobs else ())
        self.request.timeline.forced_tokens += 1
        self.accept(token, logprob)

    def end(self, reason: FinishReason) -> None:
        """The answer is over; text that was held back comes out, unless a stop string cut it off."""
        if self.reason is not None:
            return
        self.reason = reason
        if not isinstance(self._stop_match, str):
            rest = self._stops.push(self._decoder.flush())
            self._text.append(rest.text if isinstance(rest, StopMatch) else rest + self._stops.flush())

    def note_mask_s(self) -> float:
        """Bring the timeline's `mask_s` up to date; returns what was added."""
        if self.matcher is None:
            return 0.0
        timeline = self.request.timeline
        added = self.matcher.fill_s - timeline.mask_s
        timeline.mask_s = self.matcher.fill_s
        return added

    def take_delta(self) -> Delta | None:
        """What is new since the last call, or None."""
        text = "".join(self._text)
        if not text and not self._fresh:
            return None
        timeline, now = self.request.timeline, self._clock()
        timeline.token_times_s += [now] * len(self._fresh)
        if self._fresh:
            timeline.first_token_s = timeline.first_token_s or now
        delta = Delta(self.id, text, self._fresh, self._logprobs if self.params.logprobs is not None else None)
        self._sent.append(text)
        self._text, self._fresh, self._logprobs = [], [], []
        return delta

    def finished(self) -> Finished:
        """The terminal event, after the last delta was taken."""
        timeline = self.request.timeline
        timeline.finished_s = self._clock()
        reason = self.reason or FinishReason.ERROR
        return Finished(
            id=self.id,
            reason=reason,
            text="".join(self._sent),
            token_ids=self.output,
            timeline=timeline,
            is_complete=self.matcher is None or self.matcher.is_complete,
            stop_match=self._stop_match,
        )

    def _take_text(self, text: str) -> None:
        """Pass new text on, up to a stop string; before `min_tokens` stop strings are not looked for."""
        if not self.params.stop:
            self._text.append(text)
        elif len(self.output) < self.params.min_tokens:
            self._text.append(self._stops.skip(text))
        elif isinstance(found := self._stops.push(text), StopMatch):
            self._text.append(found.text)
            self._stop_match = found.stop
            self.end(FinishReason.STOP)
        else:
            self._text.append(found)
