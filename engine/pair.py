"""Loads the small and the large model into one engine: one budget for their pages, one check that they speak one
vocabulary."""

import hashlib
import time
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from engine.calibration import calibrate
from engine.config import CacheConfig, EngineConfig, resolve_dtype
from engine.constrain import Compiler, ConstraintCompiler
from engine.core import EngineCore
from engine.cost_model import CostModel, WeightBytes
from engine.instance import ModelInstance
from engine.messages import ModelInfo, Ready
from engine.models.config import ModelConfig
from engine.models.loading import load_decoder
from engine.pair_config import InstanceOptions, PairConfig
from engine.quantization import converter
from engine.runner import ModelRunner
from engine.speculation.proposer import Proposer
from engine.tokenizer import Tokenizer
from grammars import GrammarCompiler

__all__ = ["LoadedEngine", "VocabularyComparison", "fingerprint", "load_engine"]


@dataclass(frozen=True, slots=True)
class VocabularyComparison:
    """Whether token ids mean the same to two models. first_difference: the lowest id whose bytes differ, None if
    none."""

    n_compared: int
    first_difference: int | None

    @property
    def is_shared(self) -> bool:
        """Whether drafts and answers of one model can be read by the other as they are."""
        return self.first_difference is None

    @classmethod
    def of(cls, one: Tokenizer, other: Tokenizer) -> "VocabularyComparison":
        """Compare token by token: equal sizes alone have let wrong pairs corrupt answers silently elsewhere."""
        n = max(one.vocab_size, other.vocab_size)
        if one.fingerprint == other.fingerprint:
            return cls(n, None)
        differing = (token for token in range(n) if one.token_bytes(token) != other.token_bytes(token))
        first = next(differing, None)
        if first is None and one.eos_token_id != other.eos_token_id:  # special tokens have no bytes to compare
            first = one.eos_token_id
        return cls(n, first)


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """A core, ready to step, and what was found while loading it."""

    core: EngineCore
    tokenizers: dict[str, Tokenizer]
    comparison: VocabularyComparison
    load_s: float

    def ready(self) -> Ready:
        """The first event of an engine's life."""
        return Ready(self.core.info(), self.load_s, self.comparison.is_shared)


def load_engine(config: PairConfig, proposers: Mapping[str, Proposer] | None = None) -> LoadedEngine:
    """Load every model. proposers: by model name, where its drafts come from.

    Raises FileNotFoundError, ValueError or CheckpointError, naming what is wrong with a checkpoint.
    """
    began = time.perf_counter()
    if config.torch_threads is not None:
        torch.set_num_threads(config.torch_threads)
    caches = _split_kv_bytes(config)
    # One thread for all models: forward passes side by side would share the cores and wait for each other.
    thread = ThreadPoolExecutor(1, "forward") if config.options.overlap_depth else None
    tokenizers = {name: Tokenizer.from_folder(engine.path) for name, engine in config.models.items()}
    instances = {
        name: _load_instance(
            name,
            replace(engine, cache=caches[name]),
            tokenizers[name],
            config.options,
            (proposers or {}).get(name),
            thread,
        )
        for name, engine in config.models.items()
    }
    factories = {name: _compiler_factory(tokenizers[name], instance) for name, instance in instances.items()}
    core = EngineCore(instances, ConstraintCompiler(factories, config.compile_threads))
    first, *others = tokenizers.values()
    comparisons = [VocabularyComparison.of(first, other) for other in others]
    differing = [comparison for comparison in comparisons if not comparison.is_shared]
    comparison = (differing or comparisons or [VocabularyComparison(first.vocab_size, None)])[0]
    return LoadedEngine(core, tokenizers, comparison, time.perf_counter() - began)


def fingerprint(folder: Path) -> str:
    """SHA-256 over the names and contents of what decides a checkpoint's answers: configuration, tokenizer, weights."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        digest.update(path.name.encode() + b"\0" + content)
    return digest.hexdigest()


def _load_instance(
    name: str,
    config: EngineConfig,
    tokenizer: Tokenizer,
    options: InstanceOptions,
    proposer: Proposer | None,
    thread: Executor | None,
) -> ModelInstance:
    """thread: for forward passes; a GPU computes beside the step loop without one."""
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype_name = resolve_dtype(config.dtype, device)
    dtype: torch.dtype = getattr(torch, dtype_name)
    convert = converter(config.quantize, dtype, torch.device(device), is_invariant=config.invariant)
    with ThreadPoolExecutor(1, "fingerprint") as hashing:  # half a second per gigabyte, beside the conversion
        hashed = hashing.submit(fingerprint, Path(config.path))
        decoder = load_decoder(config.path, dtype, device, convert, config.max_model_len)
    model = decoder.config
    runner = ModelRunner(model, decoder, config.cache, config.pooled_layers(model), is_invariant=config.invariant)
    *layers, head = (projection.n_bytes for projection in decoder.projections)
    weights = WeightBytes(sum(layers), head)
    cost_model = CostModel(model, weights, itemsize=dtype.itemsize, block_size=runner.block_size)
    calibrate(runner, cost_model, options.calibrate_s)
    info = ModelInfo(
        name=name,
        path=str(config.path),
        n_parameters=decoder.n_parameters,
        vocab_size=model.vocab_size,
        max_model_len=config.model_len(model),
        dtype=dtype_name,
        kv_bytes=runner.kv_bytes,
        n_blocks=runner.n_blocks,
        block_size=runner.block_size,
        fingerprint=hashed.result(),
    )
    ends = {*model.eos_token_ids, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])}
    return ModelInstance(
        info,
        runner,
        tokenizer,
        scheduler=config.scheduler,
        cost_model=cost_model,
        end_ids=frozenset(end for end in ends if 0 <= end < model.vocab_size),
        options=options,
        proposer=proposer,
        thread=thread if device == "cpu" else None,
    )


def _compiler_factory(tokenizer: Tokenizer, instance: ModelInstance) -> "_CompilerFactory":
    return _CompilerFactory(tokenizer, instance.info.vocab_size, tuple(sorted(instance.end_ids)))


@dataclass(frozen=True, slots=True)
class _CompilerFactory:
    """Builds a model's grammar compiler when the first constraint comes: it loads transformers' tokenizer class."""

    tokenizer: Tokenizer
    vocab_size: int
    end_ids: tuple[int, ...]

    def __call__(self) -> Compiler:
        return GrammarCompiler(self.tokenizer, vocab_size=self.vocab_size, stop_token_ids=self.end_ids)


def _split_kv_bytes(config: PairConfig) -> Mapping[str, CacheConfig]:
    """Each model's share of the budget is that of its bytes per token, so that all hold equally many tokens."""
    caches = {name: engine.cache for name, engine in config.models.items()}
    if config.kv_bytes is None:
        return caches
    per_token = {}
    for name, engine in config.models.items():
        model = ModelConfig.from_folder(engine.path)
        itemsize: int = getattr(torch, resolve_dtype(engine.dtype)).itemsize
        per_token[name] = model.kv_bytes_per_token(itemsize)
    total = sum(per_token.values())
    return {
        name: replace(cache, n_blocks=None, kv_bytes=config.kv_bytes * per_token[name] // total)
        for name, cache in caches.items()
    }
