"""Whether an item that is being written can still come out different from the items before it."""

import json

from grammars.tracking.rules import Unique
from grammars.tracking.spelling import canonical

_DIGITS, _EXPONENT_DIGITS = 15, 2
_LITERALS = {ord("n"): "null", ord("t"): "boolean", ord("f"): "boolean"}


def can_differ(rule: Unique, before: frozenset[str], text: bytes) -> bool:
    """Whether an item that begins with `text`, a part of a string, number or literal, can differ from all `before`.

    text: from its first byte, a quote included. before: canonical texts. Strings and numbers that the rule does not
    bound can always go on; what ends them is judged by `ended`.
    """
    kind = "string" if text[0] == 0x22 else _LITERALS.get(text[0], "number")
    if kind in rule.finite:
        return any(spelling.startswith(text) and name not in before for spelling, name in rule.finite[kind].items())
    if kind == "number":
        return _has_fraction(text, before) if rule.integers is None else _has_integer(text, *rule.integers, before)
    if kind == "string" and rule.longest is not None:
        full = _text(text)
        return full is None or len(full) < rule.longest or canonical(full) not in before
    return True


def has_more(rule: Unique, before: frozenset[str]) -> bool:
    """Whether any value is left for one more item."""
    return rule.has_more or any(name not in before for values in rule.finite.values() for name in values.values())


def _text(begun: bytes) -> str | None:
    """The text of a string without its closing quote; None after it, and within a character or an escape."""
    try:
        return str(json.loads(begun + b'"'))
    except ValueError:
        return None


def _has_integer(text: bytes, low: int | None, high: int | None, before: frozenset[str]) -> bool:
    """Whether some whole number within the bounds is written with these first characters and is not in `before`."""
    digits = text.lstrip(b"-").decode()
    sign = -1 if text.startswith(b"-") else 1
    if digits in ("", "0"):
        ends = (1, None) if not digits else (0, 0)
        return _is_free(*_signed(sign, *ends), low, high, before)
    least = int(digits)
    scale = 1
    for _ in range(len(before) + 25):  # so many more digits are enough to pass every bound of a double
        if _is_free(*_signed(sign, least * scale, least * scale + scale - 1), low, high, before):
            return True
        scale *= 10
    return False


def _has_fraction(text: bytes, before: frozenset[str]) -> bool:
    """Whether some number is written with these first characters and is not in `before`.

    Numbers that differ as decimals must differ as doubles, too, or a reader could not tell the items apart: so at most
    15 significant digits are written, and at most two in an exponent.
    """
    mantissa, _, exponent = text.lower().partition(b"e")
    if len(mantissa.lstrip(b"-0.").replace(b".", b"")) > _DIGITS or len(mantissa) > 2 * _DIGITS:
        return False
    digits = exponent.lstrip(b"+-")
    if len(digits) > _EXPONENT_DIGITS:
        return False
    is_zero = not mantissa.strip(b"-0.")
    if is_zero and (len(mantissa) > _DIGITS or b"e" in text.lower()):
        return "0" not in before  # it stays what it is
    if len(digits) == 0:
        return True
    endings = [b"", *(b"%d" % digit for digit in range(10))] if len(digits) < _EXPONENT_DIGITS else [b""]
    return any(canonical(json.loads(text + ending)) not in before for ending in endings)


def _signed(sign: int, low: int, high: int | None) -> tuple[int | None, int | None]:
    if sign > 0:
        return low, high
    return (None if high is None else -high), -low


def _is_free(first: int | None, last: int | None, low: int | None, high: int | None, before: frozenset[str]) -> bool:
    """Whether the numbers first..last and low..high have one in common that is not in `before`."""
    start = max((end for end in (first, low) if end is not None), default=None)
    stop = min((end for end in (last, high) if end is not None), default=None)
    if start is None or stop is None:
        return True
    return any(str(value) not in before for value in range(start, min(stop, start + len(before)) + 1))
