"""A pair of numeric bounds that llguidance 1.9.1 reads wrongly, and the bounds written in its place.

Between a whole exclusive bound and another bound less than 1 away, as in `0 < x <= 0.5`, it lets the excluded number
itself through (`0`). Bounds meet across `allOf` and references too, so the whole document is looked at. The excluded
bound is moved by 1e-9: numbers nearer to it than that are then not written, which is a rule about spelling and not
about what satisfies the schema.
"""

from itertools import chain
from typing import Any, Final

from grammars.errors import ConstraintRefused
from grammars.normal_form import Schema, every

STEP: Final = 1e-9
_MOST: Final = 10**6  # beyond it STEP would not survive in a double


def move_narrow_exclusions(roots: list[Schema]) -> None:
    """Rewrite such bounds in place. Raises ConstraintRefused for one of more than six digits."""
    nodes = [node for node in chain.from_iterable(map(every, roots)) if isinstance(node, dict)]
    for exclusive, inclusive, others, sign in (
        ("exclusiveMinimum", "minimum", ("maximum", "exclusiveMaximum"), 1),
        ("exclusiveMaximum", "maximum", ("minimum", "exclusiveMinimum"), -1),
    ):
        opposite = [node[keyword] for node in nodes for keyword in others if keyword in node]
        for node in nodes:
            if exclusive in node and any(0 < sign * (bound - node[exclusive]) < 1 for bound in opposite):
                _move(node, exclusive, inclusive, sign)


def _move(node: dict[str, Any], exclusive: str, inclusive: str, sign: int) -> None:
    bound = node[exclusive]
    if bound != int(bound):
        return
    if abs(bound) > _MOST:
        raise ConstraintRefused(exclusive, "", f"{bound} lies too near its opposite bound: use `{inclusive}`")
    del node[exclusive]
    moved = bound + sign * STEP
    node[inclusive] = max(node.get(inclusive, moved), moved) if sign > 0 else min(node.get(inclusive, moved), moved)
