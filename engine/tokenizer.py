"""A checkpoint's tokenizer: text to token ids and back, the bytes of each token, and chats to prompts."""

import copy
import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers

from engine.chat_template import ChatTemplate, ChatTemplateError
from engine.control_strings import ControlStrings
from engine.encoded_text import EncodedText
from engine.token_bytes import build_token_bytes
from grammars.dialects import MARKERS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")


class Tokenizer:
    """A Hugging Face fast tokenizer with its chat template. Thread-safe: nothing changes after construction."""

    def __init__(
        self, tokenizer_json: dict[str, Any], special_tokens: dict[str, str], template: ChatTemplate | None
    ) -> None:
        """tokenizer_json: the contents of tokenizer.json. special_tokens: bos_token, eos_token and the like.

        Raises ValueError for a tokenizer that is neither byte-level BPE nor SentencePiece.
        """
        tokenizer_json = {**tokenizer_json, "truncation": None, "padding": None}  # they change what encode returns
        tokenizer_json = _with_markers_as_text(tokenizer_json)
        self._backend = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json))
        continued = _without_prefix_space(tokenizer_json)
        has_prefix_space = continued != tokenizer_json
        self._continued = tokenizers.Tokenizer.from_str(json.dumps(continued)) if has_prefix_space else self._backend
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        self._bytes = build_token_bytes(tokenizer_json, vocabulary)
        self._special_tokens, self._template = special_tokens, template
        self._control = ControlStrings(
            # Plain words are added to some vocabularies as vocabulary, not as control tokens.
            entry["content"]
            for entry in tokenizer_json.get("added_tokens") or ()
            if entry.get("special") or not entry["content"].isalnum()
        )
        canonical = json.dumps(tokenizer_json, sort_keys=True, separators=(",", ":"))
        self.fingerprint = hashlib.sha256(canonical.encode()).hexdigest()

    @classmethod
    def from_folder(cls, path: Path | str) -> "Tokenizer":
        """Read tokenizer.json, tokenizer_config.json and the chat template of a checkpoint folder.

        Raises FileNotFoundError without a tokenizer.json, ValueError for one that is not supported.
        """
        folder = Path(path)
        if not (folder / "tokenizer.json").is_file():
            raise FileNotFoundError(f"{folder} holds no tokenizer.json: save the fast tokenizer with the checkpoint")
        tokenizer_json = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        settings_path = folder / "tokenizer_config.json"
        settings = json.loads(settings_path.read_text(encoding="utf-8")) if settings_path.is_file() else {}
        special_tokens = dict[str, str]()
        for name in _SPECIAL_NAMES:
            token = settings.get(name)
            if token is not None:  # older files hold the AddedToken as an object
                special_tokens[name] = token["content"] if isinstance(token, dict) else token
        return cls(tokenizer_json, special_tokens, ChatTemplate.from_folder(folder, settings, special_tokens))

    @property
    def vocab_size(self) -> int:
        """One more than the highest token id; a checkpoint's rows of logits may be wider."""
        return len(self._bytes)

    @property
    def eos_token_id(self) -> int | None:
        """The end token of the tokenizer's own settings."""
        token = self._special_tokens.get("eos_token")
        return None if token is None else self._backend.token_to_id(token)

    @cached_property
    def hf(self) -> "PreTrainedTokenizerFast":
        """The same tokenizer as transformers knows it, for libraries that ask for that class."""
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast(
            tokenizer_object=self._backend, clean_up_tokenization_spaces=False, **self._special_tokens
        )

    @property
    def template_source(self) -> str:
        """The chat template's own text; empty where there is none."""
        return "" if self._template is None else self._template.source

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it stands: control strings in it become control tokens, and none is added."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def encode_plain(self, text: str) -> list[int]:
        """Token ids of a text in which control strings are only text."""
        mark = self._control.find_mark(text)
        return self._encode_marked(self._control.mark(text, mark), mark).tokens

    def encode_chat(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = True,
        **extra: Any,
    ) -> list[int]:
        """Token ids of a chat: the template's control strings become control tokens, the client's never
        (control_strings.py).

        Equal to encode(render(...)) where the client's strings hold no control string. Raises ChatTemplateError like
        `render`.
        """
        return self.encoded_chat(messages, tools, add_generation_prompt=add_generation_prompt, **extra).tokens

    def encoded_chat(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = True,
        **extra: Any,
    ) -> EncodedText:
        """What `encode_chat` gives, beside the text that it is of. Raises ChatTemplateError like `render`."""
        mark = self._control.find_mark(messages, tools, extra, self._template.source if self._template else "")
        messages, tools, extra = (self._control.mark(value, mark) for value in (messages, tools, extra))
        rendered = self.render(messages, tools, add_generation_prompt=add_generation_prompt, **extra)
        return self._encode_marked(rendered, mark)

    def render(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = True,
        **extra: Any,
    ) -> str:
        """The prompt as text; extra carries further variables of the template, such as response_schema.

        Raises ChatTemplateError where there is no template, or it refuses the messages.
        """
        if self._template is None:
            raise ChatTemplateError("the checkpoint has no chat template: send a prompt, not messages, or add one")
        return self._template.render(messages, tools, add_generation_prompt=add_generation_prompt, **extra)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token adds to a text; b"" for special tokens and for ids that only a padded checkpoint has."""
        return self._bytes[token_id] if 0 <= token_id < len(self._bytes) else b""

    def decode(self, token_ids: Iterable[int]) -> str:
        """Text of generated tokens, without special tokens; bytes that are no UTF-8 become U+FFFD.

        A SentencePiece token keeps its leading space: it continues the prompt's text.
        """
        return b"".join(map(self.token_bytes, token_ids)).decode("utf-8", "replace")

    def _encode_marked(self, text: str, mark: str) -> EncodedText:
        first, *rest = text.split(mark)
        encoded = [(first, self._backend.encode(first, add_special_tokens=False))]
        encoded += [(piece, self._continued.encode(piece, add_special_tokens=False)) for piece in rest]
        return EncodedText.of(encoded)


def _with_markers_as_text(tokenizer_json: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer with the markers of tool calls as text, so that they may stand in an answer and are read there.

    They stay control strings: a client's text never becomes one of them (control_strings.py).
    """
    added = tokenizer_json.get("added_tokens") or []
    if not any(entry["content"] in MARKERS and entry.get("special") for entry in added):
        return tokenizer_json
    plain = [entry | {"special": False} if entry["content"] in MARKERS else entry for entry in added]
    return {**tokenizer_json, "added_tokens": plain}


def _without_prefix_space(tokenizer_json: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer for the rest of a text: SentencePiece puts a space before the first word, but not before this
    piece."""
    changed = dict(tokenizer_json)
    for kind, parts in (("pre_tokenizer", "pretokenizers"), ("normalizer", "normalizers")):
        component = changed[kind] = copy.deepcopy(changed.get(kind))
        for inner in (component or {}).get(parts) or [component or {}]:
            if inner.get("type") == "Metaspace":
                inner["prepend_scheme"] = "never"
            elif inner.get("type") == "ByteLevel":
                inner["add_prefix_space"] = False
            elif inner.get("type") == "Prepend":
                inner["prepend"] = ""
    return changed
