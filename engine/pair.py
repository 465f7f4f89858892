"""Loads the small and the large model into one engine: one budget for their pages, one check that they speak one
vocabulary."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from engine.attention import token_kv_bytes
from engine.calibration import calibrate, warm_up
from engine.config import CacheConfig
from engine.constrain import Compiler, ConstraintCompiler
from engine.constraint_config import ConstraintConfig
from engine.core import EngineCore
from engine.cost_model import CostModel, WeightBytes
from engine.graphs import buckets_for, is_recordable
from engine.instance import ModelInstance
from engine.kv_budget import StepNeeds, measure_step, shared_caches, split_bytes
from engine.loaded_model import LoadedModel
from engine.messages import ModelInfo, Ready
from engine.pair_config import InstanceOptions, PairConfig
from engine.platform import Platform, resolve_device
from engine.runner import ModelRunner
from engine.speculation.config import SpeculationConfig, Verification
from engine.speculation.controller import Controller
from engine.speculation.forced import ForcedProposer
from engine.speculation.ngram import NGramProposer
from engine.speculation.prediction import PredictionProposer
from engine.speculation.proposer import Proposer, Source
from engine.speculation.speculator import Speculator
from engine.tokenizer import Tokenizer
from grammars import GrammarCompiler
from grammars.probe import ProbeLimits

__all__ = ["LoadedEngine", "VocabularyComparison", "load_engine"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VocabularyComparison:
    """Whether token ids mean the same to two models. first_difference: the lowest id whose bytes differ, None if
    none."""

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
            return cls(None)
        differing = (token for token in range(n) if one.token_bytes(token) != other.token_bytes(token))
        first = next(differing, None)
        if first is None and one.eos_token_id != other.eos_token_id:  # special tokens have no bytes to compare
            first = one.eos_token_id
        return cls(first)


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


def load_engine(
    config: PairConfig, proposers: Mapping[str, Sequence[Proposer]] | None = None, platform: Platform | None = None
) -> LoadedEngine:
    """Load every model. proposers: by model name, what drafts for it beside the sources of `config.speculation`, such
    as heads on its hidden states. platform: where to compute (None: on the
    device that the models name).

    Raises FileNotFoundError, ValueError or CheckpointError, naming what is wrong with a checkpoint or an option, or
    that a GPU has too little memory.
    """
    try:
        return _load_engine(config, proposers or {}, platform)
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"the models do not fit the GPU's memory ({error}): quantise the weights, lower token_budget, max_rows or "
            "memory_share, or see what else uses the GPU"
        ) from error


def _load_engine(
    config: PairConfig, proposers: Mapping[str, Sequence[Proposer]], platform: Platform | None
) -> LoadedEngine:
    began = time.perf_counter()
    if config.torch_threads is not None:
        torch.set_num_threads(config.torch_threads)
    options = config.options
    platform = platform or Platform.of(_device_of(config), graphs=options.graphs)
    models = {name: LoadedModel.load(engine, platform) for name, engine in config.models.items()}
    plans = {name: _DraftPlan.of(config.speculation, proposers.get(name, ())) for name in models}
    caches = _size_caches(config, models, platform, plans)
    # One thread for all models: forward passes side by side would share the cores and wait for each other.
    is_threaded = options.depth(runs_beside=platform.runs_beside) > 0 and not platform.runs_beside
    thread = ThreadPoolExecutor(1, "forward") if is_threaded else None
    instances = {
        name: _build_instance(name, model, caches[name], options, plans[name], platform, thread)
        for name, model in models.items()
    }
    tokenizers = {name: model.tokenizer for name, model in models.items()}
    for name, instance in instances.items():
        drafter = instances.get(_drafter_of(name, config.speculation, tokenizers) or "")
        speculator = _speculator(instance, drafter, tokenizers[name], config.speculation, plans[name].proposers, thread)
        instance.speculator = speculator
    factories = _compiler_factories(tokenizers, instances, config.constraints)
    compiler = ConstraintCompiler(factories, config.compile_threads, config.constraints.compile_s)
    core = EngineCore(instances, compiler)
    first, *others = tokenizers.values()
    comparisons = [VocabularyComparison.of(first, other) for other in others]
    differing = [comparison for comparison in comparisons if not comparison.is_shared]
    comparison = (differing or comparisons or [VocabularyComparison(None)])[0]
    return LoadedEngine(core, tokenizers, comparison, time.perf_counter() - began)


@dataclass(frozen=True, slots=True)
class _DraftPlan:
    """What a model's steps have to be ready for. max_draft: nodes that follow one another (0: no drafts)."""

    max_draft: int
    width: int
    verification: Verification
    proposers: tuple[Proposer, ...]

    @classmethod
    def of(cls, config: SpeculationConfig, proposers: Sequence[Proposer]) -> "_DraftPlan":
        is_on = bool(config.sources or proposers)
        return cls(config.max_draft if is_on else 0, config.width, config.verification, tuple(proposers))


def _drafter_of(name: str, config: SpeculationConfig, tokenizers: Mapping[str, Tokenizer]) -> str | None:
    """The model that drafts for `name`, if there is one that speaks the same vocabulary."""
    drafter = config.drafters.get(name)
    if drafter is None or Source.DRAFT_MODEL not in config.sources:
        return None
    comparison = VocabularyComparison.of(tokenizers[name], tokenizers[drafter])
    if comparison.is_shared:
        return drafter
    log.warning(
        "%s cannot draft for %s: their tokenizers differ from token %d on", drafter, name, comparison.first_difference
    )
    return None


def _speculator(
    instance: ModelInstance,
    drafter: ModelInstance | None,
    tokenizer: Tokenizer,
    config: SpeculationConfig,
    extra: Sequence[Proposer],
    thread: Executor | None,
) -> Speculator | None:
    """Where a model's drafts come from; None where there are none."""
    free: dict[Source, Callable[[], Proposer]] = {
        Source.FORCED: lambda: ForcedProposer(tokenizer),
        Source.PREDICTION: PredictionProposer,
        Source.NGRAM: NGramProposer,
    }
    proposers = [*extra, *(free[source]() for source in config.sources if source in free)]
    if not proposers and drafter is None:
        return None
    draft_model = None
    if drafter is not None:
        draft_model = drafter.draft_model(
            thread, vocab_size=instance.info.vocab_size, wants_distributions=config.verification == "ratio"
        )
    controller = Controller(instance.cost_model, None if draft_model is None else draft_model.predict_s)
    return Speculator(config, proposers, controller, instance.counters, instance.info.vocab_size, draft_model)


def _device_of(config: PairConfig) -> str:
    """The device of all models. Raises ValueError where they name several."""
    devices = {resolve_device(engine.device) for engine in config.models.values()}
    if len(devices) > 1:
        raise ValueError(
            f"the models name several devices, {', '.join(sorted(devices))}: give all of them the same one"
        )
    return devices.pop()


def _size_caches(
    config: PairConfig, models: Mapping[str, LoadedModel], platform: Platform, plans: Mapping[str, _DraftPlan]
) -> Mapping[str, CacheConfig]:
    """The size of every model's cache, where it is known: what was asked for, or what is left of a GPU. The pages in
    which a model drafts are its own."""
    caches = {name: model.config.cache for name, model in models.items()}
    per_token = {name: model.bytes_per_token for name, model in models.items()}
    if config.kv_bytes is not None:
        return split_bytes(caches, per_token, config.kv_bytes)
    if platform.memory is None or all(cache.kv_bytes or cache.n_blocks for cache in caches.values()):
        return caches
    needs = {name: _needs(model, plans[name].max_draft, platform) for name, model in models.items()}
    return shared_caches(caches, per_token, needs, platform.memory, config.memory_share)


def _needs(model: LoadedModel, max_draft: int, platform: Platform) -> StepNeeds:
    """max_draft: tokens of a draft, 0 where there are none."""
    peak = measure_step(model, platform, max_draft)
    shape = model.decoder.config
    has_graphs = platform.recorder is not None and is_recordable(shape)
    return StepNeeds.of(peak, buckets_for(model.limits.rows, max_draft) if has_graphs else [], shape.vocab_size)


def _build_instance(
    name: str,
    model: LoadedModel,
    cache: CacheConfig,
    options: InstanceOptions,
    drafts: _DraftPlan,
    platform: Platform,
    thread: Executor | None,
) -> ModelInstance:
    """thread: for forward passes; a GPU computes beside the step loop without one."""
    config, decoder = model.config, model.decoder
    shape = decoder.config
    runner = ModelRunner(
        shape,
        decoder,
        cache,
        model.state_layers,
        is_invariant=config.invariant,
        platform=platform,
        keeps_hidden=any(proposer.wants_hidden for proposer in drafts.proposers),
    )
    runner.record(
        model.limits.rows,
        model.max_len,
        drafts.max_draft,
        lambda done, total: log.info("%s: %d of %d graphs recorded", name, done, total),
        width=drafts.width,
    )
    *layers, head = (projection.n_bytes for projection in decoder.projections)
    weights = WeightBytes(sum(layers), head)
    cost_model = CostModel(
        shape,
        weights,
        itemsize=decoder.dtype.itemsize,
        block_size=runner.block_size,
        token_kv_bytes=token_kv_bytes(shape, runner.kv_dtype),
    )
    if platform.runs_beside:
        warm_up(runner)
    calibrate(runner, cost_model, options.calibrate_s)
    info = ModelInfo(
        name=name,
        path=str(config.path),
        n_parameters=decoder.n_parameters,
        vocab_size=shape.vocab_size,
        max_model_len=model.max_len,
        dtype=str(decoder.dtype).removeprefix("torch."),
        kv_bytes=runner.kv_bytes,
        n_blocks=runner.n_blocks,
        block_size=runner.block_size,
        fingerprint=model.fingerprint,
        kv_dtype=cache.kv_dtype,
    )
    tokenizer = model.tokenizer
    ends = {*shape.eos_token_ids, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])}
    instance = ModelInstance(
        info,
        runner,
        tokenizer,
        scheduler=model.limits,
        cost_model=cost_model,
        end_ids=frozenset(end for end in ends if 0 <= end < shape.vocab_size),
        options=options,
        verification=drafts.verification,
        thread=thread,
    )
    instance.warm_up()
    return instance


def _compiler_factories(
    tokenizers: Mapping[str, Tokenizer], instances: Mapping[str, ModelInstance], config: ConstraintConfig
) -> dict[str, "_CompilerFactory"]:
    """By model. Those with one vocabulary have the same, and so share its cache and its probe."""
    factories: dict[str, _CompilerFactory] = {}
    known: dict[tuple[str, int, tuple[int, ...]], _CompilerFactory] = {}
    for name, instance in instances.items():
        tokenizer, size, ends = tokenizers[name], instance.info.vocab_size, tuple(sorted(instance.end_ids))
        key = tokenizer.fingerprint, size, ends
        factories[name] = known.setdefault(key, _CompilerFactory(tokenizer, size, ends, config))
    return factories


@dataclass(frozen=True, slots=True)
class _CompilerFactory:
    """Builds a model's grammar compiler when the first constraint comes: it loads transformers' tokenizer class."""

    tokenizer: Tokenizer
    vocab_size: int
    end_ids: tuple[int, ...]
    config: ConstraintConfig

    def __call__(self) -> Compiler:
        return GrammarCompiler(
            self.tokenizer,
            vocab_size=self.vocab_size,
            stop_token_ids=self.end_ids,
            deadline_s=self.config.compile_s,
            max_bytes=self.config.cache_bytes,
            probe=ProbeLimits(cpu_s=self.config.cpu_s, memory_bytes=self.config.memory_bytes),
        )
