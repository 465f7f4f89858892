"""llama.cpp through llama-cpp-python's binding of its C interface. Variants: bf16, q8_0, q4_0.

The binding's `Llama` class runs one request at a time, so requests are batched here as llama.cpp's own batched example
does it: one sequence per request, the prefix that they share computed once and copied.
"""

import ctypes
import json
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from benchmarks.peers.contestant import MAX_SEQUENCES, N_THREADS, Contestant, Tokens, serve

CONTEXT = 1152
"""Tokens of each sequence: the longest prompt is 1,024."""
BATCH = 2048


class LlamaCpp(Contestant):
    """One context of MAX_SEQUENCES sequences, each with a cache of its own. Sequence 0 keeps the last shared prefix."""

    @property
    def _file(self) -> Path:
        return self.derived / "model.gguf"

    def prepare(self) -> None:
        """GGUF in bfloat16; llama.cpp quantises it as `llama-quantize` does."""
        if self._file.exists():
            return
        self.derived.mkdir(parents=True, exist_ok=True)
        if self.variant == "bf16":
            from benchmarks.peers.gguf_checkpoint import write_gguf

            write_gguf(self.checkpoint, self._file)
            return
        full = LlamaCpp(self.checkpoint, "bf16")
        full.prepare()
        how = llama_cpp.llama_model_quantize_default_params()
        how.ftype = {"q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}[self.variant]
        how.nthread = N_THREADS
        if llama_cpp.llama_model_quantize(bytes(full._file), bytes(self._file), ctypes.byref(how)):
            raise RuntimeError(f"llama.cpp could not quantise {full._file} to {self.variant}")

    def load(self) -> None:
        """Weights that have a faster layout for this CPU are repacked, which is llama.cpp's default."""
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(bytes(self._file), llama_cpp.llama_model_default_params())
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(self._vocab)
        how = llama_cpp.llama_context_default_params()
        how.n_ctx, how.n_seq_max = CONTEXT * MAX_SEQUENCES, MAX_SEQUENCES
        how.n_batch = BATCH
        how.n_threads = how.n_threads_batch = N_THREADS
        how.kv_unified = False
        self._context = llama_cpp.llama_init_from_model(self._model, how)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(BATCH, 0, 1)
        self._shared: Tokens = []
        self._grammars: dict[str, Any] = {}

    def generate(self, prompts: list[Tokens], n_tokens: int, schema: dict[str, Any] | None = None) -> list[Tokens]:
        """The shared prefix, then what each prompt has of its own, then token by token."""
        shared = _common_prefix(prompts) if len(prompts) > 1 else []
        grammars = [self._grammar(schema) for _ in prompts] if schema is not None else None
        self._share(shared, len(prompts))
        rows = [(seq, p, prompt[p]) for seq, prompt in enumerate(prompts) for p in range(len(shared), len(prompt))]
        last = {(seq, len(prompt) - 1) for seq, prompt in enumerate(prompts)}
        tokens: dict[int, int] = {}
        for first in range(0, len(rows), BATCH):
            tokens |= self._step(rows[first : first + BATCH], last, grammars)
        answers = [[tokens[seq]] for seq in range(len(prompts))]
        for i in range(n_tokens - 1):
            rows = [(seq, len(prompt) + i, answers[seq][-1]) for seq, prompt in enumerate(prompts)]
            for seq, token in self._step(rows, {row[:2] for row in rows}, grammars).items():
                answers[seq].append(token)
        for grammar in grammars or []:
            llama_cpp.llama_sampler_free(grammar)
        return answers

    def _share(self, prefix: Tokens, n: int) -> None:
        """Leave exactly `prefix` in sequences 0 to n - 1, computing it only where sequence 0 does not hold it."""
        if not prefix or prefix != self._shared:
            llama_cpp.llama_memory_clear(self._memory, False)
            for first in range(0, len(prefix), BATCH):
                part = range(first, min(first + BATCH, len(prefix)))
                self._step([(0, p, prefix[p]) for p in part], set(), None)
            self._shared = prefix
        if prefix:
            llama_cpp.llama_memory_seq_rm(self._memory, 0, len(prefix), -1)
            for seq in range(1, n):
                llama_cpp.llama_memory_seq_rm(self._memory, seq, -1, -1)
                llama_cpp.llama_memory_seq_cp(self._memory, 0, seq, -1, -1)

    def _step(
        self, rows: list[tuple[int, int, int]], wanted: set[tuple[int, int]], grammars: list[Any] | None
    ) -> dict[int, int]:
        """Compute rows of (sequence, position, token); the next token of each sequence whose row is wanted."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, (seq, position, token) in enumerate(rows):
            batch.token[i], batch.pos[i] = token, position
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, seq
            batch.logits[i] = (seq, position) in wanted
        if llama_cpp.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode failed for {len(rows)} tokens")
        return {
            seq: self._pick(i, grammars[seq] if grammars else None)
            for i, (seq, position, _) in enumerate(rows)
            if (seq, position) in wanted
        }

    def _pick(self, row: int, grammar: Any) -> int:
        """The likeliest token; where the grammar rejects it, the likeliest that it accepts, as llama.cpp's own sampling
        does: the whole vocabulary is only asked for then."""
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._context, row), (self._vocab_size,))
        token = int(logits.argmax())
        if grammar is None:
            return token
        if self._apply(grammar, np.array([token]), logits) is None:
            accepted = self._apply(grammar, np.arange(self._vocab_size), logits)
            if accepted is None:
                raise RuntimeError("the grammar rejects every token")
            token = accepted
        llama_cpp.llama_sampler_accept(grammar, token)
        return token

    @staticmethod
    def _apply(grammar: Any, ids: Any, logits: Any) -> int | None:
        """The likeliest of `ids` that the grammar accepts now."""
        table = np.zeros(len(ids), [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        table["id"], table["logit"] = ids, logits[ids]
        pointer = table.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
        array = llama_cpp.llama_token_data_array(pointer, len(ids), -1, False)
        llama_cpp.llama_sampler_apply(grammar, ctypes.byref(array))
        best = int(table["logit"].argmax())
        return int(table["id"][best]) if np.isfinite(table["logit"][best]) else None

    def _grammar(self, schema: dict[str, Any]) -> Any:
        """A fresh copy of the schema's grammar."""
        key = json.dumps(schema)
        if key not in self._grammars:
            from llama_cpp.llama_grammar import json_schema_to_gbnf

            text = json_schema_to_gbnf(key).encode()
            self._grammars[key] = llama_cpp.llama_sampler_init_grammar(self._vocab, text, b"root")
        return llama_cpp.llama_sampler_clone(self._grammars[key])


def _common_prefix(prompts: list[Tokens]) -> Tokens:
    """Tokens that all prompts begin with, the last token of each left out."""
    n = 0
    while n < min(map(len, prompts)) - 1 and len({prompt[n] for prompt in prompts}) == 1:
        n += 1
    return prompts[0][:n]


if __name__ == "__main__":
    serve(LlamaCpp)
