"""A pair of numeric bounds that llguidance 1.9.1 reads wrongly, and the bounds written in its place.

Between a whole exclusive bound and another bound less than 1 away, as in `0 < x <= 0.5`, it lets the excluded number
itself through (`0`). The excluded bound is moved by 1e-9: numbers nearer to it than that are then not written, which is
a rule about spelling and not about what satisfies the schema.
"""

from typing import Any, Final

from grammars.expressions import Unheld

STEP: Final = 1e-9
_MOST: Final = 10**6  # beyond it STEP would not survive in a double


def move_narrow_exclusions(node: dict[str, Any], pointer: str) -> None:
    """Rewrite such bounds of a node in place. Raises Unheld for a bound of more than six digits."""
    for exclusive, inclusive, others, sign in (
        ("exclusiveMinimum", "minimum", ("maximum", "exclusiveMaximum"), 1),
        ("exclusiveMaximum", "maximum", ("minimum", "exclusiveMinimum"), -1),
    ):
        if exclusive not in node:
            continue
        bound = node[exclusive]
        if bound == int(bound) and any(0 < sign * (node[other] - bound) < 1 for other in others if other in node):
            if abs(bound) > _MOST:
                raise Unheld(exclusive, pointer, f"{bound} lies too near its opposite bound: use `{inclusive}`")
            node[inclusive] = bound + sign * STEP
            del node[exclusive]
