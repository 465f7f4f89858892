"""The 256 bytes and tokens that cross the structure of JSON, in UTF-8 and in escapes, with an end token and padding."""

from typing import Any, Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmarks.tokenizers import byte_spellings

CROSSING: Final = (
    '{"', '{"a":', '":', '":"', '":{"', '":[', '","', ',"', '"}', '"}]', '"]', '"]}', "}}", "]}", "}]", "},", "],",
    "},{", '"},{"', "[]", "{}", "[[", '["', "true", "false", "null", "12", "-1", "0.", ".5", "00", "1e", "e5", ",1",
    ":1", "1}", "1]", "1,", "ab", "abc", 'a"', 'a":', '"a', '"b', "\\n", "\\u", "\\u00", '\\"', "\\\\", '\\"}', "a\\",
    "é", "ü", "日本", "🎉", "2020-01-01", "://", "a@b.", " a", ": ", ", ", '"a"', '"a","', '"b":', '""', '"":', "true,",
    "true}", "[1,",
)  # fmt: skip
END: Final = "<end>"


def crossing_tokenizer() -> Any:
    """A fast tokenizer whose token i < 256 is byte i, then the tokens of CROSSING, then `<end>`."""
    spell = byte_spellings()
    vocabulary = {char: byte for byte, char in spell.items()}
    for token in CROSSING:
        vocabulary["".join(spell[byte] for byte in token.encode())] = len(vocabulary)
    vocabulary[END] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END)


def spellings() -> list[bytes]:
    """The bytes of each token before `<end>`."""
    return [bytes([byte]) for byte in range(256)] + [token.encode() for token in CROSSING]
