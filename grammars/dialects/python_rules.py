"""Lark rules of arguments in Python's spelling, from normal schemas: `a=1, b="x", c=[True, None]`.

Strings are spelled as JSON spells them, without `\\u` and `\\/`, which is a Python literal of the same value. Names
come in the order of the schema, and none that it does not declare: every call fits the schema, though not every value
that fits can be written. What the grammar alone cannot hold is refused.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from grammars.errors import ConstraintRefused
from grammars.normal_form import TYPES, Schema
from grammars.quoted_patterns import quoted_without_u
from grammars.validators import anchored

_IDENTIFIER: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_LEAVES: Final = {
    "string": {"pattern", "minLength", "maxLength", "allOf"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "allOf"},
}
_UNHELD: Final = ("oneOf", "uniqueItems", "contains", "prefixItems", "patternProperties")
_OPTIONS: Final = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
_ESCAPES: Final = 'nrbtf\\"'


@dataclass(slots=True)
class PythonRules:
    """The rules of one tool's arguments. prefix: of their names. pointer: of the schema, for refusals."""

    prefix: str
    pointer: str
    uses: tuple[tuple[str, str], ...]
    definitions: dict[str, Schema]
    lines: list[str] = field(default_factory=list)
    _known: dict[str, str] = field(default_factory=dict)  # rules by `$ref`

    def arguments(self, name: str, schema: Schema) -> list[str]:
        """The rules, of which `name` holds all arguments. Raises ConstraintRefused for what they cannot hold."""
        for _ in range(len(self.definitions) + 1):
            if not isinstance(schema, dict) or "$ref" not in schema:
                break
            schema = self.definitions[schema["$ref"].removeprefix("#/$defs/")]
        if isinstance(schema, bool):
            schema = {}
        for keyword in ("anyOf", "enum"):
            if keyword in schema:
                raise self._refusal(keyword, "arguments of several shapes are not written in this format")
        self.lines.append(f"{name}: {self._members(schema, _keyword, self._is_identifier)}")
        return self.lines

    def _value(self, schema: Schema) -> str:
        """The right side of a rule for the values of a schema."""
        if schema is False:
            raise self._refusal("schema", "a value that nothing satisfies is asked for")
        if schema is True or not schema:
            return "p_any"
        if "$ref" in schema:
            return self._reference(schema["$ref"])
        if "enum" in schema:
            return " | ".join(json.dumps(python_literal(value), ensure_ascii=False) for value in schema["enum"])
        if "anyOf" in schema:
            return " | ".join(self._value(member) for member in schema["anyOf"])
        for keyword in _UNHELD:
            if keyword in schema:
                raise self._refusal(keyword, "cannot be held in this format")
        kinds = schema.get("type", TYPES)
        if "number" in kinds:
            kinds = [kind for kind in kinds if kind != "integer"]
        return " | ".join(self._of_kind(kind, schema) for kind in kinds)

    def _of_kind(self, kind: str, schema: dict[str, Any]) -> str:
        match kind:
            case "null":
                return '"None"'
            case "boolean":
                return '"True" | "False"'
            case "array":
                return self._array(schema)
            case "object":
                if not schema.get("properties"):
                    return self._mapping(schema)
                return '"{" ' + self._rule(self._members(schema, _quoted_key, _any_name)) + ' "}"'
        keywords = _LEAVES["string" if kind == "string" else "number"]
        leaf = {"type": [kind], **{name: schema[name] for name in keywords if name in schema}}
        options = {**_OPTIONS, "json_allowed_escapes": _ESCAPES}
        body: Any = anchored(leaf, quoted_without_u)
        return self._rule("%json " + json.dumps({**body, "x-guidance": options}))

    def _array(self, schema: dict[str, Any]) -> str:
        item = self._rule(self._value(schema.get("items", True))) if schema.get("items") is not False else None
        low, high = schema.get("minItems", 0), schema.get("maxItems")
        if item is None or high == 0:
            return '"[" "]"'
        if high is not None and high <= 1:
            return f'"[" {item} "]"' if low else f'"[" {item}? "]"'
        more = f"(comma {item})" + f"{{{max(low - 1, 0)},{'' if high is None else high - 1}}}"
        return f'"[" {item} {more} "]"' if low else f'"[" ({item} {more})? "]"'

    def _mapping(self, schema: dict[str, Any]) -> str:
        """Objects without declared names."""
        for keyword in ("minProperties", "maxProperties", "required"):
            if schema.get(keyword):
                raise self._refusal(keyword, "names that are not declared cannot be counted in this format")
        additional = schema.get("additionalProperties", True)
        if additional is False:
            return '"{" "}"'
        member = self._rule(f"p_string colon {self._rule(self._value(additional))}")
        return f'"{{" ({member} (comma {member})*)? "}}"'

    def _members(self, schema: dict[str, Any], key: Callable[[str], str], fits: Callable[[str], bool]) -> str:
        """Declared members in their order, those that are not required left out or not."""
        members = {name: one for name, one in schema.get("properties", {}).items() if one is not False}
        required = schema.get("required", ())
        strange = next((name for name in required if name not in members), None)
        if strange is not None:
            raise self._refusal("required", f"{strange!r:.60} is not declared: add it to the properties")
        if schema.get("minProperties", 0) > len(required) or schema.get("maxProperties", len(members)) < len(members):
            keyword = "minProperties" if "minProperties" in schema else "maxProperties"
            raise self._refusal(keyword, "members cannot be counted in this format")
        first, rest = '""', '""'
        for name, one in reversed(members.items()):
            if not fits(name):
                raise self._refusal("properties", f"{name!r:.60} is no name in Python, as this format needs")
            written = f"{key(name)} {self._rule(self._value(one))}"
            after = "" if rest == '""' else self._rule(rest)
            later, sooner = f"comma {written} {after}".strip(), f"{written} {after}".strip()
            if name in required:
                first, rest = sooner, later
            else:
                first = f"{sooner} | {self._rule(first) if first != chr(34) * 2 else first}"
                rest = f"{later} | {after or chr(34) * 2}"
        return first

    def _reference(self, target: str) -> str:
        if target not in self._known:
            name = self._known[target] = f"{self.prefix}_d{len(self._known)}"
            self.lines.append(f"{name}: {self._value(self.definitions[target.removeprefix('#/$defs/')])}")
        return self._known[target]

    def _rule(self, body: str) -> str:
        """A rule of its own with this right side."""
        if re.fullmatch(r"\w+", body):
            return body
        name = f"{self.prefix}_{len(self.lines)}"
        self.lines.append(f"{name}: {body}")
        return name

    def _refusal(self, keyword: str, reason: str) -> ConstraintRefused:
        where = next((at for used, at in self.uses if used == keyword), self.pointer)
        return ConstraintRefused(keyword, where, reason)

    def _is_identifier(self, name: str) -> bool:
        return _IDENTIFIER.fullmatch(name) is not None


def shared_rules() -> list[str]:
    """Rules that the arguments of all tools use: any value, and a string."""
    string = json.dumps({"type": "string", "x-guidance": {**_OPTIONS, "json_allowed_escapes": _ESCAPES}})
    number = json.dumps({"type": "number", "x-guidance": _OPTIONS})
    return [
        'p_any: p_string | p_number | "True" | "False" | "None" | p_list | p_dict',
        f"p_string: %json {string}",
        f"p_number: %json {number}",
        'p_list: "[" (p_any (comma p_any)*)? "]"',
        'p_dict: "{" (p_member (comma p_member)*)? "}"',
        "p_member: p_string colon p_any",
    ]


def python_literal(value: Any) -> str:
    """A JSON value in Python's spelling, with strings as JSON spells them."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(python_literal, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{python_literal(k)}: {python_literal(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def _keyword(name: str) -> str:
    return json.dumps(f"{name}=")


def _quoted_key(name: str) -> str:
    return f"{json.dumps(json.dumps(name, ensure_ascii=False), ensure_ascii=False)} colon"


def _any_name(_: str) -> bool:
    return True
