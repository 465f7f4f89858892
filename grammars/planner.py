"""Which backend gets a constraint, and in what words: decided here alone, first by what each enforces exactly.

llguidance is exact for what `normal_form.py` holds, or refuses; it is lazy, so that a schema costs milliseconds where
xgrammar compiles its strings into tens to thousands. So it holds schemas, JSON objects, tool calls, Lark, choices and
regular expressions. xgrammar holds EBNF. outlines-core holds the expressions that it alone reads: those with `\\b`.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final, Literal

from grammars.constraint import Choice, Constraint, Copied, Grammar, JsonObject, JsonSchema, Regex, Tool, ToolCalls
from grammars.dialects import get_dialect
from grammars.errors import ConstraintRefused
from grammars.json_schema import Normalised, normalise
from grammars.lark import check_lark, json_block
from grammars.limits import Limits
from grammars.normal_form import Schema, types
from grammars.pointer import child
from grammars.regex import full_pattern, has_boundary
from grammars.regex_syntax import RegexRefused

Whitespace = Literal["compact", "single"]
_SEPARATORS: Final[dict[Whitespace, tuple[str, str]]] = {"compact": (",", ":"), "single": (", ?", ": ?")}


@dataclass(frozen=True, slots=True)
class Plan:
    """A constraint in the words of one backend.

    source: Lark for `llguidance`, EBNF for `xgrammar`, a regular expression for `outlines`. warnings: what asserts
    nothing. uses: (keyword, pointer) met in the constraint, to name the cause of a backend's refusal. keyword: its
    name in general.
    """

    backend: Literal["llguidance", "xgrammar", "outlines"]
    source: str
    keyword: str
    warnings: tuple[str, ...] = ()
    uses: tuple[tuple[str, str], ...] = ()


def plan(constraint: Constraint, whitespace: Whitespace = "compact", limits: Limits | None = None) -> Plan:
    """Choose the backend. Raises ConstraintRefused for what is malformed, too large or beyond every backend.

    whitespace: `compact` writes no space at all; `single` also allows one after each comma and colon of JSON.
    """
    limits = limits or Limits()
    match constraint:
        case JsonSchema():
            normal = normalise(constraint.schema, strict=constraint.strict, limits=limits)
            lark = "start: " + _block(normal.schema, whitespace)
            return Plan("llguidance", lark, "schema", normal.warnings, normal.uses)
        case JsonObject():
            return Plan("llguidance", "start: " + _block({"type": ["object"]}, whitespace), "schema")
        case Regex():
            return _plan_regex(constraint)
        case Choice():
            return _plan_choice(constraint, limits)
        case Grammar():
            return _plan_grammar(constraint, limits)
        case ToolCalls():
            return _plan_tools(constraint, whitespace, limits)
        case Copied():
            return plan(constraint.inner, whitespace, limits)  # the rule itself is an overlay: `copying.py`


def _block(schema: Schema, whitespace: Whitespace) -> str:
    return json_block(schema, separators=_SEPARATORS[whitespace])


def _plan_regex(constraint: Regex) -> Plan:
    try:
        pattern = full_pattern(constraint.pattern)
        if has_boundary(constraint.pattern):
            return Plan("outlines", pattern, "regex")
    except RegexRefused as error:
        raise ConstraintRefused("regex", "", f"the expression {error}") from error
    return Plan("llguidance", f"start: /(?:{pattern})/", "regex")


def _plan_choice(constraint: Choice, limits: Limits) -> Plan:
    if not constraint.choices:
        raise ConstraintRefused("choice", "", "has no choices: give at least one")
    if len(constraint.choices) > limits.choices or sum(map(len, constraint.choices)) > limits.grammar_chars:
        raise ConstraintRefused(
            "choice", "", f"is larger than {limits.choices} choices or {limits.grammar_chars} characters: offer fewer"
        )
    if any("\x00" in choice for choice in constraint.choices):
        raise ConstraintRefused("choice", "", "holds a NUL character: remove it")
    return Plan("llguidance", "start: " + " | ".join(map(_quoted, dict.fromkeys(constraint.choices))), "choice")


def _plan_grammar(constraint: Grammar, limits: Limits) -> Plan:
    if not constraint.text.strip():
        raise ConstraintRefused("grammar", "", "is empty: give at least the start rule")
    if len(constraint.text) > limits.grammar_chars:
        raise ConstraintRefused("grammar", "", f"has more than {limits.grammar_chars} characters: shorten it")
    if "\x00" in constraint.text:
        raise ConstraintRefused("grammar", "", "holds a NUL character: remove it")
    for count in re.findall(r"\{\s*\d*\s*,?\s*(\d+)\s*\}", constraint.text):
        if len(count) > 9 or int(count) > limits.count:
            raise ConstraintRefused("grammar", "", f"repeats more than {limits.count} times: use `*` or `+`")
    depth = deepest = 0
    for char in constraint.text:
        depth += (char in "([") - (char in ")]")
        deepest = max(deepest, depth)
    if deepest > limits.grammar_depth:
        raise ConstraintRefused("grammar", "", f"nests more than {limits.grammar_depth} groups: name some as rules")
    if constraint.syntax == "lark":
        check_lark(constraint.text)
        return Plan("llguidance", constraint.text, "grammar")
    return Plan("xgrammar", constraint.text, "grammar")


def _plan_tools(constraint: ToolCalls, whitespace: Whitespace, limits: Limits) -> Plan:
    dialect = get_dialect(constraint.dialect)
    if not constraint.tools:
        raise ConstraintRefused("tools", "/tools", "is empty: offer at least one tool, or leave it out")
    if len(constraint.tools) > limits.tools:
        raise ConstraintRefused("tools", "/tools", f"offers more than {limits.tools} tools: offer fewer")
    warnings: list[str] = []
    uses: list[tuple[str, str]] = []
    rules: list[str] = []
    for i, tool in enumerate(constraint.tools):
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", tool.name):
            raise ConstraintRefused(
                "name", child("/tools", i, "function", "name"), "must be 1 to 64 of A-Z a-z 0-9 _ - and ."
            )
        normal = _arguments(tool, i, limits)
        warnings += normal.warnings
        uses += normal.uses
        rules.append(f"args_{i}: {_block(normal.schema, whitespace)}")
    names = [tool.name for tool in constraint.tools]
    if len(set(names)) < len(names):
        raise ConstraintRefused("name", "/tools", "is used by two tools: give each its own name")
    rules.append(dialect.calls(names, parallel=constraint.parallel, spaced=whitespace == "single"))
    start = ["calls"]
    if constraint.mode == "auto":
        start.append("otherwise")
        rules.append("otherwise: " + _otherwise(constraint, whitespace, limits, uses, warnings))
    elif constraint.answer is not None:
        raise ConstraintRefused(
            "tools", "/tools", "are required, so an answer schema could never apply: drop one of them"
        )
    lark = f"start: {' | '.join(start)}\n" + "\n".join(rules)
    return Plan("llguidance", lark, "tools", tuple(dict.fromkeys(warnings)), tuple(uses))


def _arguments(tool: Tool, i: int, limits: Limits) -> Normalised:
    """The schema of a tool's arguments, held to objects."""
    pointer = child("/tools", i, "function", "parameters")
    schema: Any = tool.parameters
    if schema is None or schema == {}:
        # No parameters means no arguments (OpenAI); an empty schema is how clients say the same.
        schema = {"type": "object", "additionalProperties": False}
    normal = normalise(schema, strict=tool.strict, pointer=pointer, limits=limits)
    body = {} if isinstance(normal.schema, bool) else normal.schema
    definitions = body.get("$defs", {})
    kinds = types(body, definitions)
    if "object" not in kinds:
        raise ConstraintRefused("type", pointer, 'arguments are an object: set `"type": "object"`')
    if kinds != {"object"}:
        rest = {name: value for name, value in body.items() if name != "$defs"}
        body = {"type": ["object"], "allOf": [rest], "$defs": definitions} if rest else {"type": ["object"]}
    return Normalised(body, normal.warnings, normal.uses)


def _otherwise(
    constraint: ToolCalls, whitespace: Whitespace, limits: Limits, uses: list[tuple[str, str]], warnings: list[str]
) -> str:
    """What an answer without a call must be: text that no call begins like, or the answer schema."""
    dialect = get_dialect(constraint.dialect)
    if constraint.answer is None:
        return f"/{dialect.text}/"
    if isinstance(constraint.answer, JsonObject):
        schema: Schema = {"type": ["object"]}
    else:
        normal = normalise(constraint.answer.schema, strict=constraint.answer.strict, limits=limits)
        schema = normal.schema
        uses += normal.uses
        warnings += normal.warnings
    definitions = schema.get("$defs", {}) if isinstance(schema, dict) else {}
    if dialect.calls_are in types(schema, definitions):
        raise ConstraintRefused(
            "type",
            "",
            f"an answer that may be an {dialect.calls_are} cannot be told from calls: allow other types only",
        )
    return _block(schema, whitespace)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
