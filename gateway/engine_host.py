"""From settings to a running engine with both models, warmed up so that the first request is like the others."""

import asyncio

from engine.child import Patience
from engine.client import EngineClient
from engine.config import CacheConfig, EngineConfig, SchedulerConfig
from engine.constraint_config import ConstraintConfig
from engine.pair_config import InstanceOptions, PairConfig
from engine.speculation.config import SpeculationConfig
from engine.speculation.proposer import Source
from gateway.settings import Settings, SpeculationSettings
from grammars.constraint import JsonObject

SMALL, LARGE = "small", "large"


def pair_config(settings: Settings) -> PairConfig:
    """How the engine is to run."""
    engine = settings.engine
    scheduler = SchedulerConfig(
        token_budget=engine.token_budget,
        max_rows=engine.max_running,
        max_waiting_requests=max(1, engine.max_waiting),
    )
    models = {
        name: EngineConfig(
            path=folder,
            dtype=engine.dtype,
            quantize=engine.quantize,
            invariant=engine.invariant,
            state_layers=None if name == SMALL else (),  # the router only reads the small model
            cache=CacheConfig(block_size=engine.block_size, kv_dtype=engine.kv_dtype),
            scheduler=scheduler,
        )
        for name, folder in ((SMALL, settings.small_path), (LARGE, settings.large_path))
    }
    return PairConfig(
        models,
        kv_bytes=engine.kv_bytes,
        torch_threads=engine.threads or None,
        memory_share=engine.memory_share,
        constraints=ConstraintConfig(
            compile_s=settings.limits.compile_s,
            cpu_s=settings.limits.compile_cpu_s,
            memory_bytes=settings.limits.compile_memory_bytes,
            cache_bytes=settings.limits.compile_cache_bytes,
        ),
        options=InstanceOptions(slow_mask_s=settings.limits.mask_ms / 1000),
        speculation=speculation_config(settings.speculation),
        log_level=settings.log_level.upper(),
    )


def speculation_config(settings: SpeculationSettings) -> SpeculationConfig:
    """How the engine is to draft. The small model drafts for the large one, where it may; nothing drafts for it."""
    sources = () if settings.mode == "off" else tuple(Source(name) for name in settings.sources)
    return SpeculationConfig(
        sources=sources,
        drafters={LARGE: SMALL} if Source.DRAFT_MODEL in sources else {},
        max_draft=settings.max_draft,
        width=settings.width,
        verification=settings.verification,
    )


async def start_engine(settings: Settings) -> EngineClient:
    """Load the models. Raises LoadFailed or EngineDied; nothing is left running then."""
    config = pair_config(settings)
    if settings.engine.mode == "process":
        patience = Patience(load_s=settings.engine.load_s, silence_s=settings.engine.silence_s)
        client = EngineClient.in_child(config, patience=patience)
    else:
        client = EngineClient.in_process(config)
    try:
        await client.start()
        # A model's compiler loads its libraries with its first constraint: no client's time limit is to pay for that.
        await asyncio.gather(*(client.compile(name, JsonObject()) for name in config.models))
    except BaseException:
        await client.close(0.0)
        raise
    return client
