"""Floor 2: a constraint in, token masks out. Imports no backend until one is needed."""

from grammars.compiler import CompiledConstraint, GrammarCompiler
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
    Regex,
    Sequence,
    Tool,
    ToolCalls,
)
from grammars.dialects import ArgumentsDelta, Call, CallStarted, Dialect, StreamParser, TextDelta, get_dialect
from grammars.errors import CompileTimeout, ConstraintRefused, MatcherFailed
from grammars.limits import Limits
from grammars.matcher import Matcher

__all__ = [
    "Alternatives",
    "ArgumentsDelta",
    "Call",
    "CallStarted",
    "Choice",
    "CompileTimeout",
    "CompiledConstraint",
    "Constraint",
    "ConstraintRefused",
    "Copied",
    "Dialect",
    "FreeText",
    "Grammar",
    "GrammarCompiler",
    "JsonObject",
    "JsonSchema",
    "Layout",
    "Limits",
    "Matcher",
    "MatcherFailed",
    "Regex",
    "Sequence",
    "StreamParser",
    "TextDelta",
    "Tool",
    "ToolCalls",
    "get_dialect",
]
