"""Walking through a grammar to see what its masks cost, where the first one says little: some get slow on the way."""

import random
import time
from typing import Final

import numpy as np
import torch

from grammars.errors import MatcherFailed
from grammars.matcher import BackendState
from grammars.vocabulary import Vocabulary

_TOKENS: Final = 32
_SLOW_S: Final = 0.05
_MOST_S: Final = 0.3


def require_fast_masks(start: BackendState, vocabulary: Vocabulary) -> None:
    """Take random tokens, and the same one again and again. Raises MatcherFailed when a step takes too much CPU time.

    No proof: an answer may find slower places, and is ended there; but most grammars that are slow are slow early.
    """
    until_s = time.process_time() + _MOST_S
    draw = random.Random(0)
    for is_stubborn in (True, False):
        state, token_id = start.fork(), -1
        row = torch.zeros(vocabulary.n_words, dtype=torch.int32)
        for _ in range(_TOKENS):
            began = time.process_time()
            if began > until_s:
                return
            state.fill(row)
            row &= vocabulary.text_row
            legal = np.unpackbits(row.numpy().view(np.uint8), bitorder="little").nonzero()[0]
            if not len(legal):
                break
            if not (is_stubborn and token_id in legal):
                token_id = int(legal[draw.randrange(len(legal))])
            state.advance(token_id)
            if time.process_time() - began > _SLOW_S:
                raise MatcherFailed(
                    f"takes more than {1000 * _SLOW_S:.0f} ms for a token of an answer: make its rules less ambiguous, "
                    "and repeat characters, not rules"
                )
