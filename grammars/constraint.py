"""What a request can ask for, as plain data: every constraint is a tagged msgspec struct and travels between processes.

Nothing here knows a tokenizer or a backend. `compiler.py` turns a constraint into a matcher, or refuses it.
"""

from typing import Any, Literal

import msgspec


class JsonSchema(msgspec.Struct, frozen=True, tag="json_schema"):
    """The answer is one JSON value that satisfies `schema` (JSON Schema draft-04 to 2020-12; `$schema` decides)."""

    schema: dict[str, Any] | bool
    strict: bool = False


class JsonObject(msgspec.Struct, frozen=True, tag="json_object"):
    """The answer is one JSON object, of any shape."""


class Regex(msgspec.Struct, frozen=True, tag="regex"):
    """The whole answer matches `pattern` (anchored at both ends)."""

    pattern: str


class Choice(msgspec.Struct, frozen=True, tag="choice"):
    """The answer is one of `choices`, literally."""

    choices: tuple[str, ...]


class Grammar(msgspec.Struct, frozen=True, tag="grammar"):
    """The answer is a sentence of a context-free grammar whose start rule is `root` (EBNF) or `start` (Lark)."""

    text: str
    syntax: Literal["ebnf", "lark"] = "ebnf"


class Tool(msgspec.Struct, frozen=True):
    """One function offered to the model. `parameters` is a JSON Schema of an object; None means no arguments."""

    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None
    strict: bool = False


class ToolCalls(msgspec.Struct, frozen=True, tag="tool_calls"):
    """The answer calls tools, in the dialect of the model.

    mode: `auto` (calls, or text, or `answer` where given), `required` (at least one call). A named tool is `required`
    with that tool alone. parallel: more than one call is allowed. answer: what a non-call must satisfy (None: any
    text).
    """

    tools: tuple[Tool, ...]
    mode: Literal["auto", "required"] = "auto"
    parallel: bool = True
    dialect: str = "xlam"
    answer: "JsonSchema | JsonObject | None" = None


class Copied(msgspec.Struct, frozen=True, tag="copied"):
    """`inner`, with every free string value of the answer a part of `text` and not empty.

    Free is a value whose schema is plainly `{"type": "string"}`, beside which only annotations stand (see
    `free_strings.py`). Right for values lifted from a conversation, wrong where they are reworded or made up.
    """

    inner: JsonSchema | ToolCalls
    text: str


Constraint = JsonSchema | JsonObject | Regex | Choice | Grammar | ToolCalls | Copied
