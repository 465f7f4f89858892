"""xLAM v1 (function calling): `{"tool_calls":[{"name":"f","arguments":{…}},…]}`."""

import json
from collections.abc import Sequence
from typing import Any

from grammars.constraint import Tool
from grammars.dialects.base import BaseDialect
from grammars.dialects.call_rules import described, list_rules
from grammars.dialects.dialect import Call

_TASK = (
    "You can call the functions below. Choose those that the query needs, and fill in their parameters from it. "
    "Where none of them fits, or a parameter is not given, say so instead."
)


class XlamV1(BaseDialect):
    """The format of xLAM-1b-fc-r and xLAM-7b-fc-r, without white space. No call is `{"tool_calls":[]}`, as they were
    taught, or text that begins otherwise.

    Their prompt is one user turn of four blocks, in which the parameters of a tool are its properties alone.
    """

    name = "xlam_v1"
    calls_are = "object"
    tells: tuple[str, ...] = ("tool_calls",)
    calls_at: tuple[str, ...] | None = ("tool_calls",)
    is_spaced = False
    text = r"[^\{][\s\S]*"
    no_calls = "no_calls"

    def present(self, messages: list[dict[str, Any]], tools: Sequence[Tool]) -> list[dict[str, Any]]:
        """The conversation with the blocks around the words of its last user turn."""
        at = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=None)
        if at is None:
            return super().present(messages, tools)
        shown = [one | {"parameters": _properties(one["parameters"])} for one in described(tools)]
        example = self.write([Call("function", '{"parameter":"value"}')])
        blocks = {
            "TASK INSTRUCTION": _TASK,
            "AVAILABLE TOOLS": json.dumps(shown, ensure_ascii=False),
            "FORMAT INSTRUCTION": f"To call functions, answer only with JSON of this form: {example}",
            "QUERY": messages[at]["content"],
        }
        text = "".join(f"[BEGIN OF {name}]\n{body}\n[END OF {name}]\n\n" for name, body in blocks.items())
        return [*messages[:at], messages[at] | {"content": text}, *messages[at + 1 :]]

    def write(self, calls: Sequence[Call]) -> str:
        """An object that holds the list."""
        return '{"tool_calls":' + super().write(calls) + "}"

    def calls(self, names: Sequence[str], *, parallel: bool, spaced: bool) -> str:
        """Lark rules for `calls`."""
        opening = '"{\\"tool_calls\\"" colon' if spaced else '"{\\"tool_calls\\":"'
        return "\n".join([
            f'calls: {opening} call_list "}}"',
            f'{self.no_calls}: {opening} "[" "]" "}}"',
            list_rules(names, parallel=parallel, spaced=spaced),
        ])  # fmt: skip


def _properties(parameters: Any) -> Any:
    return parameters.get("properties", {}) if isinstance(parameters, dict) else {}
