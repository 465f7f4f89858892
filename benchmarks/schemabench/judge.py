"""One schema before one contender: does it hold it, how fast, and what does it make of the instances.

An instance is serialised by `json.dumps(data, ensure_ascii=False)` with the contender's separators and fed token by
token: fill the mask, look up the token's bit, advance; at the end an end token must be legal. A valid instance is
*refused* when any of these fails, an invalid one is *accepted* when none does.
"""

import json
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.schemabench.contender import Compiled, Contender, OutOfTime, Refused, Setting, start
from benchmarks.schemabench.rows import Row
from benchmarks.schemabench.spelling import Speller, plain_numbers
from benchmarks.tokenizers import byte_tokenizer, load_tokenizer
from grammars import JsonSchema
from grammars.pointer import resolve
from grammars.validation import validate

BYTES_END: Final = "<|endoftext|>"
Cause = Literal["order", "number", "order and number", "assertion", "other", "unknown"]


@dataclass(slots=True)
class Verdict:
    """What became of a schema. Times in microseconds.

    status: `compiled`, `refused`, `timeout` or `error`. keyword, reason: of a refusal or error. cold_cpu_us, cold_us:
    processor time of the process, and wall clock, until the first mask; cached_us: processor time of compiling the
    same schema again, cached_mask_us until its first mask. refused: (cause, text up to the token that was not legal)
    of valid instances; accepted: texts of invalid ones.
    """

    status: Literal["compiled", "refused", "timeout", "error"]
    keyword: str = ""
    reason: str = ""
    backend: str = ""
    cold_cpu_us: float = 0.0
    cold_us: float = 0.0
    cached_us: float = 0.0
    cached_mask_us: float = 0.0
    mask_us: list[float] = field(default_factory=list)
    advance_us: list[float] = field(default_factory=list)
    n_valid: int = 0
    n_invalid: int = 0
    refused: list[tuple[Cause, str]] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    peak_bytes: int = 0


@dataclass(frozen=True, slots=True)
class JudgeMaker:
    """Makes a judge in the process that judges. tokenizer: a file, or None for the 256 bytes."""

    setting: Setting
    tokenizer: Path | None
    end_token: str | None
    whitespace: Literal["compact", "single"]
    deadline_s: float

    def __call__(self) -> Callable[[Row], Verdict]:
        """Engines write to the error stream what they ignore, a line a schema: a peer's is closed."""
        if not self.setting.is_ours:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        tokenizer = load_tokenizer(self.tokenizer, self.end_token) if self.tokenizer else byte_tokenizer(BYTES_END)
        return Judge(start(self.setting, tokenizer, self.whitespace, self.deadline_s), tokenizer, self.setting)


class Judge:
    """Judges rows one after the other with one warm contender."""

    def __init__(self, contender: Contender, tokenizer: Any, setting: Setting) -> None:
        import torch

        self._contender, self._tokenizer, self._setting = contender, tokenizer, setting
        self._row = torch.zeros(contender.n_words, dtype=torch.int32)
        self._words = self._row.numpy()

    def __call__(self, row: Row) -> Verdict:
        """The verdict on a row; nothing is raised."""
        try:
            verdict = self._judge(row)
        except Refused as refusal:
            verdict = self._refusal(row, refusal)
        except OutOfTime as timeout:
            verdict = Verdict("timeout", reason=str(timeout))
        except Exception as error:  # whatever else it is, is what a benchmark of failures counts
            verdict = Verdict("error", reason=f"{type(error).__name__}: {error}"[:300])
        verdict.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return verdict

    def _refusal(self, row: Row, refusal: Refused) -> Verdict:
        """A refusal counts as one only with a keyword, and a pointer that leads somewhere; a peer names neither."""
        if not self._setting.is_ours:
            return Verdict("refused", reason=refusal.reason)
        try:
            resolve(row.schema, refusal.pointer or "")
        except (LookupError, ValueError):
            return Verdict("error", refusal.keyword or "", f"refused at {refusal.pointer!r}, which leads nowhere")
        if not refusal.keyword:
            return Verdict("error", reason=f"refused without a keyword: {refusal.reason}")
        return Verdict("refused", refusal.keyword, f"{refusal.pointer or '(root)'}: {refusal.reason}")

    def _judge(self, row: Row) -> Verdict:
        began, began_cpu = time.perf_counter_ns(), time.process_time_ns()
        compiled = self._contender.compile(row.schema)
        compiled.answer().fill(self._row)
        # Of the whole process, since ours compiles in a thread of its own.
        verdict = Verdict("compiled", backend=getattr(compiled, "backend", ""))
        verdict.cold_cpu_us = (time.process_time_ns() - began_cpu) / 1e3
        verdict.cold_us = (time.perf_counter_ns() - began) / 1e3
        began_cpu = time.process_time_ns()
        compiled = self._contender.compile(row.schema)
        verdict.cached_us = (time.process_time_ns() - began_cpu) / 1e3
        compiled.answer().fill(self._row)
        verdict.cached_mask_us = (time.process_time_ns() - began_cpu) / 1e3
        for data, is_valid in row.tests:
            verdict.n_valid += is_valid
            verdict.n_invalid += not is_valid
            is_accepted, text = self._accepts(compiled, self._text(data), verdict)
            if is_accepted and not is_valid:
                verdict.accepted.append(text[:400])
            elif is_valid and not is_accepted:
                verdict.refused.append((self._cause(compiled, row.schema, data), text[-200:]))
        return verdict

    def _text(self, data: Any) -> str:
        return json.dumps(data, ensure_ascii=False, separators=self._setting.separators)

    def _accepts(self, compiled: Compiled, text: str, verdict: Verdict | None) -> tuple[bool, str]:
        """(whether every token and the end were legal, the text up to the token that was not)."""
        tokens = self._tokenizer.encode(text, add_special_tokens=False)
        answer = compiled.answer()
        for i, token in enumerate(tokens):
            began = time.thread_time_ns()
            answer.fill(self._row)
            filled = time.thread_time_ns()
            is_legal = bool(self._words[token // 32] >> (token % 32) & 1)
            taken = is_legal and answer.advance(token)
            if verdict is not None:
                verdict.mask_us.append((filled - began) / 1e3)
                verdict.advance_us.append((time.thread_time_ns() - filled) / 1e3)
            if is_legal != taken:
                raise RuntimeError(f"a legal token is not taken: {token} after {self._tokenizer.decode(tokens[:i])!r}")
            if not taken:
                return False, self._tokenizer.decode(tokens[: i + 1])
        return answer.may_end(), text

    def _cause(self, compiled: Compiled, schema: Any, data: Any) -> Cause:
        """What spelling of a valid instance would have been accepted: of another order, of plain numbers, of both.

        `assertion`: a validator that asserts the formats of the standard, as our grammars do, refuses it as well.
        """
        if not self._setting.is_ours:
            return "unknown"
        if validate(JsonSchema(schema), self._text(data)) is not None:
            return "assertion"
        plain = plain_numbers(data)
        if self._accepts(compiled, self._text(plain), None)[0]:
            return "number"
        speller = Speller(self._tokenizer, self._setting.separators, schema)
        if speller.can_write(compiled.answer(), data):
            return "order"
        return "order and number" if speller.can_write(compiled.answer(), plain) else "other"
