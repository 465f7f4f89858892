"""A sentence encoder from a local folder: a transformers model whose last hidden states are averaged over the tokens.

all-MiniLM-L6-v2 and its kin are of this form. Nothing is downloaded. torch and transformers are imported when an
encoder is loaded, so that routers of the other kinds do not wait for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_TOKENS = 256
"""Of a longer text the first and the last half of this many tokens are read."""

BATCH = 32
"""Texts that go through the model at once."""


class NoEncoder(ValueError):
    """The folder holds no usable encoder; the message says what is missing."""


@dataclass(frozen=True, slots=True, eq=False)
class SentenceEncoder:
    """model: a transformers encoder in evaluation mode. tokenizer: of `tokenizers`. max_tokens: most that are read."""

    model: Any
    tokenizer: Any
    max_tokens: int

    @classmethod
    def load(cls, folder: Path | str) -> "SentenceEncoder":
        """Read config.json, the weights and tokenizer.json of `folder`. NoEncoder: one is missing or damaged."""
        from tokenizers import Tokenizer
        from transformers import AutoModel

        folder = Path(folder)
        for name in ("config.json", "tokenizer.json"):
            if not (folder / name).is_file():
                raise NoEncoder(f"{folder} holds no sentence encoder: it lacks {name}")
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        except Exception as error:  # both libraries raise whatever the file provokes
            raise NoEncoder(f"the sentence encoder in {folder} cannot be read: {error}") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        window = int(getattr(model.config, "max_position_embeddings", MAX_TOKENS))
        return cls(model, tokenizer, min(MAX_TOKENS, window))

    @property
    def width(self) -> int:
        """Numbers in an embedding."""
        return int(self.model.config.hidden_size)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of n texts, float32 [n, width], each of length 1. A text's embedding depends on it alone."""
        parts = [self._embed(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        return np.concatenate([np.zeros((0, self.width), np.float32), *parts])

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import torch

        rows = [self._ids(text) for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        with torch.inference_mode():
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state  # [n, longest, width]
        weights = mask[..., None].to(hidden.dtype)
        means = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        unit: NDArray[np.float32] = torch.nn.functional.normalize(means.float(), dim=1).numpy()
        return unit

    def _ids(self, text: str) -> list[int]:
        """The text's tokens with the model's own marks at both ends; at least one."""
        ids: list[int] = self.tokenizer.encode(text).ids
        if len(ids) > self.max_tokens:
            half = self.max_tokens // 2
            ids = ids[:half] + ids[-half:]
        return ids or [0]
