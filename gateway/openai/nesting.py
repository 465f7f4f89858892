"""How deep a JSON text nests, before any parser recurses into it."""

import numpy as np

_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def json_depth(body: bytes) -> int:
    """The deepest nesting of brackets outside strings; linear in the body's length, and recursion-free.

    Malformed JSON gives some number: it is the parser's business to refuse it.
    """
    # A regular expression for strings starts again at each quote of an unterminated one, which is quadratic.
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(unescaped.split(b'"')[::2])
    brackets = np.frombuffer(outside.translate(None, _NOT_BRACKETS), dtype=np.uint8)
    opens = (brackets == ord("[")) | (brackets == ord("{"))
    return int(np.cumsum(np.where(opens, 1, -1)).max(initial=0))
