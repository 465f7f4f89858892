"""From a constraint to matchers: try it out where it may be killed, compile under a deadline, remember."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from grammars.backends import Backends, attributed, plan_within
from grammars.cache import CompileCache
from grammars.constraint import (
    Alternatives,
    Choice,
    Constraint,
    Copied,
    FreeText,
    Grammar,
    Regex,
    ToolCalls,
    Whitespace,
)
from grammars.constraint import Sequence as SequenceOf
from grammars.errors import ConstraintRefused, MatcherFailed
from grammars.limits import Limits
from grammars.matcher import BackendState, Matcher
from grammars.plan import Plan
from grammars.planner import plan
from grammars.probe import Probe, ProbeLimits
from grammars.quick import is_quick
from grammars.vocabulary import Vocabulary

_FIXED_BYTES: Final = 160_000
_LAZY_BYTES_PER_CHAR: Final = 200
_EAGER_BYTES_PER_CHAR: Final = 16_000
"""What a compiled grammar takes of the C allocator, measured on 1,265 real schemas at 151,936 tokens: 139 kB (p50),
0.77 MB (p95), 2.4 MB (p99), 80 to 480 bytes for each character of the plan. Used where no probe measured it."""
_PATIENCE: Final = 3.0
_OWN_BYTES: Final = 32_000
"""What masks add to it, and the structs around it."""


@dataclass(frozen=True, slots=True)
class CompiledConstraint:
    """A constraint ready for any number of answers.

    backend: which engine holds it. warnings: what the client's schema says that asserts nothing. seconds: time to
    compile. n_bytes: its memory, as measured by the probe or else estimated.
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
        probe: ProbeLimits | None = ProbeLimits(),  # noqa: B008 - frozen
    ) -> None:
        """tokenizer: a transformers fast tokenizer, or an object that holds one as `hf`.

        vocab_size: width of a row of logits (default: the tokenizer's size); ids beyond the tokenizer are never legal.
        stop_token_ids: what ends an answer (default: the tokenizer's end token). whitespace: of JSON, see
        `planner.plan`. deadline_s: wall clock of one compilation. max_entries, max_bytes: bounds of the cache. probe:
        bounds of what is not plainly cheap, which is tried out in a process of its own first (None: it is not).
        Raises ValueError for a tokenizer, size or stop tokens that do not fit.
        """
        self._vocabulary = Vocabulary(tokenizer, vocab_size, None if stop_token_ids is None else tuple(stop_token_ids))
        self._whitespace: Whitespace = whitespace
        self._limits, self._deadline_s = limits or Limits(), deadline_s
        self._backends = Backends(self._vocabulary)
        self._cache: CompileCache[CompiledConstraint] = CompileCache(max_entries, max_bytes, lambda c: c.n_bytes)
        self._bounds = probe
        self._probe = (
            None
            if probe is None or not Probe.is_supported()
            else Probe(self._vocabulary, whitespace, self._limits, probe)
        )

    @property
    def n_words(self) -> int:
        """int32 words in a mask row."""
        return self._vocabulary.n_words

    def warm_up(self) -> None:
        """Load the commonest backend and, at the same time, the probe: no constraint's cost."""
        if self._probe is not None:
            self._probe.start()
        self._backend("llguidance").spellings  # noqa: B018
        if self._probe is not None:
            self._probe.wait()

    def close(self) -> None:
        """End the probe's processes. What was compiled stays usable."""
        if self._probe is not None:
            self._probe.close()

    def is_quick(self, constraint: Constraint) -> bool:
        """Whether `compile` takes milliseconds at most: it is known already, or plainly cheap."""
        inner = constraint.inner if isinstance(constraint, Copied) else constraint
        try:
            encoded = msgspec.json.encode(inner)
        except (TypeError, ValueError, RecursionError):
            return True  # refused at once
        return self._cache.knows(_digest(encoded)) or is_quick(inner, encoded)

    def compile(self, constraint: Constraint) -> CompiledConstraint:
        """The compiled constraint, from the cache where it is known.

        Raises ConstraintRefused for what no backend enforces exactly or what takes too much CPU time or memory, and
        CompileTimeout when the deadline passes; nothing else on account of the constraint.
        """
        if isinstance(constraint, Copied):
            return self._copying(constraint, self.compile(constraint.inner), warm=True)
        encoded = self._encoded(constraint)
        digest = _digest(encoded)
        self._backend("llguidance")
        if self._probe is not None and not self._cache.knows(digest) and not is_quick(constraint, encoded):
            self._probe.start()
            self._probe.wait()  # that is no constraint's cost either
        return self._cache.get(digest, lambda: self._compile(constraint, encoded), self._deadline_s)

    def cached(self, constraint: Constraint) -> CompiledConstraint | None:
        """The compiled constraint if the cache holds it. Raises ConstraintRefused when it remembers a refusal."""
        if isinstance(constraint, Copied):
            inner = self.cached(constraint.inner)
            return None if inner is None else self._copying(constraint, inner, warm=False)
        return self._cache.peek(_digest(self._encoded(constraint)))

    def _compile(self, constraint: Constraint, encoded: bytes) -> CompiledConstraint:
        began = time.perf_counter()
        n_bytes = None
        if self._probe is None or is_quick(constraint, encoded):
            planned = plan_within(constraint, self._whitespace, self._limits, self._vocabulary.size)
        else:
            if isinstance(constraint, Grammar):
                plan_within(
                    constraint, self._whitespace, self._limits, self._vocabulary.size
                )  # cheap, and refuses most of what is no grammar
            found, n_bytes = self._tried_out(self._probe, constraint)
            # A plan of more than text is made again: the probe has shown that it is affordable.
            planned = found or plan_within(constraint, self._whitespace, self._limits, self._vocabulary.size)
        start = self._backends.start(planned)
        try:
            self._require_a_beginning(start)
        except MatcherFailed as error:
            raise attributed(planned, error) from error
        if n_bytes is None:
            n_bytes = _FIXED_BYTES + _bytes_per_char(planned.backend) * planned.n_chars
        return CompiledConstraint(
            planned.backend, planned.warnings, time.perf_counter() - began, n_bytes, self._vocabulary, start
        )

    def _tried_out(self, probe: Probe, constraint: Constraint) -> tuple[Plan | None, int | None]:
        """The plan, made in the probe, if it travels, and the bytes that it took there."""
        assert self._bounds is not None
        # On a busy machine it may take longer than whoever asks waits: the verdict is there when they ask again.
        verdict = probe.try_out(constraint, _PATIENCE * self._deadline_s)
        match verdict.kind:
            case "refused":
                raise ConstraintRefused(verdict.keyword, verdict.pointer, verdict.reason)
            case "cpu":
                reason = f"takes more than {self._bounds.cpu_s:g} s of CPU time to compile: simplify it"
                raise ConstraintRefused(main_keyword(constraint), "", reason)
            case "memory":
                reason = f"takes more than {self._bounds.memory_bytes >> 20} MiB of memory to compile: simplify it"
                raise ConstraintRefused(main_keyword(constraint), "", reason)
            case "crash":
                raise ConstraintRefused(main_keyword(constraint), "", "crashes its compiler: simplify it")
        planned = None if verdict.plan is None else verdict.plan.plan()
        return planned, None if verdict.n_bytes is None else verdict.n_bytes + _OWN_BYTES

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
        if name not in self._backends:
            self._vocabulary.warm_up()
        return self._backends.get(name)

    def _encoded(self, constraint: Constraint) -> bytes:
        """The constraint as text. Properties are written in their order, so nothing is sorted."""
        try:
            return msgspec.json.encode(constraint)
        except UnicodeEncodeError as error:
            reason = "holds half of a surrogate pair, which no text can: remove it"
            raise ConstraintRefused(main_keyword(constraint), "", reason) from error
        except (TypeError, ValueError, RecursionError) as error:
            plan(constraint, self._whitespace, self._limits)  # names the place that is too deep or no JSON
            keyword = main_keyword(constraint)
            raise ConstraintRefused(keyword, "", f"is not JSON ({error}): send plain JSON values") from error


def main_keyword(constraint: Constraint) -> str:
    """What a refusal of the whole constraint names."""
    match constraint:
        case Grammar():
            return "grammar"
        case Regex():
            return "regex"
        case Choice():
            return "choice"
        case ToolCalls():
            return "tools"
        case Copied():
            return main_keyword(constraint.inner)
        case SequenceOf():
            return "sequence"
        case Alternatives():
            return "alternatives"
        case FreeText():
            return "until"
    return "schema"


def _bytes_per_char(backend: str) -> int:
    """Of a plan's text. llguidance builds its automata when they are needed, the others at once."""
    return _LAZY_BYTES_PER_CHAR if backend in ("llguidance", "scanner") else _EAGER_BYTES_PER_CHAR


def _digest(encoded: bytes) -> bytes:
    """A key of 32 bytes, however long the constraint."""
    return hashlib.blake2b(encoded, digest_size=32).digest()
