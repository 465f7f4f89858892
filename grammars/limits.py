"""How large a constraint may be before anything is compiled. Each limit stops a measured bomb, no ordinary schema."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from grammars.errors import ConstraintRefused
from grammars.pointer import child


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one client's constraint. Sizes are characters of compact JSON; depth counts nested containers.

    combinations: alternatives that a node may multiply out to. steps: units of work (tens of microseconds) that
    rewriting one schema may take.
    """

    schema_chars: int = 256_000
    depth: int = 64
    nodes: int = 10_000
    enum_values: int = 3_000
    properties: int = 1_000
    branches: int = 2_000
    combinations: int = 512
    steps: int = 60_000
    patterns: int = 64
    count: int = 10_000
    grammar_chars: int = 64_000
    grammar_depth: int = 64
    choices: int = 1_000
    tools: int = 128
    copied_chars: int = 256_000


def check_schema(schema: Any, limits: Limits, pointer: str = "") -> None:
    """Raise ConstraintRefused with keyword and pointer when `schema` is larger than `limits` or is no JSON."""
    nodes = enums = properties = branches = 0
    for value, at, depth in _walk(schema, pointer):
        nodes += 1
        if depth > limits.depth:
            raise ConstraintRefused(_keyword(at), at, f"nests more than {limits.depth} deep: flatten it, or use $ref")
        if nodes > limits.nodes:
            raise ConstraintRefused(_keyword(at), at, f"the schema has more than {limits.nodes} nodes: split it")
        if not isinstance(value, dict):
            continue
        enums += len(value["enum"]) if isinstance(value.get("enum"), list) else 0
        if enums > limits.enum_values:
            raise ConstraintRefused(
                "enum", at, f"the schema lists more than {limits.enum_values} values: use a pattern"
            )
        properties += len(value["properties"]) if isinstance(value.get("properties"), dict) else 0
        if properties > limits.properties:
            raise ConstraintRefused(
                "properties", at, f"the schema has more than {limits.properties} properties: split it"
            )
        if isinstance(value.get("patternProperties"), dict) and len(value["patternProperties"]) > limits.patterns:
            raise ConstraintRefused(
                "patternProperties", at, f"has more than {limits.patterns} patterns: join some with `|`"
            )
        for keyword in ("anyOf", "oneOf", "allOf"):
            branches += len(value[keyword]) if isinstance(value.get(keyword), list) else 0
            if branches > limits.branches:
                raise ConstraintRefused(keyword, at, f"the schema has more than {limits.branches} branches: split it")
    try:
        size = len(json.dumps(schema, separators=(",", ":"), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConstraintRefused("schema", pointer, f"is not JSON ({error}): send plain JSON values") from error
    if size > limits.schema_chars:
        raise ConstraintRefused(
            "schema", pointer, f"has {size} characters: at most {limits.schema_chars} are allowed, so split it"
        )


def _walk(schema: Any, pointer: str) -> Iterator[tuple[Any, str, int]]:
    """Every value with its pointer and depth, without recursion: the input may be deeper than Python's stack."""
    stack = [(schema, pointer, 0)]
    while stack:
        value, at, depth = stack.pop()
        yield value, at, depth
        if isinstance(value, dict):
            for name, member in value.items():
                if not isinstance(name, str):
                    raise ConstraintRefused("schema", at, f"has a member whose name is no text: {name!r}")
                stack.append((member, child(at, name), depth + 1))
        elif isinstance(value, list | tuple):
            stack.extend((member, child(at, i), depth + 1) for i, member in enumerate(value))


def _keyword(pointer: str) -> str:
    """The nearest name in the pointer that is a keyword rather than a position."""
    steps = [step for step in pointer.split("/")[1:] if not step.isdecimal()]
    return steps[-1] if steps else "schema"
