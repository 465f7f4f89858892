"""What a request can ask for, as plain data: every constraint is a tagged msgspec struct and travels between processes.

Nothing here knows a tokenizer or a backend. `compiler.py` turns a constraint into a matcher, or refuses it.
`Sequence` and `Alternatives` combine constraints: "think, then answer in this schema" is one of them.
"""

from typing import Any, Literal

import msgspec

Whitespace = Literal["compact", "single", "indented"]
Order = Literal["declared", "any"]


class Layout(msgspec.Struct, frozen=True):
    """The white space between the tokens of JSON.

    whitespace: `compact` writes none; `single` also allows one space after each comma and colon; `indented` writes
    exactly what Python's `json.dumps(value, indent=indent, ensure_ascii=False)` does. indent: spaces a level, 1 to 8,
    read for `indented` alone.
    """

    whitespace: Whitespace = "compact"
    indent: int = 2


class JsonSchema(msgspec.Struct, frozen=True, tag="json_schema"):
    """The answer is one JSON value that satisfies `schema` (JSON Schema draft-04 to 2020-12; `$schema` decides).

    order: of the members of objects; `declared` is the order of the schema. layout: None is the compiler's own.
    """

    schema: dict[str, Any] | bool
    strict: bool = False
    order: Order = "declared"
    layout: Layout | None = None


class JsonObject(msgspec.Struct, frozen=True, tag="json_object"):
    """The answer is one JSON object, of any shape. layout: None is the compiler's own."""

    layout: Layout | None = None


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
    text). order, layout: of the arguments; the list of calls around them is never indented.
    """

    tools: tuple[Tool, ...]
    mode: Literal["auto", "required"] = "auto"
    parallel: bool = True
    dialect: str = "xlam"
    answer: JsonSchema | JsonObject | None = None
    order: Order = "declared"
    layout: Layout | None = None


class Copied(msgspec.Struct, frozen=True, tag="copied"):
    """`inner`, with every free string value of the answer a part of `text` and not empty.

    Free is a value whose schema is plainly `{"type": "string"}`, beside which only annotations stand (see
    `free_strings.py`). Right for values lifted from a conversation, wrong where they are reworded or made up.
    """

    inner: JsonSchema | ToolCalls
    text: str


class FreeText(msgspec.Struct, frozen=True, tag="free_text"):
    """Any text, up to and including the first `until`; without `until`, any text to the end of the answer.

    `until` counts wherever it is spelled out, in however many tokens; special tokens never appear in an answer.
    max_tokens: how many tokens may begin in the text. Once they are used up, the shortest way to the end of `until` is
    all that is left (without `until`: the end of the answer).
    """

    until: str | None = None
    max_tokens: int | None = None


class Sequence(msgspec.Struct, frozen=True, tag="sequence"):
    """The answer is a text of each part, one right after the other."""

    parts: "tuple[Constraint, ...]"


class Alternatives(msgspec.Struct, frozen=True, tag="alternatives"):
    """The answer is a text of one of the parts."""

    parts: "tuple[Constraint, ...]"


Constraint = (
    JsonSchema | JsonObject | Regex | Choice | Grammar | ToolCalls | Copied | FreeText | Sequence | Alternatives
)
