"""The bytes that each token adds to a text, for byte-level BPE and for SentencePiece vocabularies with byte
fallback."""

import re
from collections.abc import Mapping
from typing import Any

SPACE_MARK = "▁"  # U+2581, SentencePiece's space
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


def build_token_bytes(tokenizer_json: Mapping[str, Any], vocabulary: Mapping[str, int]) -> list[bytes]:
    """Bytes by token id. Special tokens add nothing to a text: b"".

    tokenizer_json: the contents of tokenizer.json; vocabulary: every token with its id, added tokens included.
    Raises ValueError for a decoder that is neither of the two kinds.
    """
    kinds = _component_types(tokenizer_json.get("decoder")) | _component_types(tokenizer_json.get("pre_tokenizer"))
    if "ByteLevel" in kinds:
        to_bytes = _ByteLevel().to_bytes
    elif kinds & {"Metaspace", "ByteFallback"}:
        to_bytes = _sentencepiece_bytes
    else:
        raise ValueError(
            f"tokenizer.json: decoder {sorted(kinds)} is not supported; byte-level BPE and SentencePiece are"
        )
    added = {entry["id"]: entry for entry in tokenizer_json.get("added_tokens") or ()}
    table = [b""] * (1 + max([*vocabulary.values(), *added], default=-1))
    for token, token_id in vocabulary.items():
        if token_id not in added:
            table[token_id] = to_bytes(token)
    for token_id, entry in added.items():
        table[token_id] = b"" if entry.get("special") else entry["content"].encode()
    return table


def _component_types(component: Any) -> set[str]:
    """Types of a pre-tokenizer or decoder and of those within a Sequence of them."""
    if not isinstance(component, Mapping):
        return set()
    inner = [*(component.get("decoders") or ()), *(component.get("pretokenizers") or ())]
    return {component.get("type", "")}.union(*map(_component_types, inner))


class _ByteLevel:
    """GPT-2's printable stand-ins for bytes (Radford et al., 2019, `bytes_to_unicode`)."""

    def __init__(self) -> None:
        printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        others = [byte for byte in range(256) if byte not in set(printable)]
        self._byte_of = {chr(byte): byte for byte in printable}
        self._byte_of |= {chr(256 + i): byte for i, byte in enumerate(others)}

    def to_bytes(self, token: str) -> bytes:
        """A token with a character that stands for no byte is taken as text, as the reference decoder does."""
        try:
            return bytes(self._byte_of[character] for character in token)
        except KeyError:
            return token.encode()


def _sentencepiece_bytes(token: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace(SPACE_MARK, " ").encode()
