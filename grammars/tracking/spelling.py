"""How values are written as JSON here: one spelling each, so that bytes can stand for values."""

import json
import math
import sys
from typing import Any


def spelled(value: Any) -> bytes:
    """The compact spelling, with every character that JSON allows written as itself."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def parsed(text: bytes) -> Any:
    """The value of a JSON text. A number beyond the range of doubles becomes the largest of them."""
    return json.loads(text, parse_float=_finite)


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else math.copysign(sys.float_info.max, value)


def canonical(value: Any) -> str:
    """One text for all values that JSON Schema holds equal: members sorted, whole numbers without a fraction."""
    return json.dumps(_plain(value), ensure_ascii=True, separators=(",", ":"), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    return value


def decoded(text: bytes) -> str:
    """What is spelled by the text of a string without its quotes; one that spells nothing is taken as it stands."""
    try:
        return str(json.loads(b'"' + text + b'"'))
    except ValueError:
        return text.decode("utf-8", "replace")
