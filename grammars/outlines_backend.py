"""outlines-core behind the matcher: an explicit automaton, for regular expressions that no lazy backend reads."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from grammars.errors import ConstraintRefused
from grammars.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch


class OutlinesState:
    """A state of the automaton and the states before it, of which there is one more than tokens were taken."""

    __slots__ = ("_index", "_path", "_rows")

    def __init__(self, index: Any, path: list[int], rows: "dict[int, torch.Tensor]") -> None:
        self._index, self._path, self._rows = index, path, rows

    def fill(self, row: "torch.Tensor") -> None:
        """Set the bits of legal tokens; the row of each automaton state is made once."""
        import torch

        state = self._path[-1]
        if state not in self._rows:
            bits = torch.zeros(row.numel() * 32, dtype=torch.bool)
            bits[list(self._index.get_allowed_tokens(state) or ())] = True
            weights = (torch.ones(32, dtype=torch.int64) << torch.arange(32)).where(torch.arange(32) < 31, -(2**31))
            self._rows[state] = (bits.view(-1, 32) * weights).sum(1).to(torch.int32)
        row.copy_(self._rows[state])

    def advance(self, token_id: int) -> bool:
        """Take a token; an illegal one leaves the state as it is."""
        following = self._index.get_next_state(self._path[-1], token_id)
        if following is None:
            return False
        self._path.append(following)
        return True

    def rollback(self, n: int) -> None:
        """Undo `n` tokens."""
        del self._path[len(self._path) - n :]

    def fork(self) -> "OutlinesState":
        """An independent copy; the rows are shared, as they depend on the automaton alone."""
        return OutlinesState(self._index, self._path.copy(), self._rows)

    def forced_bytes(self) -> bytes:
        """None: the automaton is asked for tokens, not for bytes."""
        return b""

    @property
    def is_accepting(self) -> bool:
        """Whether the text so far matches."""
        return bool(self._index.is_final_state(self._path[-1]))


class OutlinesBackend:
    """Builds automata for one vocabulary."""

    name = "outlines"

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    @cached_property
    def _tokens(self) -> Any:
        """outlines-core's table from bytes to text tokens; xgrammar knows how tokenizers spell bytes."""
        import outlines_core
        import xgrammar

        spellings = xgrammar.TokenizerInfo.from_huggingface(
            self._vocabulary.hf, vocab_size=self._vocabulary.size, stop_token_ids=list(self._vocabulary.stop_ids)
        ).decoded_vocab
        table: dict[bytes, list[int]] = {}
        for token_id, spelling in enumerate(spellings):
            if spelling and token_id not in self._vocabulary.silent_ids:
                table.setdefault(bytes(spelling), []).append(token_id)
        return outlines_core.Vocabulary(self._vocabulary.stop_ids[0], table)

    def warm_up(self) -> None:
        """Read the vocabulary now; about a second for 150,000 tokens."""
        self._tokens  # noqa: B018

    def compile(self, pattern: str) -> OutlinesState:
        """The start state. Raises ConstraintRefused with outlines-core's own words, keyword `regex`."""
        import outlines_core

        try:
            index = outlines_core.Index(pattern, self._tokens)
        except (ValueError, RuntimeError) as error:
            raise ConstraintRefused("regex", "", f"no automaton holds it: {str(error)[:300]}") from error
        return OutlinesState(index, [index.get_initial_state()], {})
