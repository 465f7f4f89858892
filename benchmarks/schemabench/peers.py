"""The engines alone, each as its own documentation says: what a server has that hands schemas straight to them."""

import contextlib
import json
from typing import TYPE_CHECKING, Any

from benchmarks.schemabench.contender import Refused

if TYPE_CHECKING:
    import torch


class XGrammar:
    """xgrammar, one thread, its cache on. strict_mode: its default, which closes open objects and arrays."""

    def __init__(self, tokenizer: Any, *, strict_mode: bool) -> None:
        import xgrammar

        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=len(tokenizer))
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=True)
        self._strict_mode, self._end = strict_mode, tokenizer.eos_token_id
        self.n_words = (len(tokenizer) + 31) // 32

    def compile(self, schema: Any) -> "XGrammarCompiled":
        """Raises Refused."""
        try:
            return XGrammarCompiled(
                self._compiler.compile_json_schema(json.dumps(schema), strict_mode=self._strict_mode), self._end
            )
        except Exception as error:
            raise Refused(f"{type(error).__name__}: {error}"[:300]) from error


class XGrammarCompiled:
    """A compiled grammar."""

    def __init__(self, compiled: Any, end: int) -> None:
        self._compiled, self._end = compiled, end

    def answer(self) -> "XGrammarAnswer":
        """See Compiled."""
        return XGrammarAnswer(self._compiled, self._end)


class XGrammarAnswer:
    """A matcher."""

    def __init__(self, compiled: Any, end: int) -> None:
        import xgrammar

        self._matcher, self._end = xgrammar.GrammarMatcher(compiled), end

    def fill(self, row: "torch.Tensor") -> None:
        """See Answer."""
        if not self._matcher.fill_next_token_bitmask(row.unsqueeze(0)):
            row.fill_(-1)

    def advance(self, token: int) -> bool:
        """See Answer."""
        return bool(self._matcher.accept_token(token))

    def may_end(self) -> bool:
        """See Answer."""
        return bool(self._matcher.accept_token(self._end))


class LLGuidance:
    """llguidance, which has no cache."""

    def __init__(self, tokenizer: Any) -> None:
        import llguidance.hf

        self._tokenizer = llguidance.hf.from_tokenizer(tokenizer, n_vocab=len(tokenizer))
        self.n_words = (len(tokenizer) + 31) // 32

    def compile(self, schema: Any) -> "LLGuidanceCompiled":
        """Raises Refused."""
        import llguidance

        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema))
        except Exception as error:
            raise Refused(f"{type(error).__name__}: {error}"[:300]) from error
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise Refused(matcher.get_error().split("\n")[0][:300])
        return LLGuidanceCompiled(matcher)


class LLGuidanceCompiled:
    """A matcher to copy."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def answer(self) -> "LLGuidanceAnswer":
        """See Compiled."""
        return LLGuidanceAnswer(self._matcher.deep_copy())


class LLGuidanceAnswer:
    """A matcher."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def fill(self, row: "torch.Tensor") -> None:
        """Raises RuntimeError at its limits."""
        self._matcher.unsafe_compute_mask_ptr(row.data_ptr(), row.numel() * 4)
        if self._matcher.is_error():
            raise RuntimeError(self._matcher.get_error().split("\n")[0])

    def advance(self, token: int) -> bool:
        """See Answer."""
        return bool(self._matcher.try_consume_tokens([token]) == 1)

    def may_end(self) -> bool:
        """See Answer."""
        return bool(self._matcher.is_accepting())


class Outlines:
    """outlines-core: a schema becomes an expression, and that an automaton over the vocabulary."""

    def __init__(self, tokenizer: Any) -> None:
        import outlines_core
        import xgrammar

        end = tokenizer.eos_token_id
        spellings = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=len(tokenizer)).decoded_vocab
        table: dict[bytes, list[int]] = {}
        silent = set(tokenizer.all_special_ids)
        for token, spelling in enumerate(spellings):  # xgrammar only says which bytes a token is
            if spelling and token not in silent:
                table.setdefault(bytes(spelling), []).append(token)
        self._vocabulary = outlines_core.Vocabulary(end, table)
        self.n_words = (len(tokenizer) + 31) // 32

    def compile(self, schema: Any) -> "OutlinesCompiled":
        """Raises Refused."""
        from outlines_core import Index
        from outlines_core.json_schema import build_regex_from_schema

        try:
            return OutlinesCompiled(Index(build_regex_from_schema(json.dumps(schema)), self._vocabulary))
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            # A panic in Rust is a BaseException.
            raise Refused(f"{type(error).__name__}: {error}"[:300]) from error


class OutlinesCompiled:
    """An automaton."""

    def __init__(self, index: Any) -> None:
        self._index = index

    def answer(self) -> "OutlinesAnswer":
        """See Compiled."""
        return OutlinesAnswer(self._index)


class OutlinesAnswer:
    """A walk through an automaton."""

    def __init__(self, index: Any) -> None:
        from outlines_core import Guide

        self._guide = Guide(index)

    def fill(self, row: "torch.Tensor") -> None:
        """See Answer."""
        self._guide.write_mask_into(row.data_ptr(), row.numel(), row.element_size())

    def advance(self, token: int) -> bool:
        """See Answer."""
        with contextlib.suppress(ValueError):
            self._guide.advance(token, False)
            return True
        return False

    def may_end(self) -> bool:
        """See Answer."""
        return bool(self._guide.is_finished())
