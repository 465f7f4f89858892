"""One constraint, judged: it compiles, is refused with a reason, or runs out of time; what it writes is valid."""

import json
import random
import re
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import jsonschema
import numpy
import torch

from grammars import (
    Alternatives,
    CompileTimeout,
    Constraint,
    ConstraintRefused,
    Copied,
    FreeText,
    GrammarCompiler,
    JsonSchema,
    MatcherFailed,
    Regex,
    Sequence,
    ToolCalls,
)
from grammars import draft as drafts
from grammars.draft import Draft
from grammars.pointer import resolve
from grammars.validation import Unjudged, validate
from tests.grammars.fuzz.cases import Case, Corpus, make
from tests.grammars.fuzz.vocabulary import crossing_tokenizer, spellings

_VALIDATORS: Final = {
    Draft.DRAFT4: jsonschema.Draft4Validator,
    Draft.DRAFT6: jsonschema.Draft6Validator,
    Draft.DRAFT7: jsonschema.Draft7Validator,
    Draft.DRAFT2019: jsonschema.Draft201909Validator,
    Draft.DRAFT2020: jsonschema.Draft202012Validator,
}
_HANDY: Final = frozenset(b'"}],:{[abc012-.te')
_CLOSING: Final = ('"', "}", "]", '"}', '"]', "}}", "]}", '"}]', "1", "0", "true", "null")
_ORACLE_S: Final = 2.0
_TURNING: Final = ("not", "oneOf", "if", "contains", "unevaluatedProperties", "unevaluatedItems", "dependentSchemas")
_OTHER_IN_PYTHON: Final = (
    "$", "(?", ".", "[]", "[^]", "[[", "&&", "--", "~~", "||", "*+", "++", "?+", "}+",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken promise.

    kind: `crash`, `slow`, `pointer` (a refusal that names no place), `dead end`, `disagreement` (of mask and matcher),
    `not JSON`, `loose`, `unreadable` (compiled, but the final validator cannot read the constraint), or `disputed`:
    only the validator in Python refuses the answer.
    """

    kind: str
    detail: str


@dataclass(slots=True)
class Outcome:
    """What became of a case. status: `compiled`, `refused` or `timeout`; cpu_s of the compilation; peak bytes of the
    process so far."""

    status: str
    keyword: str = ""
    cpu_s: float = 0.0
    peak_bytes: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    text: str = ""


class Judge:
    """Judges cases with one compiler, as a server has one. cpu_s: what one compilation may take before it is slow."""

    def __init__(self, corpus: Corpus, *, walks: int = 3, cpu_s: float = 8.0) -> None:
        self._corpus, self._walks, self._cpu_s = corpus, walks, cpu_s
        self._compiler = GrammarCompiler(crossing_tokenizer(), vocab_size=len(spellings()) + 40)
        self._spellings = spellings()
        self._end = len(self._spellings)
        self._row = torch.zeros(self._compiler.n_words, dtype=torch.int32)
        self._closing = [i for i, spelling in enumerate(self._spellings) if spelling.decode("latin-1") in _CLOSING]
        signal.signal(signal.SIGPROF, _out_of_time)

    def __call__(self, case: Case) -> Outcome:
        """The outcome of a case; the constraint is in `text` when something was found."""
        constraint, is_sentence, rng = make(case, self._corpus)
        outcome = self.judge(constraint, rng, is_sentence)
        if outcome.findings:
            outcome.text = repr(constraint)
        outcome.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return outcome

    def judge(
        self, constraint: Constraint, rng: random.Random, is_sentence: Callable[[str], bool] | None = None
    ) -> Outcome:
        """Compile, walk, check. is_sentence: a recogniser for grammars, which nothing else can check."""
        began = time.process_time()
        try:
            compiled = self._compiler.compile(constraint)
        except ConstraintRefused as refusal:
            outcome = Outcome("refused", refusal.keyword, time.process_time() - began)
            self._check_refusal(constraint, refusal, outcome)
            return outcome
        except CompileTimeout:
            return Outcome("timeout", cpu_s=time.process_time() - began)
        except Exception as error:  # any other kind is what this looks for
            return Outcome("crash", findings=[Finding("crash", f"compile: {type(error).__name__}: {error}"[:300])])
        outcome = Outcome("compiled", cpu_s=time.process_time() - began)
        if outcome.cpu_s > self._cpu_s:
            outcome.findings.append(Finding("slow", f"compiling took {outcome.cpu_s:.1f} s of processor time"))
        for _ in range(self._walks):
            try:
                text = self._walk(compiled.matcher(), rng, outcome)
                if text is not None and not _counts_tokens(constraint):
                    self._check_bytes(compiled.matcher(), text, outcome)
            except MatcherFailed as error:
                if "no answer" in str(error):
                    outcome.findings.append(Finding("dead end", f"{error}"))
                outcome.counts["failed: " + re.sub(r"\d+", "N", str(error))[:60]] += 1
                continue
            except Exception as error:
                outcome.findings.append(Finding("crash", f"walk: {type(error).__name__}: {error}"[:300]))
                continue
            if text is None:
                outcome.counts["unfinished"] += 1
                continue
            outcome.counts["finished"] += 1
            self._check_text(constraint, text, is_sentence, outcome)
        return outcome

    def _check_refusal(self, constraint: Constraint, refusal: ConstraintRefused, outcome: Outcome) -> None:
        if not refusal.keyword or not refusal.reason:
            outcome.findings.append(Finding("pointer", f"a refusal without keyword or reason: {refusal!r}"))
        try:
            resolve(_document(constraint), refusal.pointer)
        except (LookupError, ValueError):
            outcome.findings.append(Finding("pointer", f"{refusal.pointer!r} leads nowhere: {refusal}"[:300]))

    def _walk(
        self, matcher: Any, rng: random.Random, outcome: Outcome, loose: int = 30, most: int = 110
    ) -> bytes | None:
        """An answer drawn token by token, None when it did not end; dead ends are noted.

        Two of five walks try drafts on the way, and at the end a matcher that never did must have had the same masks.
        """
        out, fresh = bytearray(), matcher.fork()
        boldness, drafts = rng.choice((0.1, 0.5, 0.9)), rng.random() < 0.4
        path: list[int] = []
        rows: list[torch.Tensor] = []
        for step in range(most):
            matcher.fill_mask(self._row)
            bits = numpy.unpackbits(self._row.numpy().view(numpy.uint8), bitorder="little")
            options = bits.nonzero()[0].tolist()
            if not options:
                outcome.findings.append(Finding("dead end", f"nothing is legal after {bytes(out)!r}"))
                return None
            if (self._end in options) != matcher.is_complete or options[-1] > self._end:
                outcome.findings.append(Finding("disagreement", f"mask and completeness differ after {bytes(out)!r}"))
            if self._end in options and (len(options) == 1 or step > loose or rng.random() < 0.2):
                if drafts:
                    self._check_replay(fresh, path, rows, outcome)
                if not matcher.advance(self._end) or not matcher.is_terminated:
                    outcome.findings.append(Finding("disagreement", f"the legal end is not taken after {bytes(out)!r}"))
                return bytes(out)
            if options[-1] == self._end:
                options.pop()
            illegal = rng.randrange(self._end)
            if not bits[illegal] and matcher.fork().advance(illegal):
                shown = f"{bytes(out)!r}: {self._spellings[illegal]!r}"
                outcome.findings.append(Finding("disagreement", f"an illegal token is taken after {shown}"))
            if drafts:
                rows.append(self._row.clone())
                matcher.trial([rng.choice(options), rng.choice(options), rng.randrange(self._end)][: rng.randint(0, 3)])
            token = self._choose(options, rng, boldness, path, closing=step > loose)
            path.append(token)
            if not matcher.advance(token):
                shown = f"{bytes(out)!r}: {self._spellings[token]!r}"
                outcome.findings.append(Finding("disagreement", f"a legal token is not taken after {shown}"))

                return None
            out += self._spellings[token]
        return None

    def _check_replay(self, fresh: Any, path: list[int], rows: list[torch.Tensor], outcome: Outcome) -> None:
        for i, (token, row) in enumerate(zip(path, rows, strict=True)):
            fresh.fill_mask(self._row)
            if not torch.equal(self._row, row):
                text = b"".join(self._spellings[taken] for taken in path[:i])
                outcome.findings.append(Finding("disagreement", f"after {text!r} drafts have left a trace in the mask"))
                return
            fresh.advance(token)

    def _check_bytes(self, matcher: Any, text: bytes, outcome: Outcome) -> None:
        """The same answer, a byte a token, must be legal as well."""
        for i, byte in enumerate(text):
            matcher.fill_mask(self._row)
            is_legal = bool(self._row[byte // 32] >> byte % 32 & 1)
            if not matcher.advance(byte) or not is_legal:
                shown = f"{text[:i]!r}: {text[i : i + 1]!r} (of {text[i : i + 20]!r})"
                outcome.findings.append(Finding("disagreement", f"a byte of an answer is not taken after {shown}"))
                return
        if not matcher.is_complete:
            outcome.findings.append(Finding("disagreement", f"{text!r} is not complete in single bytes"))

    def _choose(
        self, options: list[int], rng: random.Random, boldness: float, path: list[int], *, closing: bool
    ) -> int:
        if path and rng.random() < 0.15:  # the same names and values again
            legal = set(options)
            again = [token for token in path if token in legal]
            if again:
                return rng.choice(again)
        if closing and rng.random() < 0.9:
            legal = set(options)
            handy = [token for token in self._closing if token in legal]
            if handy:
                return rng.choice(handy)
        if rng.random() > boldness:
            handy = [token for token in options if token >= 256 or token in _HANDY]
            if handy:
                return rng.choice(handy)
        return rng.choice(options)

    def _check_text(self, constraint: Constraint, raw: bytes, is_sentence: Any, outcome: Outcome) -> None:
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            outcome.findings.append(Finding("not JSON", f"{raw!r} is no UTF-8"))
            return
        if is_sentence is not None and not is_sentence(text):
            outcome.findings.append(Finding("loose", f"{text!r} is no sentence"))
        try:
            violation = validate(constraint, text)
        except Unjudged:
            outcome.counts["unjudged"] += 1
            return
        except Exception as error:
            outcome.findings.append(Finding("unreadable", f"compiled, but {type(error).__name__}: {error}"[:300]))
            return
        if violation is not None:
            what = f"{text!r}: {violation.keyword} at {violation.pointer}: {violation.message}"
            outcome.findings.append(Finding("loose", what[:400]))
        elif isinstance(constraint, JsonSchema):
            second_opinion(constraint.schema, text, outcome)
        elif isinstance(constraint, Regex) and _matches_in_python(constraint.pattern, text) is False:
            outcome.findings.append(Finding("disputed", f"Python's re refuses {text!r}"))


def _document(constraint: Constraint) -> Any:
    """What a refusal's pointer leads into."""
    match constraint:
        case JsonSchema():
            return constraint.schema
        case ToolCalls():
            functions = [{"name": tool.name, "parameters": tool.parameters} for tool in constraint.tools]
            return {"tools": [{"type": "function", "function": function} for function in functions]}
        case Copied():
            return _document(constraint.inner)
        case Sequence() | Alternatives():
            return [{_member(part): _document(part)} for part in constraint.parts]
        case FreeText():
            return {"until": constraint.until, "max_tokens": constraint.max_tokens}
    return {}


def _member(part: Constraint) -> str:
    """The member of a request's part that holds the constraint."""
    return "json" if isinstance(part, JsonSchema) else str(part.__struct_config__.tag)


def second_opinion(schema: Any, text: str, outcome: Outcome) -> None:
    """The Python validator, on the client's schema; a refusal is `disputed`, since the Rust one accepted.

    Left to the Rust one: numbers beyond doubles, and multiples of what no double is (Python divides floats).
    """
    value = json.loads(text)
    written = json.dumps(schema)
    version = drafts.of(schema)
    if _is_huge(value) or _differs_in_python(written):
        return
    if version is not Draft.DRAFT4 and (": true" in written or ": false" in written) and '"exclusiveM' in written:
        return  # a boolean `exclusiveMinimum`, which it would read as a number
    if version > Draft.DRAFT7 and '"dependencies"' in written:
        return  # the Python validator has forgotten it
    if version < Draft.DRAFT2019 and '"format"' in written:
        return  # it knows fewer formats in older drafts
    if '"format"' in written and any(f'"{keyword}"' in written for keyword in _TURNING):
        return  # the Python validator knows fewer formats, so it takes more: and then less where that is turned round
    validator = _VALIDATORS[version]
    signal.setitimer(signal.ITIMER_PROF, _ORACLE_S)
    try:
        error = next(validator(schema, format_checker=validator.FORMAT_CHECKER).iter_errors(value), None)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as failure:  # it cannot read what the other one could, or its patterns or references explode
        outcome.counts[f"no second opinion: {type(failure).__name__}"] += 1
        return
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if error is not None and not (error.validator == "multipleOf" and isinstance(error.validator_value, float)):
        outcome.findings.append(
            Finding("disputed", f"Python refuses {text!r}: {error.validator}: {error.message}"[:400])
        )


def _is_huge(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_is_huge, value.values()))
    if isinstance(value, list):
        return any(map(_is_huge, value))
    return isinstance(value, int | float) and not isinstance(value, bool) and not -1e15 < value < 1e15


def _differs_in_python(text: str) -> bool:
    """Whether a schema's text holds what means something else in Python's expressions than in ECMAScript's."""
    return any(f"\\\\{escape}" in text for escape in "wWdDsSbBpcu0AZ")


def _matches_in_python(pattern: str, text: str) -> bool | None:
    """None where the two languages differ or Python is too slow."""
    if _differs_in_python(json.dumps(pattern)) or any(mark in pattern for mark in _OTHER_IN_PYTHON):
        return None
    signal.setitimer(signal.ITIMER_PROF, _ORACLE_S)
    try:
        return re.fullmatch(f"(?:{pattern})", text) is not None
    except Exception:
        return None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _counts_tokens(constraint: Constraint) -> bool:
    """Whether an answer may depend on how it is cut into tokens."""
    if isinstance(constraint, Sequence | Alternatives):
        return any(map(_counts_tokens, constraint.parts))
    return isinstance(constraint, FreeText) and constraint.max_tokens is not None


class OutOfTime(Exception):
    """The oracle took too long."""


def _out_of_time(*_: Any) -> None:
    raise OutOfTime
