"""The messages of a request as a chat template reads them: checked by role, text only, one dictionary per turn."""

from typing import Any

import msgspec

from gateway.openai.errors import ApiError, bad_request
from gateway.openai.schemas import ContentPart, Message, MessageToolCall

_ROLES = ("developer", "system", "user", "assistant", "tool")
_TEXT_PARTS = ("text", "refusal", "input_text", "output_text")


def template_messages(messages: list[Message]) -> list[dict[str, Any]]:
    """The conversation in the form of Hugging Face chat templates.

    `developer` becomes `system`, the name that templates know; text parts are joined by line breaks; arguments of
    earlier calls become objects where they are JSON objects, since templates print them with `tojson`.
    Raises ApiError 400 naming the message.
    """
    if not messages:
        raise bad_request("'messages' is empty; send at least one message.", "messages")
    return [_turn(message, f"messages[{i}]") for i, message in enumerate(messages)]


def conversation_text(messages: list[Message]) -> str:
    """All messages' text joined by newlines: what the router's text features read."""
    return "\n".join(filter(None, (_text(m.content, "messages") for m in messages)))


def given_text(messages: list[Message]) -> str:
    """The text of all messages that no model wrote, joined by newlines: what `copy_strings` copies from.

    Raises ApiError 400 naming the message whose content is no text.
    """
    given = [_text(m.content, f"messages[{i}]") for i, m in enumerate(messages) if m.role != "assistant"]
    return "\n".join(filter(None, given))


def _turn(message: Message, param: str) -> dict[str, Any]:
    if message.role not in _ROLES:
        role = f"'{message.role[:64]}'"
        raise bad_request(f"{param}.role is {role}; use one of {', '.join(_ROLES)}.", f"{param}.role")
    if message.function_call is not None:
        raise _unsupported(f"{param}.function_call", "send 'tool_calls' instead")
    if message.audio is not None:
        raise _unsupported(f"{param}.audio", "messages are text only")
    calls = message.tool_calls or []
    if calls and message.role != "assistant":
        raise bad_request(f"Only assistant messages have tool calls; {param} is '{message.role}'.", param)
    content = _text(message.content, param)
    if content is None:
        content = message.refusal
    if content is None and not calls:
        raise bad_request(f"{param}.content is missing; send a text.", f"{param}.content")
    turn: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": content or "",
    }
    if message.name is not None:
        turn["name"] = message.name
    if calls:
        turn["tool_calls"] = [_call(call, f"{param}.tool_calls[{i}]") for i, call in enumerate(calls)]
    if message.role == "tool":
        if not message.tool_call_id:
            raise bad_request(f"{param}.tool_call_id is missing; name the call that this answers.", param)
        turn["tool_call_id"] = message.tool_call_id
    return turn


def _text(content: str | list[ContentPart] | None, param: str) -> str | None:
    if content is None or isinstance(content, str):
        return content
    texts = []
    for i, part in enumerate(content):
        if part.type not in _TEXT_PARTS:
            kind = part.type[:64]
            raise _unsupported(f"{param}.content[{i}]", f"parts of type '{kind}' are not served; send text parts")
        text = part.refusal if part.type == "refusal" else part.text
        if text is None:
            raise bad_request(f"{param}.content[{i}] has no text.", f"{param}.content[{i}]")
        texts.append(text)
    return "\n".join(texts)


def _call(call: MessageToolCall, param: str) -> dict[str, Any]:
    if call.type != "function":
        raise _unsupported(f"{param}.type", "only calls of functions are served")
    arguments: Any = call.function.arguments
    try:
        parsed = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        parsed = None  # the model wrote it once, so it is shown to it again as it was
    if isinstance(parsed, dict):
        arguments = parsed
    return {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": arguments}}


def _unsupported(param: str, why: str) -> ApiError:
    return ApiError(400, "unsupported_parameter", f"{param} is not supported: {why}.", param=param)
