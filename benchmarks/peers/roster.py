"""Who takes part: each contestant's module, environment and precision, and what a peer's environment is made with."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.checkpoints import Shape

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".peers"
INSTALL = "make bench-peers"


@dataclass(frozen=True, slots=True)
class Entry:
    """One contestant. precision: contestants are compared with those of the same one. layer_bits, head_bits: bits of
    one weight, scales included, in the layers and in the head, as they lie in memory while decoding."""

    module: str
    variant: str
    precision: str
    layer_bits: float
    head_bits: float

    @property
    def name(self) -> str:
        """As on the command line and in the table."""
        return f"{self.module}-{self.variant}"

    @property
    def is_ours(self) -> bool:
        """Measured against the others."""
        return self.module == "pointsman"

    @property
    def python(self) -> Path:
        """The interpreter of its environment; ours and transformers run in this one."""
        if self.module in ("pointsman", "transformers"):
            return Path(sys.executable)
        return HOME / self.module / "bin" / "python"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of its process. vLLM asks for two libraries to be loaded before all others."""
        common = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
        if self.module != "vllm":
            return common
        wanted = [HOME / "vllm/lib/libiomp5.so", *(HOME / "tcmalloc").glob("**/libtcmalloc_minimal.so.4")]
        return common | {
            "LD_PRELOAD": ":".join(str(path) for path in wanted if path.exists()),
            "VLLM_CACHE_ROOT": str(HOME / "cache"),
        }

    def bytes_per_token(self, shape: Shape) -> float:
        """Bytes of weights that one decode step reads."""
        return (shape.layer_weights * self.layer_bits + shape.head_weights * self.head_bits) / 8


ROSTER = {
    entry.name: entry
    for entry in (
        Entry("pointsman", "bf16", "bf16", 16, 16),
        Entry("vllm", "bf16-eager", "bf16", 16, 16),
        Entry("vllm", "bf16-compiled", "bf16", 16, 16),
        Entry("llamacpp", "bf16", "bf16", 16, 16),
        Entry("openvino", "bf16", "bf16", 16, 16),
        Entry("transformers", "bf16-generate", "bf16", 16, 16),
        Entry("transformers", "bf16-batching", "bf16", 16, 16),
        Entry("pointsman", "w8a8", "8 bit", 8, 8),
        Entry("vllm", "w8a8-eager", "8 bit", 8, 16),
        Entry("vllm", "w8a8-compiled", "8 bit", 8, 16),
        Entry("llamacpp", "q8_0", "8 bit", 8.5, 8.5),
        Entry("openvino", "int8", "8 bit", 8, 8),
        Entry("pointsman", "int4", "4 bit", 4.5, 4.5),
        Entry("llamacpp", "q4_0", "4 bit", 4.5, 8.5),
        Entry("pointsman", "float32", "float32", 32, 32),
        Entry("transformers", "float32-generate", "float32", 32, 32),
    )
}
