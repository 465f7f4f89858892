"""How deep a JSON text nests, before any parser recurses into it."""

import re

import numpy as np

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


def json_depth(body: bytes) -> int:
    """The deepest nesting of brackets outside strings; linear in the body's length, and recursion-free.

    Malformed JSON gives some number: it is the parser's business to refuse it.
    """
    if body.count(b"[") + body.count(b"{") < 2:
        return min(1, body.count(b"[") + body.count(b"{"))
    text = np.frombuffer(_STRING.sub(b"", body), dtype=np.uint8)
    opens = (text == ord("[")) | (text == ord("{"))
    closes = (text == ord("]")) | (text == ord("}"))
    steps = opens.astype(np.int32) - closes.astype(np.int32)
    return int(np.cumsum(steps).max(initial=0))
