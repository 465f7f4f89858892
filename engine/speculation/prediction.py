"""Drafts from an answer that somebody expects, as long as the real one goes along with it.

prediction    { " city " : " Paris  " , " days " : 3 }
answer        { " city " : " Lyon   " , "              <- found again, although one word differs
                                             ^ proposed next: days " : 3 }
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from engine.speculation.proposer import MAX_NODES, DraftTree, Situation, Source

__all__ = ["PredictionProposer"]

_CHECKED = 8
_LONGEST_RUN = 16
_NEAR = 32  # tokens behind the place where the answer left, in which one token alone says where it is again
_N_CANDIDATES = 12  # places that are compared, on each side of where the answer left
_NOTHING = DraftTree()
_AT_START = 4  # nothing was compared yet, but an expected answer begins like most others


def _belief(run: int) -> float:
    """How often the next token followed the prediction, too, after `run` that did, as measured on edited documents; one
    value for a class of lengths.
    """
    for at_most, share in ((0, 0.0), (1, 0.45), (2, 0.65), (4, 0.8), (8, 0.95)):
        if run <= at_most:
            return share
    return 0.99


_BELIEFS = tuple(map(_belief, range(_LONGEST_RUN + MAX_NODES + 1)))  # by length of the run in step


class _Cursor:
    """Where an answer stands in its prediction.

    at: the place whose token should come next. run: how many tokens before it the answer had, too; 0 where it is lost.
    anchor: the last place that was surely right, from which it is looked for. recent: the answer's last tokens.
    """

    __slots__ = ("anchor", "at", "recent", "run")

    def __init__(self, at: int, run: int, anchor: int, recent: list[int]) -> None:
        self.at, self.run, self.anchor, self.recent = at, run, anchor, recent

    def copy(self) -> "_Cursor":
        """One that goes its own way."""
        return _Cursor(self.at, self.run, self.anchor, self.recent[-_LONGEST_RUN:])


class _Pursuit:
    """Follows one answer along its prediction."""

    __slots__ = ("_cursor", "_n_answer", "_places", "prediction")

    def __init__(self, prediction: Sequence[int]) -> None:
        self.prediction = prediction
        self._cursor = _Cursor(0, _AT_START, 0, [])
        self._n_answer = 0
        self._places: dict[tuple[int, int], list[int]] | None = None  # after each pair of tokens; made when first lost

    def goes_on_with(self, tokens: Sequence[int], n_prompt: int) -> bool:
        """Whether these tokens, of prompt and answer, end like those that were followed, or go on after them."""
        end = n_prompt + self._n_answer
        recent = self._cursor.recent[-_CHECKED:]
        return end <= len(tokens) and list(tokens[end - len(recent) : end]) == recent

    def follow(self, tokens: Sequence[int], n_prompt: int) -> None:
        """Take the new tokens of an answer that grew."""
        for token in tokens[n_prompt + self._n_answer :]:
            self._step(self._cursor, token)
        self._n_answer = len(tokens) - n_prompt
        del self._cursor.recent[:-_LONGEST_RUN]

    def after(self, drafted: Sequence[int]) -> tuple[int, int]:
        """(place, run) of what comes next if the answer goes on with these tokens."""
        cursor = self._cursor
        if drafted:
            cursor = cursor.copy()
            for token in drafted:
                self._step(cursor, token)
        return cursor.at, cursor.run

    def _step(self, cursor: _Cursor, token: int) -> None:
        cursor.recent.append(token)
        if cursor.run and cursor.at < len(self.prediction) and self.prediction[cursor.at] == token:
            cursor.at += 1
            cursor.run = min(cursor.run + 1, _LONGEST_RUN)
        else:
            self._seek(cursor)
        if cursor.run > 1:
            cursor.anchor = cursor.at

    def _seek(self, cursor: _Cursor) -> None:
        """Find the answer again: where the longest run of its last tokens stands, and of several such places the
        nearest after where it left. A single token counts only near there.
        """
        recent, prediction, anchor = cursor.recent, self.prediction, cursor.anchor
        cursor.run = 0
        places = self._pair_places().get((recent[-2], recent[-1]), ()) if len(recent) > 1 else ()
        middle = bisect_left(places, anchor)
        before = reversed(places[max(middle - _N_CANDIDATES, 0) : middle])
        for place in (*places[middle : middle + _N_CANDIDATES], *before):
            run = _common(prediction, place, recent)
            if run > cursor.run:
                cursor.at, cursor.run = place, run
        if not cursor.run and recent[-1] in (near := prediction[anchor : anchor + _NEAR]):
            cursor.at, cursor.run = anchor + near.index(recent[-1]) + 1, 1

    def _pair_places(self) -> dict[tuple[int, int], list[int]]:
        if self._places is None:
            self._places = {}
            for place, pair in enumerate(pairwise(self.prediction), 2):
                self._places.setdefault(pair, []).append(place)
        return self._places


def _common(prediction: Sequence[int], place: int, recent: Sequence[int]) -> int:
    """How many tokens before `place` are the last ones of the answer, two of which are known to be."""
    run = 2
    longest = min(_LONGEST_RUN, place, len(recent))
    while run < longest and prediction[place - run - 1] == recent[-run - 1]:
        run += 1
    return run


class PredictionProposer:
    """Proposes what the prediction says next, and finds it again after spans that were changed, added or left out.

    What is kept depends on the tokens alone, so preemption changes nothing; a request whose tokens do not go on from
    what was followed, or whose prediction changed, is followed anew.
    """

    source = Source.PREDICTION
    wants_hidden = False

    def __init__(self) -> None:
        self._pursuits: dict[str, _Pursuit] = {}

    def propose(self, situation: Situation, budget: int) -> DraftTree:
        """A chain of at most `budget` nodes, empty where the answer is lost or the prediction at its end."""
        if not situation.prediction or budget < 1:
            return _NOTHING
        pursuit = self._pursuit(situation)
        place, run = pursuit.after(situation.drafted)
        if not run:
            return _NOTHING
        tokens = pursuit.prediction[place : place + min(budget, MAX_NODES)]
        if not tokens:
            return _NOTHING
        return DraftTree.chain(tokens, _BELIEFS[run : run + len(tokens)], self.source)

    def forget(self, request_id: str) -> None:
        """Drop where a request stands."""
        self._pursuits.pop(request_id, None)

    def _pursuit(self, situation: Situation) -> _Pursuit:
        tokens, n_prompt, prediction = situation.tokens, situation.n_prompt, situation.prediction
        pursuit = self._pursuits.get(situation.id)
        if (
            pursuit is None
            or (pursuit.prediction is not prediction and list(pursuit.prediction) != list(prediction))
            or not pursuit.goes_on_with(tokens, n_prompt)
        ):
            pursuit = self._pursuits[situation.id] = _Pursuit(prediction)
        pursuit.follow(tokens, n_prompt)
        return pursuit
