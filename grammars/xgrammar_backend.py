"""xgrammar behind the matcher: context-free grammars in EBNF."""

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from grammars.context_free import endless
from grammars.ebnf import Unreadable, read_ebnf
from grammars.errors import ConstraintRefused
from grammars.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch


class XGrammarState:
    """One xgrammar matcher, which ends without a stop token of its own."""

    __slots__ = ("_is_sure_to_end", "_matcher")

    def __init__(self, matcher: Any, *, is_sure_to_end: bool) -> None:
        """is_sure_to_end: no rule goes on for ever, so that looking for what is forced comes to an end."""
        self._matcher, self._is_sure_to_end = matcher, is_sure_to_end

    def fill(self, row: "torch.Tensor") -> None:
        """Set the bits of legal tokens."""
        if self._matcher.is_terminated():
            row.zero_()
        # False means "everything is legal", and the row is then left alone.
        elif not self._matcher.fill_next_token_bitmask(row.unsqueeze(0)):
            row.fill_(-1)

    def advance(self, token_id: int) -> bool:
        """Take a token; an illegal one leaves the state as it is."""
        return not self._matcher.is_terminated() and bool(self._matcher.accept_token(token_id))

    def rollback(self, n: int) -> None:
        """Undo `n` tokens."""
        self._matcher.rollback(n)

    def fork(self) -> "XGrammarState":
        """An independent copy."""
        return XGrammarState(self._matcher.fork(), is_sure_to_end=self._is_sure_to_end)

    def forced_bytes(self) -> bytes:
        """The bytes that must come next."""
        # Under `x ::= "a" x` xgrammar 0.2.8 looks for the end of what is forced for ever.
        if self._matcher.is_terminated() or not self._is_sure_to_end:
            return b""
        try:
            return bytes(self._matcher.find_jump_forward_string().encode())
        except UnicodeDecodeError as error:  # what is forced begins or ends inside a character
            return bytes(error.object)

    @property
    def is_accepting(self) -> bool:
        """Whether the text so far is a whole sentence."""
        return bool(self._matcher.is_completed())


class XGrammarBackend:
    """Compiles EBNF for one vocabulary."""

    name = "xgrammar"

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    @cached_property
    def _compiler(self) -> Any:
        """One thread, since on few cores more are slower; no cache of its own, since ours is bounded."""
        import xgrammar

        info = xgrammar.TokenizerInfo.from_huggingface(
            self._vocabulary.hf, vocab_size=self._vocabulary.size, stop_token_ids=list(self._vocabulary.stop_ids)
        )
        return xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)

    def warm_up(self) -> None:
        """Read the vocabulary now; about a second for 150,000 tokens."""
        self._compiler  # noqa: B018

    def compile(self, ebnf: str) -> XGrammarState:
        """The start state. Raises ConstraintRefused with xgrammar's own words, keyword `grammar`."""
        import xgrammar

        try:
            compiled = self._compiler.compile_grammar(xgrammar.Grammar.from_ebnf(ebnf))
            return XGrammarState(xgrammar.GrammarMatcher(compiled), is_sure_to_end=_is_sure_to_end(ebnf))
        except (RuntimeError, ValueError) as error:
            # Its messages begin with a time and a line of its source, and point at the place on lines of their own.
            lines = [line for line in str(error).split("\n") if line.strip(" ^")]
            reason = re.sub(r"^\[[\d:]+\]\s*\S+:\d+:\s*", "", lines[0] if lines else "")[:300]
            raise ConstraintRefused("grammar", "", f"is no EBNF grammar that xgrammar reads: {reason}") from error


def _is_sure_to_end(ebnf: str) -> bool:
    """Whether no rule goes on for ever, as far as our own reader can tell."""
    try:
        return endless(read_ebnf(ebnf), "root") is None
    except (Unreadable, LookupError, OverflowError, RecursionError):
        return False
