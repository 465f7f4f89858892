"""The prompt format of the bundled models; `chat_template.jinja` says the same in Jinja and a test holds both together.

    [<|system|>text] [<|tools|>tool lines] [<|schema|>one line] <|user|>text <|assistant|> answer <|end|>

A tool line is a signature, `get_forecast(city:str,days?:int,unit?:celsius|fahrenheit) Get the weather forecast`: about
40 % shorter than the JSON definition, and the words in it are spelled as in sentences and answers.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

SPECIAL_TOKENS = (
    *("<|pad|>", "<|end|>", "<|system|>", "<|tools|>", "<|schema|>", "<|user|>", "<|assistant|>", "<|result|>"),
    *(f"<|reserved_{i}|>" for i in range(8)),
)
DESCRIPTION_WORDS = 14
SCALARS = {"string": "str", "integer": "int", "number": "num", "boolean": "bool", "null": "null"}

Schema = Mapping[str, Any]


def _deref(schema: Any, root: Schema, seen: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
    """Follow `$ref`, one-element `allOf` and null unions to the schema that they stand for."""
    while isinstance(schema, Mapping):
        if "$ref" in schema:
            ref = schema["$ref"]
            if ref in seen:
                return {}, seen
            seen = (*seen, ref)
            name = ref.split("/")[-1]
            schema = root.get("$defs", {}).get(name) or root.get("definitions", {}).get(name) or {}
            continue
        inner = [s for s in schema.get("anyOf") or schema.get("oneOf") or [] if s.get("type") != "null"]
        inner = inner or list(schema.get("allOf") or [])
        if len(inner) != 1:
            break
        schema = inner[0]
    return schema, seen


def _word(value: Any) -> str:
    """An enum value as the signature shows it: strings bare, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def kind(schema: Any, root: Schema, seen: tuple[str, ...] = ()) -> str:
    """The type of a value in signature notation; `any` for what the notation cannot say."""
    schema, seen = _deref(schema, root, seen)
    if not isinstance(schema, Mapping):
        return "any"
    if "const" in schema:
        return _word(schema["const"])
    if schema.get("enum"):
        return "|".join(_word(v) for v in schema["enum"] if v is not None)
    declared = schema.get("type")
    if isinstance(declared, Sequence) and not isinstance(declared, str):
        named = [t for t in declared if t != "null"]
        declared = named[0] if len(named) == 1 else None
    if declared == "object" or (declared is None and "properties" in schema):
        return "{" + _fields(schema, root, seen) + "}"
    if declared == "array":
        return "[" + kind(schema.get("items", {}), root, seen) + "]"
    return SCALARS.get(str(declared), "any")


def _fields(schema: Schema, root: Schema, seen: tuple[str, ...] = ()) -> str:
    """`city:str,days?:int`: the properties of an object schema, in their order."""
    required = schema.get("required") or []
    properties = schema.get("properties") or {}
    return ",".join(f"{n}{'' if n in required else '?'}:{kind(s, root, seen)}" for n, s in properties.items())


def _line(name: str, schema: Schema, description: str | None) -> str:
    """One tool or schema: name, signature, the first words of its description."""
    inner, seen = _deref(schema, schema, ())
    text = kind(inner, schema, seen)
    line = f"{name}({text[1:-1]})" if text.startswith("{") else f"{name}:{text}"
    about = " ".join((description or "").split()[:DESCRIPTION_WORDS])
    return f"{line} {about}" if about else line


def tool_line(tool: Mapping[str, Any]) -> str:
    """The line of one tool in OpenAI's form `{"type": "function", "function": {...}}`."""
    function = tool["function"]
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    return _line(function["name"], parameters, function.get("description"))


def schema_line(schema: Schema, name: str | None = None) -> str:
    """The line of an extraction schema; without `name` its title stands in front."""
    title = name if name is not None else schema.get("title") or ""
    return _line(title, schema, schema.get("description"))


def content_text(content: Any) -> str:
    """The text of a message's content: a string, nothing, or OpenAI's list of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def calls_text(tool_calls: Sequence[Mapping[str, Any]]) -> str:
    """An assistant's calls as the model writes them. Arguments given as a string stay as they are."""
    items = []
    for call in tool_calls:
        function = call["function"]
        given = function["arguments"]
        arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False, separators=(",", ":"))
        items.append(f'{{"name":{json.dumps(function["name"], ensure_ascii=False)},"arguments":{arguments}}}')
    return "[" + ",".join(items) + "]"


def preamble(
    tools: Sequence[Mapping[str, Any]] | None, schema: Schema | None, system: str | None, name: str | None = None
) -> str:
    """Everything before the first turn."""
    text = f"<|system|>{system}" if system else ""
    if tools:
        text += "<|tools|>" + "\n".join(map(tool_line, tools))
    if schema is not None:
        text += "<|schema|>" + schema_line(schema, name)
    return text


def turns(messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
    """The conversation without its system messages."""
    text = ""
    for message in messages:
        role, content = message["role"], content_text(message.get("content"))
        if role == "user":
            text += f"<|user|>{content}"
        elif role == "tool":
            text += f"<|result|>{content}"
        elif role == "assistant":
            calls = message.get("tool_calls")
            text += f"<|assistant|>{calls_text(calls) if calls else content}<|end|>"
    return text + ("<|assistant|>" if add_generation_prompt else "")


def render(
    tools: Sequence[Mapping[str, Any]] | None = None,
    schema: Schema | None = None,
    system: str | None = None,
    messages: Sequence[Mapping[str, Any]] = (),
    name: str | None = None,
    add_generation_prompt: bool = True,
) -> str:
    """The whole prompt. System messages follow `system`, joined by line breaks; `name` names the schema."""
    said = [system] if system else []
    said += [content_text(m.get("content")) for m in messages if m["role"] in ("system", "developer")]
    return preamble(tools, schema, "\n".join(said), name) + turns(messages, add_generation_prompt)
