"""Drafts from the context: what followed the same words when they occurred last."""

from collections.abc import Sequence

from engine.speculation.proposer import MAX_NODES, DraftTree, Situation, Source
from engine.speculation.suffix_index import LONGEST_KEY, LONGEST_MATCH, SuffixIndex

__all__ = ["NGramProposer"]

_BULK = (
    4096  # prompt tokens that one call indexes at most, about a millisecond: a long one is learned over several steps
)
_CHECKED = 8
_LONGEST_RUN = 33  # beyond it, belief does not grow
_NOTHING = DraftTree()


def _belief(match: int) -> float:
    """How often a token follows again after a match of this length, as measured on tool calls, extractions and edited
    documents in three vocabularies; one value for a class of lengths.
    """
    for at_most, share in ((0, 0.0), (1, 0.4), (2, 0.55), (3, 0.65), (5, 0.72), (8, 0.8), (16, 0.87), (32, 0.94)):
        if match <= at_most:
            return share
    return 0.98


_BELIEFS = tuple(map(_belief, range(_LONGEST_RUN + MAX_NODES)))  # by length of the match


class _Reader:
    """Reads one request's context where it may be repeating itself.

    It stays at a place as long as the answer repeats what stands there, so that a passage which is copied is read on
    where newer ones begin alike. Else it goes to where the answer's last tokens occurred last.
    """

    __slots__ = ("_index", "_place", "_run")

    def __init__(self) -> None:
        self._index = SuffixIndex()
        self._place = 0  # whose token should come next; the index's length at most
        self._run = 0  # tokens before that place which the answer repeated

    def goes_on_with(self, tokens: Sequence[int]) -> bool:
        """Whether these tokens begin with those that were read, as far as the last ones show.

        Comparing all would cost more than the rest of a call. Different tokens that end alike lead to bad guesses only.
        """
        known = len(self._index)
        return known <= len(tokens) and self._index.ends_with(tokens[max(known - _CHECKED, 0) : known])

    def learn(self, tokens: Sequence[int], n_prompt: int) -> None:
        """Take what is new of prompt and answer."""
        index = self._index
        known = len(index)
        if known < n_prompt:
            index.extend(tokens[known : min(known + _BULK, n_prompt)])
            self._run, self._place = index.find(index.last(LONGEST_MATCH))
            if len(index) < n_prompt:
                return
        for token in tokens[len(index) :]:
            is_in_step = self._run >= LONGEST_KEY and index[self._place] == token
            index.extend((token,))
            if is_in_step:
                self._place += 1
                self._run += 1
            else:
                self._run, self._place = index.find(index.last(LONGEST_MATCH))

    def next(self, drafted: Sequence[int], n: int) -> tuple[int, list[int]]:
        """(length of the match, up to `n` tokens) of what may come after these."""
        index, run, place = self._index, self._run, self._place
        if drafted:
            if run and index.read(place, len(drafted)) == list(drafted):
                run, place = run + len(drafted), place + len(drafted)
            else:
                run, place = index.find([*index.last(LONGEST_MATCH), *drafted][-LONGEST_MATCH:])
        return run, index.read(place, n)


class NGramProposer:
    """Prompt lookup (suffix_index.py) in prompt and answer: tools, earlier turns and what was just said.

    A node is believed the more, the longer the run of tokens that matched up to it. What is kept depends on the tokens
    alone, so preemption changes nothing; a request whose tokens do not go on from what was read is read anew.
    """

    source = Source.NGRAM
    wants_hidden = False

    def __init__(self, min_match: int = 1) -> None:
        """min_match: tokens that must match before anything is proposed. Raises ValueError where it is not 1 to 16."""
        if not 1 <= min_match <= LONGEST_MATCH:
            raise ValueError(f"min_match is {min_match}: use 1 to {LONGEST_MATCH} tokens")
        self._min_match = min_match
        self._readers: dict[str, _Reader] = {}

    def propose(self, situation: Situation, budget: int) -> DraftTree:
        """A chain of at most `budget` nodes; it ends where the text does that it is read from."""
        if budget < 1:
            return _NOTHING
        reader = self._readers.get(situation.id)
        if reader is None or not reader.goes_on_with(situation.tokens):
            reader = self._readers[situation.id] = _Reader()
        reader.learn(situation.tokens, situation.n_prompt)
        match, tokens = reader.next(situation.drafted, min(budget, MAX_NODES))
        if match < self._min_match or not tokens:
            return _NOTHING
        known = min(match, _LONGEST_RUN)
        return DraftTree.chain(tokens, _BELIEFS[known : known + len(tokens)], self.source)

    def forget(self, request_id: str) -> None:
        """Drop what was read of a request."""
        self._readers.pop(request_id, None)
