"""Which dialect a checkpoint was trained in, as its chat template shows it.

A template that knows earlier calls writes them as the model was taught to. So a conversation with a call is rendered,
and the dialects are compared with what comes out. Only where a template knows no calls is its source searched for what
a format cannot do without.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from grammars.dialects.dialect import Call
from grammars.dialects.registry import DIALECTS

PROBE: Final = "pointsman_probe"
_VALUE: Final = "pointsman_value"
_RESULT: Final = "pointsman_result"
_ARGUMENTS: Final = f'{{"p": "{_VALUE}"}}'
_SOURCES: Final = (
    ("hermes", ("<tool_call>",), "<function="),
    ("mistral_v11", ("[TOOL_CALLS]", "[ARGS]"), ""),
    ("mistral", ("[TOOL_CALLS]",), ""),
    ("llama3_json", ("<|python_tag|>",), ""),
    ("llama3_json", ("ipython",), ""),
    ("xlam_v1", ("assistant for function calling",), ""),
)
"""(dialect, what a template of it holds, what it does not hold)."""

Render = Callable[[list[dict[str, Any]]], str | None]


def probe_conversation(call_id: str = "probe0000", n_calls: int = 1) -> list[dict[str, Any]]:
    """A conversation in which a tool was called and has answered, in the form of Hugging Face chat templates.

    n_calls: in the one turn that calls, all of the same id.
    """
    call = {"id": call_id, "type": "function", "function": {"name": PROBE, "arguments": {"p": _VALUE}}}
    result = {"role": "tool", "tool_call_id": call_id, "name": PROBE, "content": _RESULT}
    return [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [call] * n_calls},
        *[result] * n_calls,
    ]


def shows_calls(rendered: str | None, n_calls: int = 1) -> bool:
    """Whether a template that made this of the probe conversation knows calls and their results, all of them."""
    return rendered is not None and all(rendered.count(text) >= n_calls for text in (PROBE, _VALUE, _RESULT))


def detect(render: Render, source: str) -> str:
    """The name of a checkpoint's dialect; `generic` where nothing tells.

    render: its chat template, None for a conversation that it refuses. source: the template's own text.
    """
    rendered = render(probe_conversation())
    if shows_calls(rendered):
        return _written_in(rendered or "")
    return next(
        (
            name
            for name, parts, other in _SOURCES
            if all(part in source for part in parts) and not (other and other in source)
        ),
        "generic",
    )


def _written_in(rendered: str) -> str:
    """The dialect in which the probe's call stands in a prompt."""
    bare = re.sub(r"\s", "", rendered)
    for dialect in DIALECTS:
        needle = _beginning(dialect().write([Call(PROBE, _ARGUMENTS)]))
        if not dialect.is_spaced and dialect.name == "xlam":
            # The list of xLAM-2 as the bundled models write it; with spaces it is the generic one.
            needle = _beginning(dialect().write([Call(PROBE, re.sub(r"\s", "", _ARGUMENTS))]))
            if needle in rendered:
                return dialect.name
        elif re.sub(r"\s", "", needle) in bare:
            return dialect.name
    return "generic"


def _beginning(text: str) -> str:
    """Up to the argument's value: what follows may hold more, such as an id."""
    return text[: text.index(_VALUE) + len(_VALUE)]
