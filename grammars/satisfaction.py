"""Whether a value satisfies an assertion: the plain meaning of `expressions.py` and `plain.py`, member by member."""

from collections.abc import Callable
from typing import Any

from grammars.expressions import All, AnyOf, Conjunction, Expression, Not, OneOf, Ref, Unheld, Values
from grammars.normal_form import equal
from grammars.plain import Plain, kind_of
from grammars.plain_arrays import Arrays
from grammars.plain_objects import Objects

Resolve = Callable[[Ref], Expression]
_MAX_DEPTH = 200


def satisfies(value: Any, schema: Conjunction, resolve: Resolve, depth: int = 0) -> bool:
    """Whether `value` satisfies all of `schema`. Raises Unheld for a reference that leads to itself."""
    return all(_holds(value, expression, resolve, depth) for expression in schema)


def _holds(value: Any, expression: Expression, resolve: Resolve, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        raise Unheld("$ref", "", "refers to itself without end: break the circle")
    depth += 1
    match expression:
        case Plain():
            return _is_plain(value, expression, resolve, depth)
        case Values():
            return any(equal(value, other) for other in expression.values)
        case Ref():
            return _holds(value, resolve(expression), resolve, depth)
        case All():
            return satisfies(value, expression.members, resolve, depth)
        case AnyOf():
            return any(_holds(value, member, resolve, depth) for member in expression.members)
        case OneOf():
            return sum(_holds(value, member, resolve, depth) for member in expression.members) == 1
        case Not():
            return not _holds(value, expression.member, resolve, depth)


def _is_plain(value: Any, plain: Plain, resolve: Resolve, depth: int) -> bool:
    kind = kind_of(value)
    if kind not in plain.kinds:
        return False
    match kind:
        case "integer" | "fraction":
            return plain.numbers is None or plain.numbers.holds(value)
        case "string":
            return plain.texts is None or plain.texts.holds(value)
        case "array":
            return plain.arrays is None or _is_array(value, plain.arrays, resolve, depth)
        case "object":
            return plain.objects is None or _is_object(value, plain.objects, resolve, depth)
    return True


def _is_array(value: list[Any], arrays: Arrays, resolve: Resolve, depth: int) -> bool:
    if len(value) < arrays.fewest or (arrays.most is not None and len(value) > arrays.most):
        return False
    if not all(satisfies(item, arrays.at(i), resolve, depth) for i, item in enumerate(value)):
        return False
    if arrays.is_unique or arrays.repeats is not None:
        repeats = any(equal(item, other) for i, item in enumerate(value) for other in value[:i])
        if (repeats and arrays.is_unique) or (not repeats and arrays.repeats is not None):
            return False
    for counted in arrays.contained:
        n = sum(satisfies(item, counted.schema, resolve, depth) for item in value)
        if n < counted.least or (counted.most is not None and n > counted.most):
            return False
    return all(
        any(satisfies(item, beyond.schema, resolve, depth) for item in value[beyond.first :])
        for beyond in arrays.beyond
    )


def _is_object(value: dict[str, Any], objects: Objects, resolve: Resolve, depth: int) -> bool:
    if len(value) < objects.fewest or (objects.most is not None and len(value) > objects.most):
        return False
    if any(name not in value for name in objects.required):
        return False
    for name, member in value.items():
        if not satisfies(name, objects.names, resolve, depth):
            return False
        if not satisfies(member, objects.of(name), resolve, depth):
            return False
    return all(
        any(
            some.reaches(name)
            and satisfies(name, some.name, resolve, depth)
            and satisfies(member, some.schema, resolve, depth)
            for name, member in value.items()
        )
        for some in objects.some
    )
