"""`tools`, `tool_choice` and `parallel_tool_calls` as what a prompt shows and a constraint allows."""

import re
from dataclasses import dataclass
from typing import Literal

from gateway.openai.errors import ApiError, bad_request, unsupported
from gateway.openai.schemas import AllowedTools, ChatRequest, ToolChoice, ToolParam
from grammars.constraint import Tool

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class ToolUse:
    """What this turn may call.

    offered: all tools, for the prompt; callable: those that the answer may call (empty: none);
    indices: position in the request's `tools` of each callable one, so that a refusal can name it.
    """

    offered: tuple[Tool, ...] = ()
    callable: tuple[Tool, ...] = ()
    indices: tuple[int, ...] = ()
    mode: Literal["auto", "required"] = "auto"
    parallel: bool = True


def tool_use(request: ChatRequest) -> ToolUse:
    """Read the three fields. A named tool is exactly one call of that tool, as OpenAI answers it.

    Raises ApiError 400 naming the tool or the field.
    """
    tools = tuple(_tool(param, i) for i, param in enumerate(request.tools or ()))
    names = [tool.name for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise bad_request(f"'tools' has two functions called '{twice}'; rename one.", "tools")
    choice = request.tool_choice
    parallel = True if request.parallel_tool_calls is None else request.parallel_tool_calls
    if choice is None or choice == "none":
        if choice == "none" or not tools:
            return ToolUse(offered=tools)
        choice = "auto"
    if not tools:
        raise bad_request("'tool_choice' needs 'tools'.", "tool_choice")
    if isinstance(choice, str):
        return ToolUse(tools, tools, tuple(range(len(tools))), _mode(choice, "tool_choice"), parallel)
    if choice.type == "function":
        index = _index(names, _named(choice), "tool_choice.function.name")
        return ToolUse(tools, (tools[index],), (index,), "required", parallel=False)
    if choice.type == "allowed_tools" and choice.allowed_tools is not None:
        indices = _allowed(names, choice.allowed_tools)
        mode = _mode(choice.allowed_tools.mode, "tool_choice.allowed_tools.mode")
        return ToolUse(tools, tuple(tools[i] for i in indices), indices, mode, parallel)
    raise unsupported("tool_choice", "use none, auto, required, a function or allowed_tools.")


def _tool(param: ToolParam, index: int) -> Tool:
    where = f"tools[{index}]"
    if param.type != "function":
        raise ApiError(
            400,
            "unsupported_parameter",
            f"{where}.type is '{param.type[:64]}'; only functions are served.",
            param=f"{where}.type",
        )
    if param.function is None:
        raise bad_request(f"{where}.function is missing.", f"{where}.function", "missing_required_parameter")
    function = param.function
    check_name(function.name, f"{where}.function.name")
    return Tool(function.name, function.description or "", function.parameters, bool(function.strict))


def check_name(name: str, param: str) -> None:
    """Raise ApiError 400 unless the name follows OpenAI's rule."""
    if NAME.fullmatch(name) is None:
        raise bad_request(f"{param} is '{name[:64]}'; use 1 to 64 letters, digits, underscores and dashes.", param)


def _mode(mode: str, param: str) -> Literal["auto", "required"]:
    if mode == "auto":
        return "auto"
    if mode == "required":
        return "required"
    raise bad_request(f"'{param}' is '{mode[:64]}'; use auto or required (tool_choice alone also none).", param)


def _named(choice: ToolChoice) -> str:
    if choice.function is None:
        raise bad_request("'tool_choice.function' is missing; name the function.", "tool_choice.function")
    return choice.function.name


def _allowed(names: list[str], allowed: AllowedTools) -> tuple[int, ...]:
    param = "tool_choice.allowed_tools.tools"
    indices = []
    for tool in allowed.tools:
        name = tool.function.name if tool.function is not None else tool.name
        if tool.type != "function" or name is None:
            raise bad_request(f"'{param}' names functions only.", param)
        indices.append(_index(names, name, param))
    if not indices:
        raise bad_request(f"'{param}' is empty; name the functions that may be called.", param)
    return tuple(sorted(set(indices)))


def _index(names: list[str], name: str, param: str) -> int:
    if name not in names:
        raise bad_request(f"'{param}' names '{name[:64]}', which is not among the tools.", param)
    return names.index(name)
