"""From a constraint to matchers: plan, compile in a thread under a deadline, remember."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Final

import msgspec

from grammars.cache import CompileCache
from grammars.constraint import Constraint, Copied, Grammar
from grammars.errors import ConstraintRefused, MatcherFailed
from grammars.limits import Limits
from grammars.matcher import BackendState, Matcher
from grammars.planner import Plan, Whitespace, plan
from grammars.vocabulary import Vocabulary

_FIXED_BYTES: Final = 65_536  # what a compiled grammar costs beside its text, roughly


@dataclass(frozen=True, slots=True)
class CompiledConstraint:
    """A constraint ready for any number of answers.

    backend: which engine holds it. warnings: what the client's schema says that asserts nothing. seconds: time to
    compile. n_bytes: an estimate of its memory.
    """

    backend: str
    warnings: tuple[str, ...]
    seconds: float
    n_bytes: int
    _vocabulary: Vocabulary
    _start: BackendState

    def matcher(self) -> Matcher:
        """A matcher at the beginning of an answer."""
        return Matcher(self._vocabulary, self._start.fork())


class GrammarCompiler:
    """Compiles constraints for one vocabulary. Thread-safe."""

    def __init__(
        self,
        tokenizer: Any,
        vocab_size: int | None = None,
        stop_token_ids: Sequence[int] | None = None,
        *,
        whitespace: Whitespace = "compact",
        deadline_s: float = 5.0,
        limits: Limits | None = None,
        max_entries: int = 1_024,
        max_bytes: int = 256 << 20,
    ) -> None:
        """tokenizer: a transformers fast tokenizer, or an object that holds one as `hf`.

        vocab_size: width of a row of logits (default: the tokenizer's size); ids beyond the tokenizer are never legal.
        stop_token_ids: what ends an answer (default: the tokenizer's end token). whitespace: of JSON, see
        `planner.plan`. deadline_s: wall clock of one compilation. max_entries, max_bytes: bounds of the cache.
        Raises ValueError for a tokenizer, size or stop tokens that do not fit.
        """
        self._vocabulary = Vocabulary(tokenizer, vocab_size, None if stop_token_ids is None else tuple(stop_token_ids))
        self._whitespace: Whitespace = whitespace
        self._limits, self._deadline_s = limits or Limits(), deadline_s
        self._backends: dict[str, Any] = {}
        self._lock = Lock()
        self._cache: CompileCache[CompiledConstraint] = CompileCache(max_entries, max_bytes, lambda c: c.n_bytes)

    @property
    def n_words(self) -> int:
        """int32 words in a mask row."""
        return self._vocabulary.n_words

    def compile(self, constraint: Constraint) -> CompiledConstraint:
        """The compiled constraint, from the cache where it is known.

        Raises ConstraintRefused for what no backend enforces exactly and CompileTimeout when the deadline passes;
        nothing else on account of the constraint.
        """
        if isinstance(constraint, Copied):
            return self._copying(constraint, self.compile(constraint.inner), warm=True)
        key = self._key(constraint)
        self._backend("xgrammar" if isinstance(constraint, Grammar) and constraint.syntax == "ebnf" else "llguidance")
        return self._cache.get(key, lambda: self._compile(constraint), self._deadline_s)

    def cached(self, constraint: Constraint) -> CompiledConstraint | None:
        """The compiled constraint if the cache holds it. Raises ConstraintRefused when it remembers a refusal."""
        if isinstance(constraint, Copied):
            inner = self.cached(constraint.inner)
            return None if inner is None else self._copying(constraint, inner, warm=False)
        return self._cache.peek(self._key(constraint))

    def _compile(self, constraint: Constraint) -> CompiledConstraint:
        began = time.perf_counter()
        try:
            planned = plan(constraint, self._whitespace, self._limits)
        except RecursionError as error:
            raise ConstraintRefused("$ref", "", "nests too deep once references are followed: flatten it") from error
        backend = self._backend(planned.backend)
        try:
            start = backend.compile(planned.source)
            self._require_a_beginning(start)
        except (ConstraintRefused, MatcherFailed) as error:
            raise _attributed(planned, error.reason if isinstance(error, ConstraintRefused) else str(error)) from error
        size = _FIXED_BYTES + 16 * len(planned.source)
        return CompiledConstraint(
            planned.backend, planned.warnings, time.perf_counter() - began, size, self._vocabulary, start
        )

    def _copying(self, constraint: Copied, inner: CompiledConstraint, *, warm: bool) -> CompiledConstraint:
        """The compiled constraint under an overlay. Only the part without the text is cached: texts hardly recur.

        warm: read the text now, rather than when the first string begins.
        """
        from grammars.copying import CopyingState

        if len(constraint.text) > self._limits.copied_chars:
            raise ConstraintRefused(
                "copy_strings", "", f"the text has more than {self._limits.copied_chars} characters: shorten it"
            )
        spellings = self._backend("llguidance").spellings
        start = CopyingState.begin(constraint, inner._start, spellings, self._vocabulary.text_row)
        if warm:
            start.warm_up()
        return replace(inner, _start=start)

    def _require_a_beginning(self, start: BackendState) -> None:
        """Refuse a grammar without a sentence, such as a reference to itself, before an answer is stuck in it."""
        import torch

        row = torch.zeros(self._vocabulary.n_words, dtype=torch.int32)
        Matcher(self._vocabulary, start.fork()).fill_mask(row)
        if not row.any():
            raise MatcherFailed("no answer can satisfy it")

    def _backend(self, name: str) -> Any:
        """The backend, made and warmed by whoever asks first: that is no constraint's cost."""
        with self._lock:
            if name not in self._backends:
                backend = _new_backend(name, self._vocabulary)
                backend.warm_up()
                self._vocabulary.warm_up()
                self._backends[name] = backend
            return self._backends[name]

    def _key(self, constraint: Constraint) -> bytes:
        """The constraint as text. Properties are written in their order, so nothing is sorted."""
        try:
            return msgspec.json.encode(constraint)
        except (TypeError, ValueError, RecursionError) as error:
            plan(constraint, self._whitespace, self._limits)  # names the place that is too deep or no JSON
            raise ConstraintRefused("schema", "", f"is not JSON ({error}): send plain JSON values") from error


def _new_backend(name: str, vocabulary: Vocabulary) -> Any:
    """Imported here, so that a process pays only for the engines it uses."""
    match name:
        case "xgrammar":
            from grammars.xgrammar_backend import XGrammarBackend

            return XGrammarBackend(vocabulary)
        case "outlines":
            from grammars.outlines_backend import OutlinesBackend

            return OutlinesBackend(vocabulary)
    from grammars.llguidance_backend import LLGuidanceBackend

    return LLGuidanceBackend(vocabulary)


def _attributed(planned: Plan, reason: str) -> ConstraintRefused:
    """A backend's refusal with the client's keyword and pointer, as well as they can be known."""
    for keyword, pointer in planned.uses:
        if len(keyword) > 2 and re.search(rf"(?<![\w$]){re.escape(keyword)}(?!\w)", reason):
            return ConstraintRefused(keyword, pointer, f"no backend holds it exactly ({reason})")
    for keyword in ("oneOf", "patternProperties", "allOf", "pattern", "$ref", "anyOf", "type", "enum"):
        for used, pointer in planned.uses:
            if used == keyword:
                return ConstraintRefused(keyword, pointer, f"no backend holds this schema exactly ({reason})")
    return ConstraintRefused(planned.keyword, "", f"no backend holds it ({reason})")
