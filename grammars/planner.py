"""Which backend gets a constraint, and in what words: decided here alone, first by what each enforces exactly.

llguidance is exact for what `normal_form.py` holds, or refuses; it is lazy, so that a schema costs milliseconds where
xgrammar compiles its strings into tens to thousands. So it holds schemas, JSON objects, tool calls, Lark, and most
choices and regular expressions. xgrammar holds EBNF, which it alone reads. outlines-core holds the expressions and
choices whose whole automaton is small enough to be indexed at once. What no grammar says (the rules of `tracking`,
indentation, copied strings) is an overlay; combinators are `combinators.py`'s.
"""

import json
import re
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from grammars.automata import lengths, n_states
from grammars.closed_arguments import closed
from grammars.combinators import plan_combined
from grammars.constraint import (
    Alternatives,
    Choice,
    Constraint,
    Copied,
    FreeText,
    Grammar,
    JsonObject,
    JsonSchema,
    Layout,
    Order,
    Regex,
    Sequence,
    Tool,
    ToolCalls,
    Whitespace,
)
from grammars.dialects import Dialect, get_dialect
from grammars.dialects.python_rules import PythonRules
from grammars.errors import ConstraintRefused
from grammars.json_schema import Normalised, normalise
from grammars.lark import check_lark, json_block
from grammars.limits import Limits
from grammars.normal_form import Schema, types
from grammars.plan import AnyPlan, Overlay, Plan, PreludePlan, UnionPlan
from grammars.pointer import child
from grammars.regex import full_patterns
from grammars.regex_syntax import RegexRefused
from grammars.regex_text import literal
from grammars.second_reader import endless_rule
from grammars.tracking.branches import branches, kinds
from grammars.tracking.calls import add_calls
from grammars.tracking.relax import CannotHold, relax, unruled
from grammars.tracking.rules import Rules
from grammars.tracking.state import Tracking

__all__ = ["AnyPlan", "Plan", "Whitespace", "plan"]


_SMALL_INDEX: Final = 64_000
"""States of an automaton times tokens of the vocabulary up to which outlines-core's index is made in less time than
llguidance takes for its first mask, and its masks are the fastest (measured at 2,048 and at 151,665 tokens)."""


def plan(
    constraint: Constraint, whitespace: Whitespace = "compact", limits: Limits | None = None, n_tokens: int = 0
) -> AnyPlan:
    """Choose the backend. Raises ConstraintRefused for what is malformed, too large or beyond every backend.

    whitespace: of JSON whose constraint names no layout. n_tokens: of the vocabulary, 0 where it is not known.
    """
    return _Planner(Layout(whitespace), limits or Limits(), n_tokens).plan(constraint)


@dataclass(frozen=True, slots=True)
class _Block:
    """A JSON schema in Lark: the right side of a rule, and the node of its values in the rules kept beside it."""

    lark: str
    node: int
    warnings: tuple[str, ...] = ()


def _schema_block(normal: Normalised, layout: Layout, order: Order, pointer: str, rules: Rules | None) -> _Block:
    """The one way in which a normal schema becomes Lark and rules. pointer: of the schema, for refusals.

    rules: where they are added; None where none can be kept, and the backend has to hold all of the schema.
    """
    if rules is None and order == "any":
        raise ConstraintRefused(
            "property_order", pointer, "`any` needs rules beside the grammar, which a part between others cannot have"
        )
    try:
        relaxed = unruled(normal.schema) if rules is None else relax(normal.schema, rules, order)
    except CannotHold as error:
        where = next((at for keyword, at in normal.uses if keyword == error.keyword), pointer)
        raise ConstraintRefused(error.keyword, where, error.reason) from error
    except RegexRefused as error:
        raise ConstraintRefused("patternProperties", pointer, f"beside declared names {error}") from error
    warnings: tuple[str, ...] = ()
    if relaxed.ordered:
        why = "where objects of several shapes cannot be told apart by their place or a first member"
        warnings = (f"property_order at {pointer or '(root)'}: stays `declared` {why}",)
    return _Block(json_block(relaxed.schema, layout, pointer), relaxed.node, warnings)


@dataclass(frozen=True, slots=True)
class _Planner:
    """Plans one constraint. layout: of JSON that names none. n_tokens: of the vocabulary."""

    layout: Layout
    limits: Limits
    n_tokens: int

    def plan(self, constraint: Constraint, pointer: str = "", *, is_nested: bool = False) -> AnyPlan:
        """The plan. pointer: of the constraint within the client's own, the start of every refusal's.

        is_nested: see `combinators.PlanPart`.
        """
        match constraint:
            case JsonSchema():
                return self._schema(constraint, pointer, is_nested=is_nested)
            case JsonObject():
                return self._object(constraint, pointer)
            case Regex():
                return _plan_regex(constraint, pointer, 0 if is_nested else self.n_tokens)
            case Choice():
                return _plan_choice(constraint, pointer, self.limits, 0 if is_nested else self.n_tokens)
            case Grammar():
                return _plan_grammar(constraint, pointer, self.limits)
            case ToolCalls():
                return self._tools(constraint, pointer)
            case Copied():
                return self._copied(constraint, pointer)
            case FreeText() | Sequence() | Alternatives():
                return plan_combined(constraint, pointer, self.plan, self.limits)

    def _schema(self, constraint: JsonSchema, pointer: str, *, is_nested: bool = False) -> Plan:
        layout = self._layout(constraint.layout, pointer)
        normal = normalise(constraint.schema, strict=constraint.strict, pointer=pointer, limits=self.limits)
        rules = None if is_nested else Rules()
        block = _schema_block(normal, layout, constraint.order, pointer, rules)
        overlays: tuple[Overlay, ...] = ()
        if rules is not None:
            rules.root = block.node
            overlays = (Tracking(rules),)
        return Plan(
            "llguidance",
            f"start: {block.lark}",
            "schema",
            (*normal.warnings, *block.warnings),
            normal.uses,
            (*overlays, *_indentation(layout)),
            is_delimited="number" not in types(normal.schema, _definitions(normal.schema)),
        )

    def _object(self, constraint: JsonObject, pointer: str) -> Plan:
        layout = self._layout(constraint.layout, pointer)
        block = json_block({"type": ["object"]}, layout)
        return Plan("llguidance", f"start: {block}", "schema", overlays=_indentation(layout), is_delimited=True)

    def _copied(self, constraint: Copied, pointer: str) -> AnyPlan:
        """Within a combinator: an answer that is `Copied` as a whole never comes here, see `compiler.py`."""
        from grammars.copying import CopyRule

        if len(constraint.text) > self.limits.copied_chars:
            raise ConstraintRefused(
                "copy_strings", pointer, f"the text has more than {self.limits.copied_chars} characters: shorten it"
            )
        inner = constraint.inner
        found = self._schema(inner, pointer) if isinstance(inner, JsonSchema) else self._tools(inner, pointer)
        return replace(found, overlays=(*found.overlays, CopyRule(constraint)))

    def _tools(self, constraint: ToolCalls, pointer: str) -> AnyPlan:
        limits, at = self.limits, child(pointer, "tools")
        dialect = get_dialect(constraint.dialect)
        layout = self._layout_of_calls(constraint, dialect, pointer)
        if not constraint.tools:
            raise ConstraintRefused("tools", at, "is empty: offer at least one tool, or leave it out")
        if len(constraint.tools) > limits.tools:
            raise ConstraintRefused("tools", at, f"offers more than {limits.tools} tools: offer fewer")
        if constraint.mode == "required" and constraint.answer is not None:
            raise ConstraintRefused(
                "tools", at, "are required, so an answer schema could never apply: drop one of them"
            )
        names = [tool.name for tool in constraint.tools]
        warnings: list[str] = []
        uses: list[tuple[str, str]] = []
        rules: list[str] = []
        kept = Rules()
        arguments: dict[str, int] = {}
        for i, tool in enumerate(constraint.tools):
            if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", tool.name):
                raise ConstraintRefused(
                    "name", child(at, i, "function", "name"), "must be 1 to 64 of A-Z a-z 0-9 _ - and ."
                )
            where = child(at, i, "function", "parameters")
            normal = _arguments(tool, where, limits)
            warnings += normal.warnings
            uses += normal.uses
            if not dialect.is_json:
                written = PythonRules(f"p{i}", where, normal.uses, _definitions(normal.schema))
                rules += written.arguments(f"args_{i}", normal.schema)
                continue
            block = _schema_block(normal, layout, constraint.order, where, kept)
            rules.append(f"args_{i}: {block.lark}")
            arguments[tool.name] = block.node
            warnings += block.warnings
        if len(set(names)) < len(names):
            raise ConstraintRefused("name", at, "is used by two tools: give each its own name")
        rules.append(dialect.calls(names, parallel=constraint.parallel, spaced=layout.whitespace == "single"))
        calls = Plan(
            "llguidance",
            "start: calls\n" + "\n".join(rules),
            "tools",
            tuple(dict.fromkeys(warnings)),
            tuple(uses),
            is_delimited=True,
        )
        if dialect.marker:
            add_calls(kept, dialect, arguments)
            return self._behind_markers(constraint, replace(calls, overlays=(Tracking(kept),)), pointer)
        if not dialect.is_json:
            return self._beside(constraint, calls, pointer)
        if dialect.tells and constraint.answer is not None:
            add_calls(kept, dialect, arguments)
            alone = msgspec.structs.replace(constraint, answer=None)
            overlays = (Tracking(kept), *_indentation(layout, alone))
            return self._beside(constraint, replace(calls, overlays=overlays), pointer)
        answer = None
        if constraint.mode == "auto":
            other, answer = self._otherwise(constraint, pointer, kept)
            calls = _either(calls, other)
        is_text = constraint.mode == "auto" and constraint.answer is None
        add_calls(kept, dialect, arguments, answer, text=is_text)
        return replace(calls, overlays=(Tracking(kept), *_indentation(layout, constraint)))

    def _behind_markers(self, constraint: ToolCalls, calls: Plan, pointer: str) -> AnyPlan:
        """Calls that begin behind a marker, which free text may come before; `calls` is what follows the first one."""
        marker = get_dialect(constraint.dialect).marker
        if constraint.mode == "auto" and constraint.answer is None:
            return PreludePlan((FreeText(marker),), calls, pointer, "tools", may_end=True)
        # Models put line breaks between their thoughts and a call.
        opening = Choice(tuple(blank + marker for blank in ("", "\n", "\n\n")))
        begun = PreludePlan((opening,), calls, pointer, "tools")
        return begun if constraint.answer is None else UnionPlan((begun, self._answer(constraint, pointer)), "tools")

    def _beside(self, constraint: ToolCalls, calls: Plan, pointer: str) -> AnyPlan:
        """Calls, or an answer without any in a grammar of its own: beside calls that are no JSON, or that begin like
        one."""
        if constraint.mode == "required":
            return calls
        if constraint.answer is None:
            return _either(calls, self._otherwise(constraint, pointer, Rules())[0])
        self._otherwise(constraint, pointer, Rules())  # refuses answers that begin like calls
        return UnionPlan((calls, self._answer(constraint, pointer)), "tools")

    def _answer(self, constraint: ToolCalls, pointer: str) -> Plan:
        """The plan of an answer that calls nothing, on its own."""
        layout = self._layout(constraint.layout, pointer)
        if isinstance(constraint.answer, JsonSchema):
            return self._schema(msgspec.structs.replace(constraint.answer, layout=layout), pointer)
        return self._object(JsonObject(layout), pointer)

    def _otherwise(self, constraint: ToolCalls, pointer: str, rules: Rules) -> tuple[Plan, int | None]:
        """What an answer without a call must be: text that no call begins like, or the answer schema.

        (The plan, whose source is the right side of a rule; the node of the answer's values.) Its layout is that of the
        calls.
        """
        dialect, answer = get_dialect(constraint.dialect), constraint.answer
        if answer is None:
            return Plan(
                "llguidance", f"/{dialect.text}/" + (f" | {dialect.no_calls}" if dialect.no_calls else ""), "tools"
            ), None
        layout = self._layout(constraint.layout, pointer)
        if isinstance(answer, JsonObject):
            normal, order = Normalised({"type": ["object"]}, (), ()), constraint.order
        else:
            normal = normalise(answer.schema, strict=answer.strict, pointer=pointer, limits=self.limits)
            order = answer.order
        of = types(normal.schema, _definitions(normal.schema))
        if dialect.calls_are in of and not _is_told_apart(normal.schema, dialect.tells):
            raise ConstraintRefused(
                "type",
                pointer,
                f"an answer that may be an {dialect.calls_are} cannot be told from calls: {_remedy(dialect)}",
            )
        block = _schema_block(normal, layout, order, pointer, rules)
        found = Plan(
            "llguidance",
            block.lark,
            "schema",
            (*normal.warnings, *block.warnings),
            normal.uses,
            is_delimited="number" not in of,
        )
        return found, block.node

    def _layout_of_calls(self, constraint: ToolCalls, dialect: Dialect, pointer: str) -> Layout:
        """The layout of arguments: the client's own, else the one that models of the format were trained on."""
        layout = self._layout(constraint.layout, pointer)
        is_plain = not dialect.marker and dialect.is_json
        if layout.whitespace == "indented" and not is_plain:
            raise ConstraintRefused(
                "indent", pointer, f"the calls of this model ({dialect.name}) are not indented: drop it, or the tools"
            )
        if constraint.order == "any" and not dialect.is_json:
            raise ConstraintRefused(
                "property_order", pointer, f"`any` is not held in this model's calls ({dialect.name}): leave it out"
            )
        spaced = constraint.layout is None and layout.whitespace == "compact" and dialect.is_spaced
        return Layout("single") if spaced else layout

    def _layout(self, own: Layout | None, pointer: str) -> Layout:
        layout = own or self.layout
        if layout.whitespace == "indented" and not 1 <= layout.indent <= 8:
            raise ConstraintRefused("indent", pointer, f"is {layout.indent}: give 1 to 8 spaces")
        return layout


def _either(calls: Plan, other: Plan) -> Plan:
    """One grammar of calls and of what is none; `other` holds the right side of a rule."""
    start, _, rules = calls.source.partition("\n")
    return replace(
        calls,
        source=f"{start} | otherwise\n{rules}\notherwise: {other.source}",
        warnings=tuple(dict.fromkeys((*calls.warnings, *other.warnings))),
        uses=(*calls.uses, *other.uses),
        is_delimited=other.is_delimited,
    )


def _indentation(layout: Layout, calls: ToolCalls | None = None) -> tuple[Overlay, ...]:
    """The overlay that indented text needs. calls: where only arguments are indented, and what is no call."""
    if layout.whitespace != "indented":
        return ()
    from grammars.indentation import Indentation

    if calls is None:
        return (Indentation(layout.indent),)
    return (Indentation(layout.indent, calls.dialect, calls.mode == "auto" and calls.answer is not None),)


def _is_told_apart(schema: Schema, tells: tuple[str, ...]) -> bool:
    """Whether no value of a normal schema is an object with all these members."""
    if not tells:
        return False
    root = {name: value for name, value in schema.items() if name != "$defs"} if isinstance(schema, dict) else schema
    found = branches(root, _definitions(schema))
    return found is not None and all(
        any(not _may_have(branch, name) for name in tells) for branch in found if "object" in kinds(branch)
    )


def _may_have(branch: dict[str, Any], name: str) -> bool:
    if "enum" in branch or branch.get("patternProperties"):
        return True
    member = branch.get("properties", {}).get(name, branch.get("additionalProperties", True))
    return member is not False


def _remedy(dialect: Dialect) -> str:
    if not dialect.tells:
        return "allow other types only"
    together = " together" if len(dialect.tells) > 1 else ""
    return f"close its objects without {' and '.join(map(repr, dialect.tells))}{together}"


def _definitions(schema: Schema) -> dict[str, Schema]:
    return schema.get("$defs", {}) if isinstance(schema, dict) else {}


def _plan_regex(constraint: Regex, pointer: str, n_tokens: int) -> Plan:
    """Which backend holds an expression: outlines-core a small one in a small vocabulary, else llguidance."""
    try:
        patterns = full_patterns(constraint.pattern)
    except RegexRefused as error:
        raise ConstraintRefused("regex", pointer, f"the expression {error}") from error
    if len(patterns) == 1:
        if _has_small_index(patterns[0], n_tokens):
            return Plan("outlines", patterns[0], "regex")
        return Plan("llguidance", f"start: /(?:{patterns[0]})/", "regex")
    return Plan("llguidance", "start: WHOLE\nWHOLE: " + " & ".join(f"/(?:{one})/" for one in patterns), "regex")


def _has_small_index(pattern: str, n_tokens: int) -> bool:
    if not n_tokens or lengths(pattern)[0] == 0:
        return False  # the index cannot begin at an end of the text
    found = n_states(pattern, _SMALL_INDEX // n_tokens)
    return found is not None and 0 < found * n_tokens <= _SMALL_INDEX


def _plan_choice(constraint: Choice, pointer: str, limits: Limits, n_tokens: int) -> Plan:
    """Which backend holds a choice: outlines-core a few in a small vocabulary, else llguidance."""
    if not constraint.choices:
        raise ConstraintRefused("choice", pointer, "has no choices: give at least one")
    if len(constraint.choices) > limits.choices or sum(map(len, constraint.choices)) > limits.grammar_chars:
        raise ConstraintRefused(
            "choice",
            pointer,
            f"is larger than {limits.choices} choices or {limits.grammar_chars} characters: offer fewer",
        )
    if any("\x00" in choice for choice in constraint.choices):
        raise ConstraintRefused("choice", pointer, "holds a NUL character: remove it")
    choices = list(dict.fromkeys(constraint.choices))
    if sum(map(len, choices)) * n_tokens <= _SMALL_INDEX:
        pattern = "|".join(map(literal, choices))
        if _has_small_index(pattern, n_tokens):
            return Plan("outlines", pattern, "choice")
    return Plan("llguidance", "start: " + " | ".join(map(_quoted, choices)), "choice")


def _plan_grammar(constraint: Grammar, pointer: str, limits: Limits) -> Plan:
    """Which backend holds a grammar: xgrammar EBNF, llguidance Lark."""
    if not constraint.text.strip():
        raise ConstraintRefused("grammar", pointer, "is empty: give at least the start rule")
    if len(constraint.text) > limits.grammar_chars:
        raise ConstraintRefused("grammar", pointer, f"has more than {limits.grammar_chars} characters: shorten it")
    if "\x00" in constraint.text:
        raise ConstraintRefused("grammar", pointer, "holds a NUL character: remove it")
    for count in re.findall(r"\{\s*\d*\s*,?\s*(\d+)\s*\}", constraint.text):
        if len(count) > 9 or int(count) > limits.count:
            raise ConstraintRefused("grammar", pointer, f"repeats more than {limits.count} times: use `*` or `+`")
    depth = deepest = 0
    for char in constraint.text:
        depth += (char in "([") - (char in ")]")
        deepest = max(deepest, depth)
    if deepest > limits.grammar_depth:
        raise ConstraintRefused(
            "grammar", pointer, f"nests more than {limits.grammar_depth} groups: name some as rules"
        )
    if (name := endless_rule(constraint)) is not None:
        raise ConstraintRefused("grammar", pointer, f"the rule {name} never ends: give it an option without itself")
    if constraint.syntax == "lark":
        check_lark(constraint.text, pointer)
        return Plan("llguidance", constraint.text, "grammar")
    return Plan("xgrammar", constraint.text, "grammar")


def _arguments(tool: Tool, pointer: str, limits: Limits) -> Normalised:
    """The schema of a tool's arguments, held to objects."""
    schema: Any = tool.parameters
    if schema is None or schema == {}:
        # No parameters means no arguments (OpenAI); an empty schema is how clients say the same.
        schema = {"type": "object", "additionalProperties": False}
    try:
        return normalise(closed(schema), strict=tool.strict, pointer=pointer, limits=limits, kind="object")
    except ConstraintRefused as refusal:
        if refusal.keyword != "schema" or refusal.pointer != pointer:
            raise
        raise ConstraintRefused("type", pointer, 'arguments are an object: set `"type": "object"`') from refusal


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
