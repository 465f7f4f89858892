"""Ours, through the Python interface. Variants: bf16, float32, and the weight forms of EngineConfig.quantize."""

from typing import Any

from benchmarks.peers.contestant import MAX_TOKENS, N_THREADS, Contestant, Tokens, serve
from engine.config import Quantization

QUANTIZE: dict[str, Quantization] = {
    "bf16": "none",
    "float32": "none",
    "w8a8": "w8a8",
    "int4": "int4",
}


class Pointsman(Contestant):
    """`engine.Engine` with its defaults."""

    def load(self) -> None:
        """Rounded weights run with bfloat16 activations."""
        from engine import Engine

        self._engine = Engine.from_pretrained(
            self.checkpoint,
            "float32" if self.variant == "float32" else "bfloat16",
            quantize=QUANTIZE[self.variant],
            max_model_len=MAX_TOKENS,
            torch_threads=N_THREADS,
        )

    def generate(self, prompts: list[Tokens], n_tokens: int, schema: dict[str, Any] | None = None) -> list[Tokens]:
        """One batch."""
        from engine import SamplingParams
        from grammars.constraint import JsonSchema

        params = SamplingParams(temperature=0, max_tokens=n_tokens, min_tokens=n_tokens, ignore_eos=True)
        constraint = None if schema is None else JsonSchema(schema)
        return [list(result.token_ids) for result in self._engine.generate([*prompts], params, constraint)]


if __name__ == "__main__":
    serve(Pointsman)
