"""Drafts of what the grammar says must come: bytes, spelled as the model would spell them."""

from collections import OrderedDict
from typing import Protocol

from engine.speculation.proposer import MAX_NODES, DraftTree, Situation, Source

__all__ = ["ForcedProposer", "SpellingTokenizer"]

_LONGEST_TEXT = 512  # bytes: more is for the next step
_N_SPELLINGS = 1024
_NOTHING = DraftTree()

_INSIDE = 0.97
_LAST = {b'"': 0.95, b":": 0.95, b"_": 0.6, b"}": 0.6}
"""The last token is spelled as if the text ended there, and may melt into what follows. How often it does not, by the
text's last byte, was measured over answers in three vocabularies. After other bytes (brackets, letters, spaces) it
nearly always did, so there the last token is left out.
"""


class SpellingTokenizer(Protocol):
    """The part of `engine.tokenizer.Tokenizer` that is used."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text."""


class ForcedProposer:
    """Spells the forced text. The tokens are a guess, for a text has several spellings, but a model nearly always
    writes the one that its tokenizer gives.
    """

    source = Source.FORCED
    wants_hidden = False

    def __init__(self, tokenizer: SpellingTokenizer) -> None:
        self._tokenizer = tokenizer
        self._chains: OrderedDict[bytes, DraftTree] = OrderedDict()  # by text, used last at the end

    def propose(self, situation: Situation, budget: int) -> DraftTree:
        """A chain of at most `budget` nodes that spells a beginning of the forced text."""
        if not situation.forced_text or budget < 1:
            return _NOTHING
        chain = self._chain(situation.forced_text)
        if len(chain) <= budget:
            return chain
        return DraftTree.chain(chain.tokens[:budget], chain.probabilities[:budget], self.source)

    def forget(self, request_id: str) -> None:
        """Nothing is kept of a request."""

    def _chain(self, text: bytes) -> DraftTree:
        key = text[:_LONGEST_TEXT]
        chain = self._chains.get(key)
        if chain is not None:
            self._chains.move_to_end(key)
            return chain
        chain = self._chains[key] = self._spell(key, is_cut=len(text) > len(key))
        if len(self._chains) > _N_SPELLINGS:
            self._chains.popitem(last=False)
        return chain

    def _spell(self, text: bytes, is_cut: bool) -> DraftTree:
        try:
            words = text.decode()
        except UnicodeDecodeError as error:  # the text may begin and end inside a character
            text, is_cut = text[: error.start], True
            words = text.decode()
        tokens = self._tokenizer.encode(words)
        # False for a tokenizer that puts a space before, or changes characters, or knows a control token here.
        if b"".join(map(self._tokenizer.token_bytes, tokens)) != text:
            return _NOTHING
        last = None if is_cut else _LAST.get(text[-1:])
        probabilities = [_INSIDE] * (len(tokens) - 1) + ([] if last is None else [last])
        n = min(len(probabilities), MAX_NODES)
        return DraftTree.chain(tokens[:n], probabilities[:n], self.source) if n else _NOTHING
