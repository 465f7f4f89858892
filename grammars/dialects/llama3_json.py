"""Llama 3.1 and 3.2, JSON: one call, `{"name": "f", "parameters": {…}}`, or plain text."""

from collections.abc import Sequence

from grammars.dialects.base import BaseDialect
from grammars.dialects.call_rules import object_rules, separators, written
from grammars.dialects.dialect import Call


class Llama3Json(BaseDialect):
    """The format of Llama's custom functions (`llama_3_1.py` in gorilla): a single call whatever `parallel` allows."""

    name = "llama3_json"
    calls_are = "object"
    tells: tuple[str, ...] = ("name", "parameters")
    calls_at: tuple[str, ...] | None = None
    arguments_at: str | None = "parameters"
    text = r"[^\{][\s\S]*"

    def write(self, calls: Sequence[Call]) -> str:
        """Objects, each in a line of its own: models write one."""
        return "\n".join(written(call, arguments="parameters") for call in calls)

    def calls(self, names: Sequence[str], *, parallel: bool, spaced: bool) -> str:  # noqa: ARG002 - the protocol's
        """Lark rules for `calls`."""
        rules = object_rules(names, arguments="parameters", spaced=spaced)
        return "\n".join(["calls: call", rules, *separators(spaced=spaced, parallel=False)])
