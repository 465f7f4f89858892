"""openvino-genai with its continuous batching pipeline. Variants: bf16, int8 (weights, per channel, asymmetric: what
optimum-intel's `int8` export makes)."""

from typing import Any

from benchmarks.peers.contestant import MAX_SEQUENCES, N_THREADS, Contestant, Tokens, serve


class OpenVino(Contestant):
    """`ContinuousBatchingPipeline` with prefix caching, 1 GiB of KV cache in bfloat16 and prompts in parts."""

    def prepare(self) -> None:
        """Export through optimum-intel, with the tokenizer's graph, which the pipeline asks for."""
        if (self.derived / "openvino_model.bin").exists():
            return
        import openvino
        from openvino_tokenizers import convert_tokenizer
        from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig
        from transformers import PreTrainedTokenizerFast

        int8 = OVWeightQuantizationConfig(bits=8, sym=False)
        model = OVModelForCausalLM.from_pretrained(
            self.checkpoint, export=True, compile=False, quantization_config=int8 if self.variant == "int8" else None
        )
        model.save_pretrained(self.derived)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(self.checkpoint)
        tokenizer.save_pretrained(self.derived)
        for graph, name in zip(
            convert_tokenizer(tokenizer, with_detokenizer=True), ("tokenizer", "detokenizer"), strict=True
        ):
            openvino.save_model(graph, self.derived / f"openvino_{name}.xml")

    def load(self) -> None:
        """Compile the graph for the CPU."""
        import openvino_genai

        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = 1
        scheduler.enable_prefix_caching = True
        scheduler.dynamic_split_fuse = True
        scheduler.max_num_seqs = MAX_SEQUENCES
        scheduler.max_num_batched_tokens = 512
        properties = {
            "INFERENCE_NUM_THREADS": N_THREADS,
            "INFERENCE_PRECISION_HINT": "bf16",
            "KV_CACHE_PRECISION": "bf16",
        }
        self._engine = openvino_genai.ContinuousBatchingPipeline(str(self.derived), scheduler, "CPU", properties)

    def generate(self, prompts: list[Tokens], n_tokens: int, schema: dict[str, Any] | None = None) -> list[Tokens]:
        """One batch."""
        import json

        import numpy as np
        import openvino
        import openvino_genai

        how = openvino_genai.GenerationConfig(max_new_tokens=n_tokens, ignore_eos=True, do_sample=False)
        if schema is not None:
            how.structured_output_config = openvino_genai.StructuredOutputConfig(json_schema=json.dumps(schema))
        asked = [openvino.Tensor(np.array([prompt], dtype=np.int64)) for prompt in prompts]
        return [list(r.m_generation_ids[0]) for r in self._engine.generate(asked, [how] * len(asked))]


if __name__ == "__main__":
    serve(OpenVino)
