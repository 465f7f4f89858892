"""A text beside its tokens, so that places in the one are found in the other."""

from collections.abc import Iterable
from dataclasses import dataclass

import tokenizers

__all__ = ["EncodedText"]


@dataclass(frozen=True, slots=True)
class EncodedText:
    """text: what was encoded, all pieces together. encodings: of each piece, which were encoded on their own."""

    text: str
    encodings: tuple[tokenizers.Encoding, ...]
    _lengths: tuple[int, ...]

    @classmethod
    def of(cls, pieces: Iterable[tuple[str, tokenizers.Encoding]]) -> "EncodedText":
        """From pieces in their order, each with its encoding, which added no tokens to it."""
        texts, encodings = zip(*pieces, strict=True)
        return cls("".join(texts), encodings, tuple(map(len, texts)))

    @property
    def tokens(self) -> list[int]:
        """The token ids, made anew."""
        return [token for encoding in self.encodings for token in encoding.ids]

    def token_at(self, position: int) -> int:
        """The index of the token that the character at `position` of the text is in, or the first after it that
        stands for any: tokenizers drop some white space. The number of tokens where none does."""
        first_token, first = 0, 0
        for encoding, length in zip(self.encodings, self._lengths, strict=True):
            for character in range(max(0, position - first), length):
                token: int | None = encoding.char_to_token(character)
                if token is not None:
                    return first_token + token
            first_token, first = first_token + len(encoding), first + length
        return first_token
