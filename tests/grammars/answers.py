"""How tests put text through a matcher and draw text out of one."""

import json
import random
from typing import Any

import numpy
import torch

from grammars import Constraint, GrammarCompiler, JsonSchema, Matcher

END = 256


def takes(compiler: GrammarCompiler, constraint: Constraint, text: str | bytes) -> bool:
    """Whether every byte of `text` is legal in turn, and then the end. Mask and matcher must agree at every byte."""
    matcher = compiler.compile(constraint).matcher()
    row = torch.zeros(compiler.n_words, dtype=torch.int32)
    words = row.numpy()
    for byte in text.encode() if isinstance(text, str) else text:
        matcher.fill_mask(row)
        is_legal = bool(words[byte // 32] >> byte % 32 & 1)
        assert matcher.advance(byte) == is_legal
        if not is_legal:
            return False
    matcher.fill_mask(row)
    assert (END in legal(row)) == matcher.is_complete
    return matcher.is_complete


def takes_json(compiler: GrammarCompiler, schema: Any, value: Any) -> bool:
    """Whether the compact text of `value` is legal under `schema`."""
    return takes(compiler, JsonSchema(schema), json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def legal(row: torch.Tensor) -> set[int]:
    """The token ids whose bits are set."""
    bits = numpy.unpackbits(row.numpy().view(numpy.uint8), bitorder="little")
    return set(bits.nonzero()[0].tolist())


def draw(matcher: Matcher, rng: random.Random, n_words: int, most: int = 100) -> bytes | None:
    """A random answer, drawn token by token under the mask; None when it did not end within `most` bytes."""
    row = torch.zeros(n_words, dtype=torch.int32)
    out = bytearray()
    for step in range(most):
        matcher.fill_mask(row)
        options = legal(row)
        assert options, f"nothing is legal after {bytes(out)!r}"
        if END in options and (len(options) == 1 or rng.random() < 0.35):
            return bytes(out)
        options.discard(END)
        closing = [byte for byte in b'"}]' if byte in options] if step > most // 3 else []
        handy = [byte for byte in sorted(options) if byte in b'"}],:{[abc012-.'] if rng.random() < 0.8 else []
        byte = closing[0] if closing else rng.choice(handy or sorted(options))
        assert matcher.advance(byte)
        out.append(byte)
    return None
