"""A checkpoint's chat template: Jinja in a sandbox, with the helpers that Hugging Face gives to templates."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, Self

import jinja2
import jinja2.ext
import jinja2.runtime
from jinja2.sandbox import ImmutableSandboxedEnvironment

_MOST_CALLS = 20_000


class ChatTemplateError(ValueError):
    """The template is missing, malformed, or refused these messages; the message says which."""


class ChatTemplate:
    """One compiled template. Rendering depends only on its arguments (and the date, for templates that ask for it)."""

    def __init__(self, source: str, special_tokens: dict[str, str]) -> None:
        """special_tokens: bos_token, eos_token and the like, which templates may write.

        Raises ChatTemplateError for a malformed template.
        """
        # The environment is that of transformers.utils.chat_template_utils, less the marks for training.
        environment = _BoundedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        self.source, self._special_tokens = source, special_tokens
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ChatTemplateError(f"the chat template is malformed: {error}") from error

    @classmethod
    def from_folder(cls, folder: Path, settings: dict[str, Any], special_tokens: dict[str, str]) -> "Self | None":
        """The template of `chat_template.jinja`, `chat_template.json` or the tokenizer's settings, in this order; or
        None.

        Raises ChatTemplateError for a malformed one.
        """
        source: Any = settings.get("chat_template")
        if (folder / "chat_template.jinja").is_file():
            source = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        elif (folder / "chat_template.json").is_file():
            source = json.loads((folder / "chat_template.json").read_text(encoding="utf-8")).get("chat_template")
        if isinstance(source, list):  # several named ones
            source = {entry.get("name"): entry.get("template") for entry in source}.get("default")
        return None if source is None else cls(source, special_tokens)

    def render(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = True,
        **extra: Any,
    ) -> str:
        """The prompt as text. extra: further variables of the template, such as response_schema.

        Raises ChatTemplateError where the template refuses the messages or cannot be computed from them.
        """
        try:
            return self._template.render(
                **self._special_tokens,
                messages=messages,
                tools=tools,
                add_generation_prompt=add_generation_prompt,
                **extra,
            )
        except jinja2.TemplateError as error:
            raise ChatTemplateError(f"the chat template refused the messages: {error}") from error
        except (TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError, RecursionError) as error:
            # What a template raises on messages it was not written for, such as a list where it joins strings.
            raise ChatTemplateError(f"the chat template cannot render these messages: {error}") from error


class _BoundedContext(jinja2.runtime.Context):
    """Counts the calls of one rendering."""

    n_calls = 0


class _BoundedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox in which a rendering makes so many calls and no more: a macro that follows the references of a client's
    schema can make it fan out without end."""

    context_class = _BoundedContext

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - Jinja's names
        """Call on behalf of the template. Raises jinja2.TemplateError beyond the bound."""
        __context.n_calls += 1
        if __context.n_calls > _MOST_CALLS:
            raise jinja2.TemplateError("its tools or its schema fan out too far: use fewer references")
        return super().call(__context, __obj, *args, **kwargs)


class _GenerationTag(jinja2.ext.Extension):
    """Accept `{% generation %}`, with which templates mark the assistant's words for training; here it marks
    nothing."""

    tags = {"generation"}  # noqa: RUF012 - the name and type are Jinja's

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML characters, which models never saw."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
