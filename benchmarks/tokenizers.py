"""Vocabularies to measure with: a tokenizer file, or the 256 bytes."""

import gzip
from pathlib import Path
from typing import Any


def byte_tokenizer(end: str) -> Any:
    """A fast tokenizer whose token i is byte i, and whose token 256 is `end`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {char: byte for byte, char in byte_spellings().items()}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end)


def load_tokenizer(path: Path, end: str | None = None) -> Any:
    """A fast tokenizer from a `tokenizer.json`, plain or gzipped. Raises ValueError when its end token is unknown."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    backend = Tokenizer.from_str(data.decode())
    for candidate in (end,) if end else ("<|im_end|>", "<|endoftext|>", "</s>"):
        if backend.token_to_id(candidate) is not None:
            return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=candidate)
    raise ValueError(f"{path.name} has none of the end tokens tried: name one with --end-token")


def byte_spellings() -> dict[int, str]:
    """The characters by which byte-level BPE (GPT-2) spells bytes: printable Latin-1 as such, the rest from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spellings = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in spellings)
    return spellings | {byte: chr(0x100 + i) for i, byte in enumerate(others)}
