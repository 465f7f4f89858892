"""The complement of an assertion, one step down: what stands inside it is negated when it is met in turn."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from grammars.expressions import ANYTHING, NOTHING, All, AnyOf, Conjunction, Expression, Values
from grammars.plain import KINDS, Plain, kind_of
from grammars.plain_arrays import Arrays, Beyond, Contained
from grammars.plain_numbers import Numbers
from grammars.plain_objects import LAST, Layer, Objects, Some
from grammars.plain_texts import Texts

Opposite = Callable[[Conjunction], Expression]
"""The negation of a conjunction, the same object for the same conjunction: what makes recursion end."""


def complement(plain: Plain, opposite: Opposite, keyword: str, pointer: str) -> Expression:
    """What `plain` does not accept: De Morgan over what it says, as few alternatives as its busiest type needs.

    Each keyword binds one type only, so the n-th alternatives of all types go into one node.
    """
    columns: dict[str, list[Plain]] = {}
    for group, kinds in _GROUPS.items():
        missing = kinds - plain.kinds
        columns[group] = [Plain(missing)] if missing else []
    numbers, texts, arrays, objects = plain.numbers, plain.texts, plain.arrays, plain.objects
    if numbers is not None and (held := plain.kinds & _GROUPS["number"]):
        columns["number"] += [Plain(held, numbers=part) for part in _without_numbers(numbers, pointer)]
    if texts is not None and "string" in plain.kinds:
        columns["string"] = [Plain(_GROUPS["string"], texts=part) for part in _without_texts(texts, pointer)]
    if arrays is not None and "array" in plain.kinds:
        columns["array"] = [Plain(_GROUPS["array"], arrays=part) for part in _without_arrays(arrays, opposite, pointer)]
    if objects is not None and "object" in plain.kinds:
        parts = _without_objects(objects, opposite, keyword, pointer)
        columns["object"] = [Plain(_GROUPS["object"], objects=part) for part in parts]
    nodes: list[Expression] = [
        _side_by_side([column[i] for column in columns.values() if i < len(column)], pointer)
        for i in range(max(map(len, columns.values())))
    ]
    return nodes[0] if len(nodes) == 1 else AnyOf(tuple(nodes), keyword, pointer)


_GROUPS = {
    "null": frozenset({"null"}), "boolean": frozenset({"true", "false"}), "number": frozenset({"integer", "fraction"}),
    "string": frozenset({"string"}), "array": frozenset({"array"}), "object": frozenset({"object"}),
}  # fmt: skip


def _side_by_side(row: list[Plain], pointer: str) -> Plain:
    """One node for nodes of different types."""
    kinds: frozenset[str] = frozenset().union(*(node.kinds for node in row))
    said: dict[str, Any] = {}
    for node in row:
        for name in ("numbers", "texts", "arrays", "objects"):
            if getattr(node, name) is not None:
                said[name] = getattr(node, name)
    return Plain(kinds, pointer=pointer, **said)


def _without_numbers(numbers: Numbers, pointer: str) -> list[Numbers]:
    parts = []
    if numbers.low is not None:
        parts.append(Numbers(high=numbers.low, high_open=not numbers.low_open))
    if numbers.high is not None:
        parts.append(Numbers(low=numbers.high, low_open=not numbers.high_open))
    parts += [Numbers(no_divisors=((divisor, pointer),)) for divisor in numbers.divisors]
    parts += [Numbers(divisors=(divisor,)) for divisor, _ in numbers.no_divisors]
    return parts + [Numbers(low=hole, high=hole) for hole in sorted(numbers.holes)]


def _without_texts(texts: Texts, pointer: str) -> list[Texts]:
    parts = []
    if texts.shortest:
        parts.append(Texts(longest=texts.shortest - 1))
    if texts.longest is not None:
        parts.append(Texts(shortest=texts.longest + 1))
    parts += [Texts(no_patterns=((pattern, pointer),)) for pattern in texts.patterns]
    return parts + [Texts(patterns=(pattern,)) for pattern, _ in texts.no_patterns]


def _without_arrays(arrays: Arrays, opposite: Opposite, pointer: str) -> list[Arrays]:
    parts = []
    for i, schema in enumerate(arrays.prefix):
        if schema:
            parts.append(Arrays(prefix=((),) * i + ((opposite(schema),),), fewest=i + 1))
    if arrays.items:
        wrong = (opposite(arrays.items),)
        if wrong == (ANYTHING,):
            parts.append(Arrays(fewest=len(arrays.prefix) + 1))
        elif arrays.prefix:
            parts.append(Arrays(beyond=(Beyond(len(arrays.prefix), wrong, pointer),)))
        else:
            parts.append(Arrays(contained=(Contained(wrong, 1, None, pointer),)))
    if arrays.fewest:
        parts.append(Arrays(most=arrays.fewest - 1))
    if arrays.most is not None:
        parts.append(Arrays(fewest=arrays.most + 1))
    if arrays.is_unique:
        parts.append(Arrays(repeats=pointer))
    for counted in arrays.contained:
        if counted.least == 1:
            parts.append(Arrays(items=(opposite(counted.schema),)))
        elif counted.least > 1:
            parts.append(Arrays(contained=(replace(counted, least=0, most=counted.least - 1),)))
        if counted.most is not None:
            parts.append(Arrays(contained=(replace(counted, least=counted.most + 1, most=None),)))
    parts += [Arrays(((),) * beyond.first, (opposite(beyond.schema),)) for beyond in arrays.beyond]
    if arrays.repeats is not None:
        parts.append(Arrays(is_unique=True))
    return parts


def _without_objects(objects: Objects, opposite: Opposite, keyword: str, pointer: str) -> list[Objects]:
    parts: list[Objects] = []
    said: set[str] = set()
    for layer in objects.layers:
        for name, schema in layer.properties.items():
            if not schema:
                continue
            said.add(name)
            wrong = Layer({name: (opposite(schema),)}, place=LAST)
            # A required name that is absent is wrong, too, and satisfies `wrong`: one alternative says both.
            required = () if name in objects.required else (name,)
            parts.append(Objects(layers=(wrong,), required=required))
        for pattern, schema in layer.patterns.items():
            if schema:
                some = Some(_all(opposite(schema)), pointer, keyword, pattern=pattern)
                parts.append(Objects(some=(some,)))
        if layer.additional:
            some = Some(
                _all(opposite(layer.additional)), pointer, keyword, frozenset(layer.properties), None,
                tuple(layer.patterns),
            )  # fmt: skip
            parts.append(Objects(some=(some,)))
    parts += [Objects(layers=(Layer({name: (NOTHING,)}, place=LAST),)) for name in objects.required if name not in said]
    if objects.fewest:
        parts.append(Objects(most=objects.fewest - 1))
    if objects.most is not None:
        parts.append(Objects(fewest=objects.most + 1))
    if objects.names:
        wrong_name = opposite(objects.names)
        parts.append(Objects(some=(Some((), pointer, keyword, name=_all(wrong_name)),)))
    return parts + [_without_some(some, opposite) for some in objects.some]


def _all(expression: Expression) -> Conjunction:
    return () if expression is ANYTHING else (expression,)


def _without_some(some: Some, opposite: Opposite) -> Objects:
    """Every member that `some` reaches breaks its schema."""
    wrong = (opposite(some.schema),) if some.schema else (NOTHING,)
    if some.name:
        return Objects(names=(opposite(some.name),))  # it says nothing of the value
    if some.pattern is not None:
        return Objects(layers=(Layer(patterns={some.pattern: wrong}, place=LAST),))
    names = dict.fromkeys(sorted(some.names), ())
    return Objects(layers=(Layer(names, dict.fromkeys(some.no_patterns, ()), wrong, LAST),))


def without_values(values: Values, opposite: Opposite, pointer: str) -> Expression:
    """Everything but the values."""
    kinds, numbers, texts = set(KINDS), set(), set()
    parts: list[Expression] = []
    for value in values.values:
        match kind_of(value):
            case "null" | "true" | "false" as kind:
                kinds.discard(kind)
            case "integer" | "fraction":
                numbers.add(value)
            case "string":
                texts.add(value)
            case _:
                parts.append(opposite((plainly(value, pointer),)))
    rest = Plain(
        frozenset(kinds),
        numbers=Numbers(holes=frozenset(numbers)) if numbers else None,
        texts=Texts(holes=frozenset(texts)) if texts else None,
        pointer=pointer,
    )
    return All((rest, *parts)) if parts else rest


def plainly(value: Any, pointer: str) -> Plain:
    """An array or an object as an assertion that only it satisfies."""
    if isinstance(value, list):
        places = tuple((Values((item,), pointer),) for item in value)
        return Plain(frozenset({"array"}), arrays=Arrays(places, fewest=len(value), most=len(value)), pointer=pointer)
    members: dict[str, Conjunction] = {name: (Values((item,), pointer),) for name, item in value.items()}
    layer = Layer(members, additional=(NOTHING,))
    return Plain(frozenset({"object"}), objects=Objects((layer,), tuple(members)), pointer=pointer)
