"""vLLM's CPU build, offline. Variants: bf16, w8a8, each -eager or -compiled."""

import os
from typing import Any

from benchmarks.peers.contestant import CORES, MAX_SEQUENCES, MAX_TOKENS, Contestant, Tokens, serve


class Vllm(Contestant):
    """`vllm.LLM` in this process, bound to its cores, one thread each, with one GiB of KV cache."""

    def load(self) -> None:
        """vLLM reads its environment on import. Left to itself it keeps one core back for an HTTP server."""
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, CORES))
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ["VLLM_NO_USAGE_STATS"] = "1"
        from vllm import LLM

        weights, mode = self.variant.split("-")
        folder = self.checkpoint if weights == "bf16" else self.checkpoint.parent / weights
        self._engine = LLM(
            str(folder),
            dtype="bfloat16",
            max_model_len=MAX_TOKENS,
            max_num_seqs=MAX_SEQUENCES,
            enforce_eager=mode == "eager",
        )

    def generate(self, prompts: list[Tokens], n_tokens: int, schema: dict[str, Any] | None = None) -> list[Tokens]:
        """One batch; text is not made."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        params = SamplingParams(
            temperature=0,
            max_tokens=n_tokens,
            ignore_eos=True,
            detokenize=False,
            structured_outputs=None if schema is None else StructuredOutputsParams(json=schema),
        )
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        return [list(r.outputs[0].token_ids) for r in self._engine.generate(asked, params, use_tqdm=False)]


if __name__ == "__main__":
    serve(Vllm)
