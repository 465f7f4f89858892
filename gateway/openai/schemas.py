"""The request of `POST /v1/chat/completions`, as openai 3.52 and vLLM's clients send it; null means absent."""

from typing import Any, Literal

import msgspec

from gateway.routing.ask import RoutingAsk


class ContentPart(msgspec.Struct):
    """One part of a message's content; only `text` and `refusal` parts are served."""

    type: str
    text: str | None = None
    refusal: str | None = None


class CalledFunction(msgspec.Struct):
    """What an earlier assistant turn called; `arguments` is a JSON text."""

    name: str
    arguments: str = "{}"


class MessageToolCall(msgspec.Struct):
    """A call in an earlier assistant turn."""

    function: CalledFunction
    id: str = ""
    type: str = "function"


class Message(msgspec.Struct):
    """One turn of the conversation."""

    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: str | None = None
    function_call: Any = None
    audio: Any = None


class FunctionTool(msgspec.Struct):
    """A function offered to the model; `parameters` is a JSON Schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolParam(msgspec.Struct):
    """An entry of `tools`."""

    type: str = "function"
    function: FunctionTool | None = None


class NamedFunction(msgspec.Struct):
    """The name in a named tool_choice."""

    name: str


class AllowedTool(msgspec.Struct):
    """A reference to an offered tool, in either of the two forms that clients send."""

    type: str = "function"
    function: NamedFunction | None = None
    name: str | None = None


class AllowedTools(msgspec.Struct, forbid_unknown_fields=True):
    """The subset of the tools that this turn may call."""

    mode: str
    tools: list[AllowedTool]


class ToolChoice(msgspec.Struct, forbid_unknown_fields=True):
    """The object form of `tool_choice`."""

    type: str
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None
    custom: Any = None


class JsonSchemaFormat(msgspec.Struct, forbid_unknown_fields=True):
    """`response_format.json_schema`."""

    name: str = "response"
    description: str | None = None
    schema: dict[str, Any] | bool | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, forbid_unknown_fields=True):
    """`response_format`; unknown members are errors, since each could be a constraint."""

    type: str
    json_schema: JsonSchemaFormat | None = None
    schema: Any = None
    structural_tag: Any = None


class FreeTextParam(msgspec.Struct, forbid_unknown_fields=True):
    """Any text up to and including the first `until`; null is to the end of the answer."""

    until: str | None = None
    max_tokens: int | None = None


class PartParam(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a sequence or an alternative: exactly one member is set."""

    json: dict[str, Any] | str | bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    free_text: FreeTextParam | None = None
    sequence: "list[PartParam] | None" = None
    alternatives: "list[PartParam] | None" = None


class StructuredOutputs(msgspec.Struct, forbid_unknown_fields=True):
    """vLLM's `structured_outputs`, and more: at most one of the first seven is set, the last ones are refused unless
    null.

    sequence and alternatives combine parts. reasoning, copy_strings, whitespace, indent and property_order are said of
    whatever constrains the answer, here or elsewhere in the request.
    """

    json: dict[str, Any] | str | bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    sequence: list[PartParam] | None = None
    alternatives: list[PartParam] | None = None
    reasoning: FreeTextParam | None = None
    copy_strings: bool | None = None
    whitespace: Literal["compact", "single", "indented"] | None = None
    indent: int | None = None
    property_order: Literal["declared", "any"] | None = None
    structural_tag: Any = None
    whitespace_pattern: Any = None
    disable_any_whitespace: bool | None = None
    disable_fallback: bool | None = None
    disable_additional_properties: bool | None = None


class Prediction(msgspec.Struct):
    """`prediction`: what the answer's content is expected to be, as a text or as its parts."""

    type: str
    content: str | list[ContentPart]


class StreamOptions(msgspec.Struct):
    """`stream_options`; obfuscation is accepted and not applied."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None


class ChatRequest(msgspec.Struct, kw_only=True):
    """The body. Limits and meanings are checked by the modules that use the fields."""

    messages: list[Message]
    model: str = "auto"
    # tools and constraints
    tools: list[ToolParam] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | str | bool | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    # sampling
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    ignore_eos: bool | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    # routing
    router: RoutingAsk | None = None
    # delivery and bookkeeping
    prediction: Prediction | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    modalities: list[str] | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    store: bool | None = None
    service_tier: str | None = None
    verbosity: str | None = None
    priority: int | None = None
    cache_salt: str | None = None
    prompt_cache_key: str | None = None
