"""A model in memory, before it has a cache: weights, tokenizer, limits, and the hash of what decides its answers."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.attention import page_dtype, token_kv_bytes
from engine.config import EngineConfig, SchedulerConfig, resolve_dtype
from engine.models.decoder import Decoder
from engine.models.loading import load_decoder
from engine.platform import Platform
from engine.pooled_state import PooledStates
from engine.quantization import converter
from engine.tokenizer import Tokenizer

__all__ = ["LoadedModel", "fingerprint"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """limits: of its steps, on the device at hand. max_len: positions that are served. state_layers: see
    EngineConfig."""

    config: EngineConfig
    decoder: Decoder
    tokenizer: Tokenizer
    fingerprint: str
    limits: SchedulerConfig
    max_len: int
    state_layers: tuple[int, ...]

    @classmethod
    def load(cls, config: EngineConfig, platform: Platform) -> "LoadedModel":
        """Read a checkpoint onto the platform's device. Raises FileNotFoundError, ValueError or CheckpointError."""
        device = platform.device
        tokenizer = Tokenizer.from_folder(config.path)
        dtype: torch.dtype = getattr(torch, resolve_dtype(config.dtype, device.type))
        convert = converter(config.quantize, dtype, device, is_invariant=config.invariant)
        with ThreadPoolExecutor(1, "fingerprint") as hashing:  # half a second per gigabyte, beside the conversion
            hashed = hashing.submit(fingerprint, Path(config.path))
            decoder = load_decoder(config.path, dtype, device, convert, config.max_model_len)
        limits = config.scheduler.for_gpu() if platform.runs_beside else config.scheduler
        model = decoder.config
        return cls(
            config, decoder, tokenizer, hashed.result(), limits, config.model_len(model), config.pooled_layers(model)
        )

    @property
    def bytes_per_token(self) -> int:
        """Bytes of a token's keys and values in the pages, over all layers, and of its share of a page's sums."""
        model, cache = self.decoder.config, self.config.cache
        sums = PooledStates.bytes_per_block(len(self.state_layers), model.hidden_size) // cache.block_size
        return model.n_layers * token_kv_bytes(model, page_dtype(cache.kv_dtype, self.decoder.dtype)) + sums


def fingerprint(folder: Path) -> str:
    """SHA-256 over the names and contents of what decides a checkpoint's answers: configuration, tokenizer, weights."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        digest.update(path.name.encode() + b"\0" + content)
    return digest.hexdigest()
