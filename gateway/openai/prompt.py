"""From a conversation, its tools and its schema to the tokens of a prompt, by the checkpoint's own chat template.

Templates that show `tools`, earlier calls and `response_schema` get them as variables. For one that shows no tools, the
dialect puts them into the conversation; for one that knows no calls, these are written out in the dialect's form. A
schema is never pasted into a prompt whose template has no place for it: where JSON is asked for and no message says so,
one short system line does.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.chat_template import ChatTemplateError
from engine.encoded_text import EncodedText
from engine.tokenizer import Tokenizer
from gateway.openai.constraints import Asked
from gateway.openai.errors import bad_request
from gateway.routing.catalogue import Catalogue
from grammars.dialects import (
    Dialect,
    as_text,
    detect,
    get_dialect,
    probe_conversation,
    shows_calls,
    with_call_ids,
    with_results_in_order,
    with_single_calls,
)
from grammars.dialects.base import with_system
from grammars.dialects.call_rules import definitions

JSON_LINE = "Answer with JSON only."
_PROBE = "pointsman_probe"
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class Prompt:
    """tokens: its token ids. turn_start: which of them the user's last message begins with, 0 where that is unknown."""

    tokens: list[int]
    turn_start: int = 0


class Prompter:
    """Renders for one checkpoint. Thread-safe. identity: equal for prompters that make equal tokens of everything."""

    def __init__(self, tokenizer: Tokenizer, dialect: str | None, identity: str) -> None:
        """dialect: of tool calls; None for the one that the template shows."""
        self.tokenizer = tokenizer
        self.dialect = dialect or detect(self._rendered, tokenizer.template_source)
        self.identity = f"{identity}-{self.dialect}"
        definition = {"name": _PROBE, "description": _PROBE, "parameters": {"type": "object", "properties": {}}}
        self.shows_tools = self._shows(tools=[{"type": "function", "function": definition}])
        id_ = get_dialect(self.dialect).call_id("x")
        self.shows_calls = shows_calls(self._rendered(probe_conversation(id_)))
        self.takes_several_calls = shows_calls(self._rendered(probe_conversation(id_, n_calls=2)), n_calls=2)
        self.shows_schema = self._shows(
            response_schema={"type": "object", "properties": {_PROBE: {"type": "string"}}}, response_name=_PROBE
        )

    @classmethod
    def from_folder(cls, folder: Path, dialect: str | None = None) -> "Prompter":
        """The prompter of a checkpoint; dialect as in the constructor.

        Raises FileNotFoundError or ValueError for a tokenizer that cannot be used.
        """
        tokenizer = Tokenizer.from_folder(folder)
        identity = [tokenizer.fingerprint]
        for name in _TEMPLATE_FILES:
            path = folder / name
            identity.append(hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        return cls(tokenizer, dialect, "-".join(identity))

    def tokens(self, messages: list[dict[str, Any]], asked: Asked) -> list[int]:
        """The prompt's token ids. What a client writes never becomes a control token.

        Raises ApiError 400 where the template refuses the conversation.
        """
        return self._encoded(messages, asked).tokens

    def prompt(self, messages: list[dict[str, Any]], asked: Asked) -> Prompt:
        """The same, with where the last turn begins: calls and results after the user's last message belong to it.

        Raises ApiError 400 where the template refuses the conversation.
        """
        encoded = self._encoded(messages, asked)
        place, tokens = self._turn_place(messages, asked, encoded.text), encoded.tokens
        turn_start = 0 if place is None else encoded.token_at(place)
        return Prompt(tokens, turn_start if turn_start < len(tokens) else 0)

    def _encoded(self, messages: list[dict[str, Any]], asked: Asked) -> EncodedText:
        conversation, tools, extra = self._variables(messages, asked)
        try:
            return self.tokenizer.encoded_chat(conversation, tools, **extra)
        except ChatTemplateError as exc:
            raise bad_request(f"The model's chat template does not take this conversation: {exc}.", "messages") from exc

    def _turn_place(self, messages: list[dict[str, Any]], asked: Asked, text: str) -> int | None:
        """Where in the prompt's text the user's last message begins.

        What it says is there as it stands, in any template that was seen; where it is there once, that is the place.
        Otherwise ("yes") the conversation is rendered again with a mark in it: texts are cheap beside their tokens.
        """
        index = next((i for i, message in reversed(list(enumerate(messages))) if message["role"] == "user"), None)
        said = "" if index is None else messages[index]["content"]
        start = text.find(said.strip()) if said.strip() else -1
        if index is None or start < 0:
            return None
        if text.find(said.strip(), start + 1) < 0:
            return start
        mark = next((mark for mark in map(chr, range(0xE000, 0xF900)) if mark not in text), None)
        if mark is None:
            return None
        n_before = len(said) - len(said.lstrip())  # a template may strip the message, and so it may with a mark
        marked = messages[index] | {"content": said[:n_before] + mark + said[n_before:]}
        conversation, tools, extra = self._variables([*messages[:index], marked, *messages[index + 1 :]], asked)
        rendered = self._rendered(conversation, tools, **extra) or ""
        before, _, after = rendered.rpartition(mark)
        before = before.replace(mark, "")
        return len(before) if before + after == text else None

    def _variables(
        self, messages: list[dict[str, Any]], asked: Asked
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None, dict[str, Any]]:
        """What the template is given: the conversation, the tools, and whatever else."""
        dialect = get_dialect(self.dialect)
        messages = self._history(messages, dialect)
        says_json = any("json" in str(message["content"]).lower() for message in messages)
        tools = definitions(asked.tools.offered) if asked.tools.offered else None
        extra = dict[str, Any]()
        if tools and not self.shows_tools:
            messages, tools = dialect.present(messages, asked.tools.offered), None
        if asked.schema is not None and self.shows_schema:
            extra = {"response_schema": asked.schema, "response_name": asked.name}
        elif asked.is_json and not says_json:
            messages = with_system(messages, JSON_LINE)
        return messages, tools, extra

    def answer_tokens(self, text: str) -> list[int]:
        """The token ids of an answer's text, in which nothing is a control token.

        Raises ValueError for a text with every private-use character of Unicode, as `Tokenizer.encode_plain`.
        """
        return self.tokenizer.encode_plain(text)

    def _history(self, messages: list[dict[str, Any]], dialect: Dialect) -> list[dict[str, Any]]:
        """The conversation with earlier calls and results as the template takes them."""
        messages = with_results_in_order(messages)
        if not self.shows_calls:
            return as_text(messages, dialect)
        if not self.takes_several_calls:
            messages = with_single_calls(messages)
        return with_call_ids(messages, dialect)

    def _rendered(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None, **extra: Any
    ) -> str | None:
        try:
            return self.tokenizer.render(messages, tools, **extra)
        except ChatTemplateError:
            return None

    def _shows(self, tools: list[dict[str, Any]] | None = None, **extra: Any) -> bool:
        """Whether the template shows these variables, found by rendering: reading its source would only be a guess."""
        try:
            return _PROBE in self.tokenizer.render([{"role": "user", "content": "x"}], tools, **extra)
        except ChatTemplateError:
            return False


def prompters(catalogue: Catalogue, dialects: Mapping[str, str | None]) -> dict[str, Prompter]:
    """A prompter by alias; models whose tokenizer and template are the same share one, and so each rendered prompt.

    dialects: of tool calls by alias, where one was set.
    """
    made = {
        model.alias: Prompter.from_folder(Path(model.info.path), dialects.get(model.alias))
        for model in catalogue.models
    }
    first_of = {prompter.identity: prompter for prompter in reversed(made.values())}
    return {alias: first_of[prompter.identity] for alias, prompter in made.items()}
