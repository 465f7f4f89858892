"""llguidance behind the matcher: exact for JSON Schema or it refuses; lazy, so that compiling is cheap."""

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

from grammars.dialects import MARKERS
from grammars.errors import ConstraintRefused, MatcherFailed
from grammars.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

    from grammars.spellings import Spellings


T = TypeVar("T")
# Without it, a mask over text that can only go on one way holds one spelling of it in tokens, and hides the others.
_OPTIONS: Final = '%llguidance {"no_forcing": true}\n'


def _with_markers_as_words(tokenizer: Any) -> str | None:
    """The tokenizer.json in which the markers of tool calls are ordinary tokens; None where there is nothing to change.

    llguidance takes every added token of the form `<…>` for a special one, which no text can spell.
    """
    document = json.loads(tokenizer.to_str())
    added = document.get("added_tokens") or []
    markers = [entry for entry in added if entry["content"] in MARKERS and not entry["special"]]
    vocabulary = document["model"].get("vocab")
    if not markers or not isinstance(vocabulary, dict):
        return None
    # All of them: those that are in the vocabulary keep their ids when others leave the list.
    vocabulary |= {entry["content"]: entry["id"] for entry in added}
    document["added_tokens"] = [entry for entry in added if entry not in markers]
    document |= {"truncation": None, "padding": None}
    return json.dumps(document)


class LLGuidanceState:
    """One llguidance matcher.

    Its copies share a lexer, whose states are counted over all of them, and none recovers from an error. So at the
    first sign of one it is made anew and asked again: what other answers, or drafts that were rejected, have used up of
    the limits counts for nobody else.
    """

    __slots__ = ("_build", "_matcher", "_taken")

    def __init__(self, matcher: Any, build: Callable[[], Any], taken: Sequence[int] = ()) -> None:
        """build: makes a matcher at the start. taken: tokens that this one has taken since."""
        self._matcher, self._build, self._taken = matcher, build, list(taken)

    def fill(self, row: "torch.Tensor") -> None:
        """Set the bits of legal tokens. Raises MatcherFailed at the limits on lexer states and parser items, and then
        stands where it stood."""

        def fill() -> None:
            self._matcher.unsafe_compute_mask_ptr(row.data_ptr(), row.numel() * 4)

        self._do(fill)

    def advance(self, token_id: int) -> bool:
        """Take a token; an illegal one leaves the state as it is. Raises MatcherFailed beyond its limits, and then does
        so, too."""
        is_legal = self._do(lambda: bool(self._matcher.try_consume_tokens([token_id]) == 1))
        if is_legal:
            self._taken.append(token_id)
        return is_legal

    def rollback(self, n: int) -> None:
        """Undo `n` tokens."""
        self._matcher.rollback(n)
        del self._taken[len(self._taken) - n :]
        # 1.9.1 remembers the last mask by position, and forgets to forget it here: a rejected draft would loosen.
        self._matcher.compute_bitmask()

    def fork(self) -> "LLGuidanceState":
        """An independent copy."""
        return LLGuidanceState(self._matcher.deep_copy(), self._build, self._taken)

    def _do(self, work: Callable[[], T]) -> T:
        """What `work` does with the matcher, the second time with another one where the first ends in an error."""
        done = work()
        if not self._matcher.is_error():
            return done
        reason = str(self._matcher.get_error().split("\n")[0])
        self._rebuild()
        if not reason.startswith("NoExtension"):
            done = work()
            if not self._matcher.is_error():
                return done
            self._rebuild()
        raise MatcherFailed("no answer can satisfy it" if reason.startswith("NoExtension") else reason)

    def _rebuild(self) -> None:
        self._matcher = self._build()
        if self._taken:
            self._matcher.try_consume_tokens(self._taken)

    def forced_bytes(self) -> bytes:
        """The bytes that must come next."""
        return bytes(self._matcher.compute_ff_bytes())

    @property
    def is_accepting(self) -> bool:
        """Whether the text so far is a whole sentence."""
        return bool(self._matcher.is_accepting())


class LLGuidanceBackend:
    """Compiles Lark text, in which `%json {…}` blocks hold schemas, for one vocabulary."""

    name = "llguidance"

    def __init__(self, vocabulary: Vocabulary, limits: Any = None) -> None:
        """limits: llguidance's LLParserLimits (None: its own defaults)."""
        self._vocabulary, self._limits = vocabulary, limits

    @cached_property
    def _tokenizer(self) -> Any:
        """The token trie; about a second for 150,000 tokens, so it is built once."""
        import llguidance
        import llguidance.hf

        size, stop_ids = self._vocabulary.size, list(self._vocabulary.stop_ids)
        worded = _with_markers_as_words(self._vocabulary.hf.backend_tokenizer)
        if worded is not None:
            return llguidance.LLTokenizer(worded, n_vocab=size, eos_token=stop_ids)
        return llguidance.hf.from_tokenizer(self._vocabulary.hf, n_vocab=size, eos_token=stop_ids)

    @cached_property
    def spellings(self) -> "Spellings":
        """The vocabulary as bytes, as this backend reads it; made when first asked for."""
        from grammars.spellings import Spellings

        by_id = [self._tokenizer.decode_bytes([token_id]) for token_id in range(self._vocabulary.size)]
        return Spellings(by_id, self._vocabulary.silent_ids)

    def warm_up(self) -> None:
        """Read the vocabulary now; about a second for 150,000 tokens."""
        self._tokenizer  # noqa: B018

    def compile(self, lark: str) -> LLGuidanceState:
        """The start state. Raises ConstraintRefused with llguidance's own words, keyword `grammar`, no pointer."""
        import llguidance

        grammar = llguidance.LLMatcher.grammar_from_lark(_OPTIONS + lark)

        def build() -> Any:
            return llguidance.LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._limits)

        matcher = build()
        if matcher.is_error():
            raise ConstraintRefused("grammar", "", matcher.get_error().split("\n")[0][:300])
        return LLGuidanceState(matcher, build)
