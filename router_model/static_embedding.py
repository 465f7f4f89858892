"""A static sentence embedding: means of word vectors, some 0.1 ms a text and no model to run.

The vectors and their tokenizer are files inside the wheel of `wordllama` (MIT; token embeddings of language models,
distilled to 256 numbers each). They are read as files: its code is neither imported nor needed.
"""

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from router_model.question import Question

PACKAGE = "wordllama"
WEIGHTS, TOKENIZER = "weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json"

NAMES = (
    "rarity",
    "rarity_spread",
    "tokens_per_word",
    "stem_rarity",
    "stem_tokens_per_word",
    "length",
    "token_length",
    "options_alike",
    "options_most_alike",
    "options_least_alike",
    "best_option_to_stem",
    "options_to_stem",
    "margin_to_stem",
)
"""The numbers of StaticVectors.shape, in order. rarity: log of a token's number, which its tokenizer gave by frequency.
"""

MAX_STEM, MAX_OPTION = 2_048, 512
"""Characters: of a longer stem or option the first and the last half of this many are read, which bounds the time."""

_RANK_OFFSET = 10.0


class NoStaticEmbedding(RuntimeError):
    """The vectors' files are missing; the message says what to install."""


@dataclass(frozen=True, slots=True, eq=False)
class StaticVectors:
    """What the embedding says of a question. stem and options float32 [256]: mean vectors, zeros where there are none.

    shape float32 [len(NAMES)]: how rare its words are, and how alike its options.
    """

    stem: NDArray[np.float32]
    options: NDArray[np.float32]
    shape: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class StaticEmbedding:
    """vectors float32 [n_tokens, 256] by token number."""

    vectors: NDArray[np.float32]
    tokenizer: Tokenizer

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return int(self.vectors.shape[1])

    @classmethod
    def load(cls) -> "StaticEmbedding":
        """Read the files. NoStaticEmbedding: the package is not installed, or lacks them."""
        found = importlib.util.find_spec(PACKAGE)  # finds the folder; imports nothing
        if found is None or not found.submodule_search_locations:
            raise NoStaticEmbedding(
                f"routers of kind text read the word vectors of the package {PACKAGE}: install {PACKAGE}==0.4.0.post1"
            )
        folder = Path(next(iter(found.submodule_search_locations)))
        try:
            (vectors,) = load_file(folder / WEIGHTS).values()
            tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # tokenizers raises just that for whatever is wrong with a file
            raise NoStaticEmbedding(
                f"{folder} does not hold {WEIGHTS} and {TOKENIZER} ({error}): install {PACKAGE}==0.4.0.post1 again"
            ) from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(vectors.astype(np.float32), tokenizer)

    def embed(self, question: Question) -> StaticVectors:
        """The vectors of a question."""
        parts = [self._ids(_ends(question.stem, MAX_STEM))]
        parts += [self._ids(_ends(option, MAX_OPTION)) for option in question.options]
        ids = np.concatenate(parts)
        lengths = np.array([len(part) for part in parts])
        vectors = self.vectors[ids]
        means = np.zeros((len(parts), self.width), np.float32)
        some = np.flatnonzero(lengths)
        if some.size:
            starts = (np.cumsum(lengths) - lengths)[some]
            means[some] = np.add.reduceat(vectors, starts, axis=0) / lengths[some, None]
        stem_words = _ends(question.stem, MAX_STEM).count(" ") + 1
        words = stem_words + sum(_ends(option, MAX_OPTION).count(" ") + 1 for option in question.options)
        shape = (
            *_rarity(ids),
            ids.size / words,
            _rarity(ids[: lengths[0]])[0],
            lengths[0] / stem_words,
            *_lengths(vectors),
            *_alike(means[0], means[1:]),
        )
        together = means[1:].mean(axis=0) if len(parts) > 1 else np.zeros(self.width, np.float32)
        return StaticVectors(means[0], together, np.array(shape, np.float32))

    def _ids(self, text: str) -> NDArray[np.int64]:
        return np.array(self.tokenizer.encode(text, add_special_tokens=False).ids, np.int64)


@cache
def static_embedding() -> StaticEmbedding:
    """The embedding, read at the first call and then kept: 33 MB that every router of kind text shares."""
    return StaticEmbedding.load()


def _ends(text: str, n_chars: int) -> str:
    return text if len(text) <= n_chars else f"{text[: n_chars // 2]} {text[-n_chars // 2 :]}"


def _rarity(ids: NDArray[np.int64]) -> tuple[float, float]:
    """Mean and deviation of the logarithm of token numbers."""
    if not ids.size:
        return 0.0, 0.0
    ranks = np.log(ids + _RANK_OFFSET)
    return float(ranks.mean()), float(ranks.std())


def _lengths(vectors: NDArray[np.float32]) -> tuple[float, float]:
    """Length of the mean vector, and mean length of the vectors."""
    if not len(vectors):
        return 0.0, 0.0
    mean = vectors.mean(axis=0)
    return float(np.sqrt(mean @ mean)), float(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)).mean())


def _alike(stem: NDArray[np.float32], options: NDArray[np.float32]) -> tuple[float, ...]:
    """Cosines: mean, largest and smallest between options, then best, mean and margin of options to the stem."""
    if len(options) < 2:
        return (0.0,) * 6
    unit = options / np.maximum(np.linalg.norm(options, axis=1, keepdims=True), 1e-9)
    between = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    to_stem = np.sort(unit @ (stem / max(float(np.linalg.norm(stem)), 1e-9)))
    return (
        float(between.mean()),
        float(between.max()),
        float(between.min()),
        float(to_stem[-1]),
        float(to_stem.mean()),
        float(to_stem[-1] - to_stem[-2]),
    )
