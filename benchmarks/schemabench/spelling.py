"""Other spellings of one instance: its properties in another order, its numbers without fractions of zero."""

import json
from typing import Any, Final

_MOST_STEPS: Final = 60_000


def plain_numbers(value: Any) -> Any:
    """`value` with whole floats as integers: `1.0` and `1` are equal in JSON Schema, and grammars write the latter."""
    if isinstance(value, dict):
        return {name: plain_numbers(member) for name, member in value.items()}
    if isinstance(value, list):
        return [plain_numbers(member) for member in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


def declared_names(schema: Any) -> dict[str, int]:
    """The names under `properties` anywhere in `schema`, numbered as they are met first."""
    found: dict[str, int] = {}
    stack = [schema]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            names = node.get("properties")
            for name in names if isinstance(names, dict) else ():
                found.setdefault(name, len(found))
            stack += reversed(list(node.values()))
        elif isinstance(node, list):
            stack += reversed(node)
    return found


class Speller:
    """Looks for an order of properties that a grammar takes, by trying.

    Each object takes the first property that fits, in the order in which the schema declares names and then in its own,
    and another one where that leads nowhere in the same object. Choices inside a member that was written are not taken
    back, and the tries are bounded, so "no" may be wrong where a schema has alternatives.
    """

    def __init__(self, tokenizer: Any, separators: tuple[str, str], schema: Any) -> None:
        self._tokenizer, (self._comma, self._colon) = tokenizer, separators
        self._ranks = declared_names(schema)
        self._steps = 0

    def can_write(self, answer: Any, value: Any) -> bool:
        """Whether some order of `value` is a whole answer, starting from a fresh `answer` of ours."""
        self._steps = _MOST_STEPS
        return self._write(answer.matcher, value) is not None and answer.may_end()

    def _write(self, matcher: Any, value: Any) -> int | None:
        """Tokens taken for `value`; None, with the matcher as it was, when it could not be written."""
        if isinstance(value, dict) and value:
            names = sorted(value, key=lambda name: self._ranks.get(name, len(self._ranks)))
            return self._members(matcher, {name: value[name] for name in names}, "{")
        if not isinstance(value, list) or not value:
            return self._take(matcher, json.dumps(value, ensure_ascii=False))
        taken = self._take(matcher, "[")
        if taken is None:
            return None
        for i, member in enumerate(value):
            for part in (self._take(matcher, self._comma) if i else 0, self._write(matcher, member)):
                if part is None:
                    matcher.rollback(taken)
                    return None
                taken += part
        return self._sum(matcher, taken, self._take(matcher, "]"))

    def _members(self, matcher: Any, members: dict[str, Any], before: str) -> int | None:
        """The remaining members of an object, in whatever order fits."""
        if not members:
            return self._take(matcher, "}")
        for name in list(members):
            taken = self._take(matcher, before + json.dumps(name, ensure_ascii=False) + self._colon)
            if taken is None:
                continue
            value = self._write(matcher, members[name])
            if value is None:
                matcher.rollback(taken)
                continue
            rest = {other: members[other] for other in members if other != name}
            whole = self._sum(matcher, taken + value, self._members(matcher, rest, self._comma))
            if whole is not None:
                return whole
        return None

    def _sum(self, matcher: Any, taken: int, more: int | None) -> int | None:
        if more is None:
            matcher.rollback(taken)
            return None
        return taken + more

    def _take(self, matcher: Any, text: str) -> int | None:
        tokens = self._tokenizer.encode(text, add_special_tokens=False)
        for i, token in enumerate(tokens):
            self._steps -= 1
            if self._steps < 0 or not matcher.advance(token):
                matcher.rollback(i)
                return None
        return len(tokens)
