"""Expressions as text in the one dialect of ours that every backend reads alike.

No anchors, no escapes for classes: only explicit code points, `(?:…)`, `|`, `*`, `+`, `?` and `{n,m}`, which is what
Rust's, Python's and outlines-core's syntax share. Unicode properties stay where the client wrote them.
"""

from typing import Final

from grammars.regex_syntax import Alt, Class, Node, Ranges, RegexRefused, Repeat, Seq, complement, merge

SURROGATES: Final[Ranges] = ((0xD800, 0xDFFF),)
NOTHING: Final = r"[^\s\S]"
"""The expression that matches no text."""

# What Rust, Python or both read as more than itself, inside or outside `[…]`. Others must stay bare: `\<` and `\>`
# are word edges in Rust.
_SPECIAL: Final = frozenset("\\.+*?()|[]{}^$-/")


def emit(node: Node) -> str:
    """The text of `node`. Raises RegexRefused for anchors, boundaries, look-around and classes of surrogates only."""
    match node:
        case Class():
            return _emit_class(node)
        case Repeat():
            return _emit_repeat(node)
        case Seq():
            return "".join(f"(?:{emit(item)})" if isinstance(item, Alt) else emit(item) for item in node.items)
        case Alt():
            return "|".join(f"(?:{emit(item)})" if item == Seq(()) else emit(item) for item in node.items)
    raise RegexRefused("has an anchor that is not at its edge")


def literal(text: str) -> str:
    """The expression that matches `text` alone. Raises RegexRefused for lone surrogates."""
    return f"(?:{emit(Seq(tuple(Class(((ord(char), ord(char)),)) for char in text)))})"


def without_surrogates(ranges: Ranges) -> Ranges:
    """The code points of `ranges` that UTF-8 can hold."""
    out = []
    for low, high in ranges:
        if low <= 0xD7FF:
            out.append((low, min(high, 0xD7FF)))
        if high >= 0xE000:
            out.append((max(low, 0xE000), high))
    return tuple(out)


def _emit_repeat(node: Repeat) -> str:
    inner = emit(node.node)
    atom = inner if isinstance(node.node, Class) else f"(?:{inner})"
    match node.low, node.high:
        case 0, None:
            return atom + "*"
        case 1, None:
            return atom + "+"
        case 0, 1:
            return atom + "?"
        case low, None:
            return f"{atom}{{{low},}}"
        case low, high:
            return f"{atom}{{{low},{high}}}" if low != high else f"{atom}{{{low}}}"


def _emit_class(node: Class) -> str:
    if node.properties:
        members = "".join(f"\\{'P' if negated else 'p'}{{{name}}}" for name, negated in node.properties)
        return f"[{'^' if node.negated else ''}{members}{_emit_ranges(node.ranges)}]"
    scalars = without_surrogates(complement(node.ranges) if node.negated else merge(node.ranges))
    outside = without_surrogates(complement(scalars))
    if not outside:
        return r"[\s\S]"
    if not scalars:
        raise RegexRefused("has a class that no text of UTF-8 matches: remove it")
    if len(scalars) == 1 and scalars[0][0] == scalars[0][1]:
        return _emit_char(scalars[0][0])
    if len(outside) < len(scalars):
        return f"[^{_emit_ranges(outside)}]"
    return f"[{_emit_ranges(scalars)}]"


def _emit_ranges(ranges: Ranges) -> str:
    return "".join(_emit_char(a) if a == b else f"{_emit_char(a)}-{_emit_char(b)}" for a, b in ranges)


def _emit_char(code: int) -> str:
    char = chr(code)
    if char.isprintable():
        return "\\" + char if char in _SPECIAL else char
    if code > 0xFFFF:
        return char  # no escape of astral code points is common to Rust and Python
    return f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}"
