"""The byte-level BPE tokenizer of the bundled models: 4,096 entries, a space is a token of its own.

With GPT-2's split ` Paris` in a sentence and `Paris` after a quote are different tokens, and copying a value would mean
learning to spell. Digits stand singly and `_` cuts names into the words that sentences use.
"""

import json
import pydoc_data.topics
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from bundled_models.generator import Generator
from bundled_models.signature import SPECIAL_TOKENS

VOCABULARY = 4096
SPLIT = r"[A-Z]?[a-z]+|[A-Z]+|[0-9]|_|\n| |[^\sA-Za-z0-9_]+|\s+"
FILE = "tokenizer.json"


def _texts(groups: int) -> Iterator[str]:
    generator = Generator(1, "train")
    for _ in range(groups):
        examples = generator.group(3)
        text = examples[0].preamble + "".join(e.turns + e.answer for e in examples)
        for token in SPECIAL_TOKENS:
            text = text.replace(token, "\n")
        yield text
    english = " ".join(pydoc_data.topics.topics.values())[:400_000]
    yield from (english[i : i + 2000] for i in range(0, len(english), 2000))


def train(groups: int = 15_000) -> Tokenizer:
    """Train on the generator's train split and some general English."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(groups), trainer)
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`; the latter carries the chat template if it exists."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / FILE))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
        "model_max_length": 2048,
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
    }
    template = Path(__file__).with_name("chat_template.jinja")
    if template.exists():
        config["chat_template"] = template.read_text(encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load(folder: Path) -> Tokenizer:
    """Read a saved tokenizer."""
    return Tokenizer.from_file(str(folder / FILE))
