"""An assertion without alternatives: the types that a value may have, and what is said of each."""

from dataclasses import dataclass
from typing import Any, Final

from grammars.plain_arrays import Arrays
from grammars.plain_numbers import Numbers
from grammars.plain_objects import Objects
from grammars.plain_texts import Texts

KINDS: Final = frozenset({"null", "true", "false", "integer", "fraction", "string", "array", "object"})
"""The types of JSON, cut so that every schema names a union of them: a `number` is an `integer` or a `fraction`."""

BY_TYPE: Final = {
    "null": frozenset({"null"}), "boolean": frozenset({"true", "false"}), "integer": frozenset({"integer"}),
    "number": frozenset({"integer", "fraction"}), "string": frozenset({"string"}), "array": frozenset({"array"}),
    "object": frozenset({"object"}),
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Plain:
    """A value of one of `kinds`; numbers, texts, arrays and objects bind the values of their kind (None: anything).

    pointer: the client's node, to name the cause of a refusal.
    """

    kinds: frozenset[str] = KINDS
    numbers: Numbers | None = None
    texts: Texts | None = None
    arrays: Arrays | None = None
    objects: Objects | None = None
    pointer: str = ""

    def meet(self, other: "Plain") -> "Plain":
        """Both hold."""
        return Plain(
            self.kinds & other.kinds,
            _meet(self.numbers, other.numbers),
            _meet(self.texts, other.texts),
            _meet(self.arrays, other.arrays),
            _meet(self.objects, other.objects),
            self.pointer or other.pointer,
        )


def _meet(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else a.meet(b)


def kind_of(value: Any) -> str:
    """The kind of a JSON value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return "integer" if value == int(value) else "fraction"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"
