"""Bans under a mask: a brute force over the bits."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.mask_fold import fold_bans

VOCABS = st.sampled_from([1, 31, 32, 33, 70])


@given(VOCABS, st.data())
def test_bans_are_taken_out_unless_nothing_would_be_left(vocab: int, data: st.DataObject) -> None:
    n_bits = -(-vocab // 32) * 32
    allowed = data.draw(st.sets(st.integers(0, n_bits - 1)))  # bits beyond the vocabulary, too
    banned = data.draw(st.lists(st.integers(-1, n_bits + 40)))
    bits = np.zeros(n_bits, dtype=np.uint8)
    bits[list(allowed)] = 1
    words = np.packbits(bits, bitorder="little").view(np.int32)
    before = {token for token in allowed if token < vocab}
    found = fold_bans(words, banned, vocab)
    after = {int(token) for token in np.unpackbits(words.view(np.uint8), bitorder="little").nonzero()[0]}
    assert after & set(range(vocab)) == ((before - set(banned)) or before)
    assert found == (len(before) if before & set(banned) else None)
