"""outlines-core behind the matcher: an explicit automaton, for regular expressions that no lazy backend reads."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from grammars.errors import ConstraintRefused
from grammars.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

    from grammars.spellings import Spellings


class OutlinesState:
    """A state of the automaton, the tokens taken and the states before each of them."""

    __slots__ = ("_index", "_path", "_rows", "_tokens")

    def __init__(self, index: Any, path: list[int], tokens: list[int], rows: "dict[int, torch.Tensor]") -> None:
        self._index, self._path, self._tokens, self._rows = index, path, tokens, rows

    def fill(self, row: "torch.Tensor") -> None:
        """Set the bits of legal tokens; the row of each automaton state is made once."""
        known = self._rows.get(self._path[-1])
        if known is None:
            known = self._rows[self._path[-1]] = self._made(row)
        row.copy_(known)

    def _made(self, row: "torch.Tensor") -> "torch.Tensor":
        """The row of this state, written by a guide that is led here: reading its tokens as a list costs 40 times more.

        A guide cannot be put into a state, and holds one place alone, so that each serves for one row.
        """
        import outlines_core
        import torch

        guide = outlines_core.Guide(self._index)
        for token_id in self._tokens:
            guide.advance(token_id, return_tokens=False)
        made = torch.zeros_like(row)
        guide.write_mask_into(made.data_ptr(), made.numel(), made.element_size())
        return made

    def advance(self, token_id: int) -> bool:
        """Take a token; an illegal one leaves the state as it is."""
        following = self._index.get_next_state(self._path[-1], token_id)
        if following is None:
            return False
        self._path.append(following)
        self._tokens.append(token_id)
        return True

    def rollback(self, n: int) -> None:
        """Undo `n` tokens."""
        del self._path[len(self._path) - n :]
        del self._tokens[len(self._tokens) - n :]

    def fork(self) -> "OutlinesState":
        """An independent copy; the rows are shared, as they depend on the automaton alone."""
        return OutlinesState(self._index, self._path.copy(), self._tokens.copy(), self._rows)

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

    def __init__(self, vocabulary: Vocabulary, spellings: "Spellings") -> None:
        self._vocabulary, self._spellings = vocabulary, spellings

    @cached_property
    def _tokens(self) -> Any:
        """outlines-core's table from bytes to text tokens."""
        import outlines_core

        table: dict[bytes, list[int]] = {}
        for token_id, spelling in enumerate(self._spellings.by_id):
            if spelling:
                table.setdefault(spelling, []).append(token_id)
        return outlines_core.Vocabulary(self._vocabulary.stop_ids[0], table)

    def warm_up(self) -> None:
        """Read the vocabulary now; about a second for 150,000 tokens."""
        self._tokens  # noqa: B018

    def compile(self, pattern: str) -> OutlinesState:
        """The start state. Raises ConstraintRefused with outlines-core's own words, keyword `regex`."""
        import outlines_core

        try:
            # Without an end to reach, the first alternative that matches hides the longer ones: `no|note` loses `note`.
            index = outlines_core.Index(rf"(?:{pattern})\z", self._tokens)
        except (ValueError, RuntimeError) as error:
            raise ConstraintRefused("regex", "", f"no automaton holds it: {str(error)[:300]}") from error
        return OutlinesState(index, [index.get_initial_state()], [], {})
