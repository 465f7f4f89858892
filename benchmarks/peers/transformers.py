"""transformers in the product's environment. Variants: bf16-generate, float32-generate (one padded batch) and
bf16-batching (continuous batching, which shares prefixes and has no grammar).

Grammars are xgrammar's own logits processor for transformers.
"""

from typing import Any

from benchmarks.peers.contestant import MAX_SEQUENCES, MAX_TOKENS, N_THREADS, Contestant, Tokens, serve


class Transformers(Contestant):
    """`AutoModelForCausalLM` with PyTorch's attention."""

    def load(self) -> None:
        """One model for both ways."""
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(N_THREADS)
        dtype, self._way = self.variant.split("-")
        self.has_prefix_cache = self._way == "batching"
        self.has_json = self._way == "generate"
        kind = {"bf16": torch.bfloat16, "float32": torch.float32}[dtype]
        attention = "paged|sdpa" if self._way == "batching" else "sdpa"
        self._model = AutoModelForCausalLM.from_pretrained(
            self.checkpoint, dtype=kind, attn_implementation=attention
        ).eval()
        self._grammars: dict[str, Any] = {}

    def generate(self, prompts: list[Tokens], n_tokens: int, schema: dict[str, Any] | None = None) -> list[Tokens]:
        """All prompts have one length, so nothing is padded."""
        if self._way == "batching":
            return self._generate_batch(prompts, n_tokens)
        import torch

        ids = torch.tensor(prompts)
        with torch.inference_mode():
            answers = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=n_tokens,
                max_new_tokens=n_tokens,
                pad_token_id=0,
                logits_processor=None if schema is None else [self._grammar(schema)],
            )
        return [row[ids.shape[1] :].tolist() for row in answers]

    def _generate_batch(self, prompts: list[Tokens], n_tokens: int) -> list[Tokens]:
        """Through a manager that lives on, so that its cache stays warm."""
        from transformers import ContinuousBatchingConfig, GenerationConfig

        how = GenerationConfig(do_sample=False, max_new_tokens=n_tokens, eos_token_id=-1, pad_token_id=0)
        pages = ContinuousBatchingConfig(
            page_size=32,
            num_blocks=MAX_SEQUENCES * MAX_TOKENS // 32,
            max_batch_tokens=512,
            max_requests_per_batch=MAX_SEQUENCES,
        )
        answers = self._model.generate_batch(
            prompts, generation_config=how, continuous_batching_config=pages, persistent_manager=True
        )
        return [list(answer.generated_tokens) for answer in answers.values()]

    def _grammar(self, schema: dict[str, Any]) -> Any:
        """A fresh processor over the schema's compiled grammar."""
        import json

        import xgrammar
        from transformers import AutoTokenizer
        from xgrammar.contrib.hf import LogitsProcessor

        key = json.dumps(schema)
        if key not in self._grammars:
            tokenizer = AutoTokenizer.from_pretrained(self.checkpoint)
            info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=self._model.config.vocab_size)
            self._grammars[key] = xgrammar.GrammarCompiler(info).compile_json_schema(key)
        return LogitsProcessor(self._grammars[key])


if __name__ == "__main__":
    serve(Transformers)
