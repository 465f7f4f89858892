"""The tokens that a grammar speaks in: which ids carry text, which end an answer, how wide a row of logits is."""

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from grammars.known_masks import KnownMasks

if TYPE_CHECKING:
    import numpy as np
    import torch

_MASK_BYTES: Final = 64 << 20


class Vocabulary:
    """A tokenizer seen from a grammar.

    hf: a transformers fast tokenizer. size: width of a row of logits, at least the tokenizer's own size; ids beyond it
    are padding. stop_ids: tokens that end an answer. n_words: int32 words in a mask row, ceil(size / 32).
    """

    def __init__(self, tokenizer: Any, size: int | None = None, stop_ids: tuple[int, ...] | None = None) -> None:
        """Raise ValueError for a slow tokenizer, a size below the tokenizer's, or a vocabulary without an end token."""
        self.hf = getattr(tokenizer, "hf", tokenizer)
        if not hasattr(self.hf, "backend_tokenizer"):
            raise ValueError(f"{type(tokenizer).__name__} is no fast tokenizer: pass a PreTrainedTokenizerFast")
        self._known = frozenset(self.hf.get_vocab().values())
        needed = max(self._known, default=-1) + 1
        self.size = needed if size is None else size
        if self.size < needed:
            raise ValueError(
                f"vocab_size is {self.size}, but the tokenizer's ids reach {needed - 1}: pass at least {needed}"
            )
        if stop_ids is None:
            stop_ids = () if self.hf.eos_token_id is None else (self.hf.eos_token_id,)
        self.stop_ids = tuple(sorted(set(stop_ids)))
        if not self.stop_ids or not all(0 <= token < self.size for token in self.stop_ids):
            raise ValueError(
                f"stop_token_ids are {list(self.stop_ids)}: give at least one id from 0 to {self.size - 1}"
            )
        self.n_words = (self.size + 31) // 32

    def warm_up(self) -> None:
        """Import torch and make the rows now, which takes seconds in a cold process."""
        self.text_words, self.stop_words  # noqa: B018

    @cached_property
    def known_masks(self) -> KnownMasks:
        """Masks that were computed before, for all constraints together."""
        return KnownMasks(_MASK_BYTES)

    @cached_property
    def silent_ids(self) -> frozenset[int]:
        """Ids that never carry text: special tokens, stop tokens and padding."""
        added = self.hf.added_tokens_decoder.items()
        special = {token_id for token_id, token in added if token.special} | set(self.hf.all_special_ids)
        return frozenset(special | set(self.stop_ids) | (set(range(self.size)) - self._known))

    @cached_property
    def text_row(self) -> "torch.Tensor":
        """Packed int32 row [n_words] of the ids that may carry text."""
        import torch

        bits = torch.zeros(self.n_words * 32, dtype=torch.bool)
        bits[: self.size] = True
        bits[list(self.silent_ids)] = False
        return _packed(bits)

    @cached_property
    def text_words(self) -> "np.ndarray":
        """`text_row` as numpy sees it: its operations on so few words take a third of the time of torch's."""
        return self.text_row.numpy()

    @cached_property
    def stop_words(self) -> "np.ndarray":
        """`stop_row` as numpy sees it."""
        return self.stop_row.numpy()

    @cached_property
    def stop_row(self) -> "torch.Tensor":
        """Packed int32 row [n_words] of the stop ids."""
        import torch

        bits = torch.zeros(self.n_words * 32, dtype=torch.bool)
        bits[list(self.stop_ids)] = True
        return _packed(bits)


def _packed(bits: "torch.Tensor") -> "torch.Tensor":
    """Booleans [32 n] to int32 words [n]; bit i % 32 of word i // 32 is element i."""
    import numpy
    import torch

    return torch.from_numpy(numpy.packbits(bits.numpy(), bitorder="little").view("<i4").astype("i4"))
