"""Drafts that are verified by their ratio: rejection sampling, which keeps the distribution of the answer but not the
tokens that its seed would give without drafts. See `kernels.reference_verify.accept_ratio`.

    tail       node 0   1   2   3 (illegal)          draws        root  0  1  2
    kernel     root 0   1   2   3                    target of    root  0  1  2  that of its parent
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.request import TokenLogprob
from engine.sampler import PreparedDraws, Sampler, to_host
from engine.sampling_row import SampledToken, SamplingRow
from engine.speculation.proposer import MAX_NODES
from engine.tail import Tail, Taken
from kernels.noise import noise_keys
from kernels.staging import to_device

__all__ = ["RatioDraws"]


@dataclass(slots=True)
class _Verified:
    """One request's part. placed: the nodes that the kernel tries; node placed[i] is its number 1 + i of the row.
    first_draw, first_place: where its rows begin among the logits, and among the kernel's positions."""

    tail: Tail
    rows: Sequence[SamplingRow]
    placed: list[int]
    first_draw: int
    first_place: int


@dataclass(slots=True)
class _Found:
    """What the kernel found, on the host once the event has happened; see `accept_ratio`. The others are log-
    probabilities: of each position's token, of the next tokens, and of the best tokens of rows that ask."""

    n_accepted: torch.Tensor
    path: torch.Tensor
    next_token: torch.Tensor
    token_logprobs: torch.Tensor | None = None
    next_logprobs: torch.Tensor | None = None
    top_logprobs: torch.Tensor | None = None
    top_tokens: torch.Tensor | None = None


class RatioDraws:
    """The drafts of one step that are verified by their ratio, in the order of `StepDraws`.

    A node that cannot be followed is tried all the same, as far as its token exists: it was drawn like the others, and
    to take it out because of what it is would favour the others. The distribution after it is that of its parent, in
    case that rounding accepts it.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._parts: list[_Verified] = []
        self._rows: list[SamplingRow] = []
        self._picked: list[int] = []
        self._n_places = 0
        self._prepared: PreparedDraws | None = None
        self._asking: dict[int, int] = {}  # by draw, its row among the log-probabilities
        self._found: _Found | None = None
        self._copied: torch.cuda.Event | None = None

    def __len__(self) -> int:
        return len(self._parts)

    def add(self, tail: Tail, rows: Sequence[SamplingRow], picked: Sequence[int]) -> None:
        """Verify one more tail. rows: what decides its draws; picked: the rows of the step's logits for them."""
        placed = [
            node
            for node, (token, parent) in enumerate(zip(tail.tokens, tail.parents, strict=True))
            if 0 <= token < self._sampler.vocab_size and -1 <= parent < node and tail.draw_after(parent) is not None
        ]
        self._parts.append(_Verified(tail, rows, placed, len(self._rows), self._n_places))
        self._rows += rows
        self._picked += picked
        self._n_places += 1 + len(placed)

    def prepare(self) -> None:
        """All that can be done before there are logits."""
        if not self._parts:
            return
        self._prepared = self._sampler.prepare(self._rows)
        asking = [i for i, row in enumerate(self._rows) if row.params.logprobs is not None]
        self._asking = {draw: at for at, draw in enumerate(asking)}

    @torch.inference_mode()
    def draw(self, logits: torch.Tensor) -> None:
        """Queue the verification, from the step's logits float32 [rows, vocab], which stay as they are. Waits for no
        device."""
        if self._prepared is None:
            return
        device = logits.device
        logits = logits.index_select(0, to_device(np.array(self._picked, dtype=np.int64), device))
        target = self._prepared.distribution(logits)
        tokens, parents, draw_of, draft_of, keys, starts = (to_device(each, device) for each in self._arrays())
        found = self._sampler.kernels.accept_ratio(
            tokens,
            parents,
            # A copy, since the kernel writes over it.
            target.index_select(0, draw_of),
            self._drafts(device),
            draft_of,
            keys,
            starts,
            1 + MAX_NODES,
        )
        extra = self._logprobs(logits, tokens, draw_of, starts, *found) if self._asking else ()
        if device.type == "cuda":
            self._found = _Found(*(to_host(each) for each in (*found, *extra)))
            self._copied = torch.cuda.current_stream(device).record_event()
        else:
            self._found = _Found(*found, *extra)

    def read(self) -> list[list[Taken]]:
        """By tail, in the order of `add`: the tokens of the answer. Waits for what was queued by `draw`."""
        if self._found is None:
            return []
        if self._copied is not None:
            self._copied.synchronize()
        found = self._found
        columns = zip(
            self._parts, found.n_accepted.tolist(), found.path.tolist(), found.next_token.tolist(), strict=True
        )
        return [
            list(self._taken(row, part, path[:n], following)) for row, (part, n, path, following) in enumerate(columns)
        ]

    def _taken(self, row: int, part: _Verified, path: Sequence[int], following: int) -> Iterator[Taken]:
        """The tokens of one tail. path: the kernel's numbers of the nodes that it accepted; following: what it drew
        after them."""
        tail, draw = part.tail, 0
        for number in path:
            node = part.placed[number - 1]
            after = tail.draw_after(node)
            if after is None and not tail.may_come(node):
                break  # accepted by rounding: what follows is drawn from what was left to its parent
            logprob = self._logprob(part, draw, tail.tokens[node], part.first_place + number, None)
            yield SampledToken(tail.tokens[node], logprob), node, after is not None
            if after is None:
                return
            draw = after
        if following < 0 and tail.masks[draw] is None:
            following = 0  # every logit is -inf, and nothing forbids any token
        yield SampledToken(following, self._logprob(part, draw, following, None, row)), None, False

    def _arrays(self) -> tuple[np.ndarray, ...]:
        """tokens, parents, the draw after each position, draft_of, keys and starts; see `accept_ratio`."""
        tokens, parents, draw_of, draft_of, starts = list[int](), list[int](), list[int](), list[int](), [0]
        first_draft = 0
        for part in self._parts:
            tail, numbers = part.tail, {-1: 0} | {node: 1 + i for i, node in enumerate(part.placed)}
            n_drafts, of = _draft_rows(tail)
            tokens += [0, *(tail.tokens[node] for node in part.placed)]
            parents += [-1, *(numbers[tail.parents[node]] for node in part.placed)]
            draft_of += [-1, *(first_draft + of[node] if 0 <= of[node] < n_drafts else -1 for node in part.placed)]
            draw_of.append(part.first_draw)
            for node in part.placed:
                draw = tail.draw_after(node)
                if draw is None:
                    draw = tail.draw_after(tail.parents[node]) or 0
                draw_of.append(part.first_draw + draw)
            first_draft += n_drafts
            starts.append(len(tokens))
        drawn = [self._rows[draw] for draw in draw_of]
        return (
            np.array(tokens, dtype=np.int64),
            np.array(parents, dtype=np.int32),
            np.array(draw_of, dtype=np.int64),
            np.array(draft_of, dtype=np.int32),
            noise_keys([row.seed for row in drawn], [row.position for row in drawn]),
            np.array(starts, dtype=np.int64),
        )

    def _drafts(self, device: torch.device) -> torch.Tensor:
        """The distributions that nodes were drawn from, of all tails, float32 [m, vocab]."""
        vocab, parts = self._sampler.vocab_size, list[torch.Tensor]()
        for part in self._parts:
            if _draft_rows(part.tail)[0] and part.tail.draft is not None:
                drafts = part.tail.draft.tree.distributions
                if drafts is not None:
                    drafts = drafts[:, :vocab].to(device, torch.float32, non_blocking=True)
                    parts.append(torch.nn.functional.pad(drafts, (0, vocab - drafts.shape[1])))
        return torch.cat(parts) if parts else torch.zeros(1, vocab, device=device)

    def _logprobs(
        self,
        logits: torch.Tensor,
        tokens: torch.Tensor,
        draw_of: torch.Tensor,
        starts: torch.Tensor,
        n_accepted: torch.Tensor,
        path: torch.Tensor,
        next_token: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Those of every position's token after its parent, of the next tokens, and of the best of each row that asks;
        of rows that don't, anything."""
        device = logits.device
        wanted = self._prepared.log_probabilities(logits) if self._prepared is not None else None
        if wanted is None:
            return ()
        rows, n_top = wanted
        before = list[int]()
        for part in self._parts:
            draws = [0, *(part.tail.draw_after(part.tail.parents[node]) or 0 for node in part.placed)]
            before += [self._asking.get(part.first_draw + draw, 0) for draw in draws]
        row_of = to_device(np.array(before, dtype=np.int64), device)
        of_tokens = rows[row_of, tokens]
        last = path.gather(1, (n_accepted - 1).clamp(min=0)[:, None])[:, 0]
        place = starts[:-1] + torch.where(n_accepted > 0, last, 0)
        by_draw = [self._asking.get(draw, 0) for draw in range(len(self._rows))]
        asked = to_device(np.array(by_draw, dtype=np.int64), device)[draw_of[place]]
        top = rows.topk(n_top)
        return of_tokens, rows[asked, next_token.clamp(min=0)], top.values, top.indices

    def _logprob(
        self, part: _Verified, draw: int, token: int, place: int | None, row: int | None
    ) -> TokenLogprob | None:
        """That of a token after a draw: one that was drafted, at its position, or the next one of a row."""
        found, at = self._found, self._asking.get(part.first_draw + draw)
        if at is None or found is None or found.token_logprobs is None or found.next_logprobs is None:
            return None
        if found.top_logprobs is None or found.top_tokens is None:
            return None
        value = found.token_logprobs[place] if place is not None else found.next_logprobs[row]
        wanted = part.rows[draw].params.logprobs
        best = zip(found.top_tokens[at].tolist(), found.top_logprobs[at].tolist(), strict=True)
        top = tuple((t, v) for t, v in list(best)[:wanted] if v > float("-inf"))
        return TokenLogprob(token, float(value), top)


def _draft_rows(tail: Tail) -> tuple[int, Sequence[int]]:
    """How many distributions the nodes of a tail were drawn from, and by node which one; -1 for certainty."""
    n = len(tail.tokens)
    tree = None if tail.draft is None else tail.draft.tree
    if tree is None or tree.distributions is None or len(tree.distribution_of) < n:
        return 0, [-1] * n
    return len(tree.distributions), tree.distribution_of
