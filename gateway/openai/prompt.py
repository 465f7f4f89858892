"""From a conversation, its tools and its schema to the tokens of a prompt, by the checkpoint's own chat template.

Templates that show `tools` and `response_schema` get them as variables. For one that shows no tools, a system message
lists them in the dialect's form. A schema is never pasted into a prompt whose template has no place for it: where
JSON is asked for and no message says so, one short system line does.
"""

import hashlib
from pathlib import Path
from typing import Any

from engine.chat_template import ChatTemplateError
from engine.tokenizer import Tokenizer
from gateway.openai.constraints import Asked
from gateway.openai.errors import bad_request
from gateway.routing.catalogue import Catalogue
from grammars.constraint import Tool
from grammars.dialects import get_dialect

DIALECT = "xlam"
JSON_LINE = "Answer with JSON only."
_PROBE = "pointsman_probe"
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")


class Prompter:
    """Renders for one checkpoint. Thread-safe. identity: equal for prompters that make equal tokens of everything."""

    def __init__(self, tokenizer: Tokenizer, dialect: str, identity: str) -> None:
        self.tokenizer, self.dialect, self.identity = tokenizer, dialect, identity
        definition = {"name": _PROBE, "description": _PROBE, "parameters": {"type": "object", "properties": {}}}
        self.shows_tools = self._shows(tools=[{"type": "function", "function": definition}])
        self.shows_schema = self._shows(
            response_schema={"type": "object", "properties": {_PROBE: {"type": "string"}}}, response_name=_PROBE
        )

    @classmethod
    def from_folder(cls, folder: Path, dialect: str) -> "Prompter":
        """The prompter of a checkpoint. Raises FileNotFoundError or ValueError for a tokenizer that cannot be used."""
        tokenizer = Tokenizer.from_folder(folder)
        identity = [tokenizer.fingerprint, dialect]
        for name in _TEMPLATE_FILES:
            path = folder / name
            identity.append(hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        return cls(tokenizer, dialect, "-".join(identity))

    def tokens(self, messages: list[dict[str, Any]], asked: Asked) -> list[int]:
        """The prompt's token ids. What a client writes never becomes a control token.

        Raises ApiError 400 where the template refuses the conversation.
        """
        tools = asked.tools.definitions() if asked.tools.offered else None
        lines, extra = [], dict[str, Any]()
        if tools and not self.shows_tools:
            lines.append(self._tool_lines(asked.tools.offered))
            tools = None
        if asked.schema is not None and self.shows_schema:
            extra = {"response_schema": asked.schema, "response_name": asked.name}
        elif asked.is_json and not any("json" in str(m["content"]).lower() for m in messages):
            lines.append(JSON_LINE)
        try:
            return self.tokenizer.encode_chat(_with_system(messages, lines), tools, **extra)
        except ChatTemplateError as exc:
            raise bad_request(f"The model's chat template does not take this conversation: {exc}.", "messages") from exc

    def _tool_lines(self, tools: tuple[Tool, ...]) -> str:
        dialect = get_dialect(self.dialect)
        example = '[{"name":"function","arguments":{"parameter":"value"}}]'
        if self.dialect == "xlam_v1":
            example = f'{{"tool_calls":{example}}}'
        return f"You can call these functions:\n{dialect.render(tools)}\nTo call them, answer only with {example}"

    def _shows(self, tools: list[dict[str, Any]] | None = None, **extra: Any) -> bool:
        """Whether the template shows these variables, found by rendering: reading its source would only be a guess."""
        try:
            return _PROBE in self.tokenizer.render([{"role": "user", "content": "x"}], tools, **extra)
        except ChatTemplateError:
            return False


def prompters(catalogue: Catalogue) -> dict[str, Prompter]:
    """A prompter by alias; models whose tokenizer and template are the same share one, and so each rendered prompt."""
    made = {model.alias: Prompter.from_folder(Path(model.info.path), DIALECT) for model in catalogue.models}
    first_of = {prompter.identity: prompter for prompter in reversed(made.values())}
    return {alias: first_of[prompter.identity] for alias, prompter in made.items()}


def _with_system(messages: list[dict[str, Any]], lines: list[str]) -> list[dict[str, Any]]:
    """The conversation with `lines` at the end of its first system message, or in one of their own."""
    if not lines:
        return messages
    text = "\n\n".join(lines)
    if messages[0]["role"] == "system":
        return [messages[0] | {"content": f"{messages[0]['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]
