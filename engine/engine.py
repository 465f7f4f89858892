"""The Python interface: load a checkpoint, generate. Stable; the server uses `client.py` instead."""

import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from engine.config import CacheConfig, DtypeName, EngineConfig, Quantization, SchedulerConfig
from engine.messages import Cancel, Delta, Failed, Finished, Submit, as_exception
from engine.pair import LoadedEngine, load_engine
from engine.pair_config import InstanceOptions, PairConfig
from engine.request import EngineError, FinishReason, RequestTimeline, SamplingParams, TokenLogprob
from engine.speculation.config import SpeculationConfig
from engine.tokenizer import Tokenizer
from grammars.constraint import Constraint

__all__ = ["Engine", "GenerationResult"]

_MODEL, _DRAFTER = "model", "drafter"
Prompt = str | list[int]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """One answer. token_ids: generated ones only, with the end token where the model chose it. logprobs: one per token
    where SamplingParams.logprobs asked for them. is_complete: the text satisfies the constraint (True without one).
    """

    prompt_token_ids: list[int]
    token_ids: list[int]
    text: str
    finish_reason: FinishReason
    timeline: RequestTimeline
    logprobs: list[TokenLogprob] | None = None
    is_complete: bool = True
    stop_match: str | int | None = None


@dataclass(slots=True)
class _Collector:
    """The events of one request."""

    logprobs: list[TokenLogprob] = field(default_factory=list)
    finished: Finished | None = None


class Engine:
    """One model, driven by the thread that calls `generate`.

    >>> with Engine.from_pretrained("path/to/checkpoint") as engine:
    ...     [result] = engine.generate("Hello", SamplingParams(temperature=0, max_tokens=16))
    """

    def __init__(self, loaded: LoadedEngine) -> None:
        """Use `from_pretrained`."""
        self._loaded = loaded
        self._ids = itertools.count(1)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        dtype: DtypeName = "auto",
        *,
        device: str = "auto",
        max_model_len: int | None = None,
        quantize: Quantization = "none",
        invariant: bool = False,
        cache: CacheConfig | None = None,
        scheduler: SchedulerConfig | None = None,
        torch_threads: int | None = None,
        forced_tokens: bool = True,
        prefix_cache: bool = True,
        drafter: str | Path | None = None,
        speculation: SpeculationConfig | None = None,
    ) -> "Engine":
        """Load a Hugging Face checkpoint folder. The options are those of EngineConfig, PairConfig and InstanceOptions.
        drafter: the folder of a smaller model with the same tokenizer that drafts for this one. speculation: how drafts
        are made; its drafters are set here.

        Raises FileNotFoundError, ValueError or CheckpointError, naming what is wrong with the checkpoint or an option.
        """
        config = EngineConfig(
            path=Path(path),
            dtype=dtype,
            device=device,
            max_model_len=max_model_len,
            quantize=quantize,
            invariant=invariant,
            state_layers=(),  # nothing is prepared through this interface
            cache=cache or CacheConfig(),
            scheduler=scheduler or SchedulerConfig(),
        )
        options = InstanceOptions(forced_tokens=forced_tokens, prefix_cache=prefix_cache)
        models, drafts = {_MODEL: config}, speculation or SpeculationConfig()
        if drafter is not None:
            models[_DRAFTER] = replace(config, path=Path(drafter), quantize="none", max_model_len=None)
            drafts = replace(drafts, drafters={_MODEL: _DRAFTER})
        kv_bytes = config.cache.kv_bytes if len(models) > 1 else None  # one budget for both
        pair = PairConfig(models, kv_bytes, torch_threads, options=options, speculation=drafts)
        return cls(load_engine(pair))

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer."""
        return self._loaded.tokenizers[_MODEL]

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        constraint: Constraint | Sequence[Constraint | None] | None = None,
        predictions: Sequence[Sequence[int]] | None = None,
    ) -> list[GenerationResult]:
        """Answer all prompts in one batch, in their order. A single string or token list counts as one prompt.

        params and constraint are one for all prompts, or one for each; predictions, tokens of the answers that are
        expected (see Submit), are one for each. Raises ValueError where their number differs,
        RequestRefused for a prompt that can never fit, ConstraintRefused for a constraint that cannot be enforced, and
        EngineError where a request fails; the other requests are then cancelled.
        """
        token_lists = [self.tokenizer.encode(p) if isinstance(p, str) else list(p) for p in _as_prompts(prompts)]
        n = len(token_lists)
        all_params = _one_each(params or SamplingParams(), n, "params")
        constraints = _one_each(constraint, n, "constraints")
        if predictions is not None and len(predictions) != n:
            raise ValueError(f"{len(predictions)} predictions for {n} prompts: give one for each")
        expected = [[] for _ in range(n)] if predictions is None else [list(each) for each in predictions]
        submits = [
            Submit(id=str(next(self._ids)), model=_MODEL, params=p, tokens=tokens, constraint=c, prediction=e)
            for tokens, p, c, e in zip(token_lists, all_params, constraints, expected, strict=True)
        ]
        collectors = self._run(submits)
        return [_result(submit, collectors[submit.id]) for submit in submits]

    def stats(self) -> dict[str, Any]:
        """The model's counters (see `engine.stats.Counters`)."""
        return self._loaded.core.stats()[_MODEL]

    def close(self) -> None:
        """End the compile threads. The engine is not to be used afterwards."""
        self._loaded.core.close()

    def __enter__(self) -> "Engine":
        """For `with`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _run(self, submits: Iterable[Submit]) -> dict[str, _Collector]:
        """Step until every request has ended. What a full queue refuses is offered again once another has ended."""
        core = self._loaded.core
        by_id = {submit.id: submit for submit in submits}
        todo = deque(by_id.values())
        collectors = {request_id: _Collector() for request_id in by_id}
        open_ids = set[str]()
        allowed = len(by_id)
        try:
            while todo or open_ids:
                while todo and len(open_ids) < allowed:
                    submit = todo.popleft()
                    open_ids.add(submit.id)
                    core.post(submit)
                if not core.has_work:
                    core.wait(None)
                for event in core.step():
                    if isinstance(event, Delta):
                        collectors[event.id].logprobs += event.logprobs or []
                    elif isinstance(event, Finished):
                        open_ids.remove(event.id)
                        collectors[event.id].finished = event
                    elif isinstance(event, Failed) and event.code == "overloaded" and len(open_ids) > 1:
                        open_ids.remove(event.id)
                        todo.append(by_id[event.id])
                        allowed = len(open_ids)
                    elif isinstance(event, Failed):
                        open_ids.remove(event.id)
                        raise as_exception(event)
        finally:
            if open_ids:
                for request_id in open_ids:
                    core.post(Cancel(request_id))
                core.step()
        return collectors


def _as_prompts(prompts: Prompt | Sequence[Prompt]) -> Sequence[Prompt]:
    if isinstance(prompts, str):
        return [prompts]
    if prompts and all(isinstance(token, int) for token in prompts):
        return [[token for token in prompts if isinstance(token, int)]]
    return [prompt for prompt in prompts if not isinstance(prompt, int)]


def _one_each(value: T | Sequence[T], n: int, name: str) -> list[T]:
    if not isinstance(value, list | tuple):
        return [value] * n  # type: ignore[list-item]
    if len(value) != n:
        raise ValueError(f"{len(value)} {name} for {n} prompts: give one for all, or one for each")
    return list(value)


def _result(submit: Submit, collector: _Collector) -> GenerationResult:
    finished = collector.finished
    if finished is None:
        raise EngineError(f"request {submit.id} ended without a result")
    return GenerationResult(
        prompt_token_ids=submit.tokens or [],
        token_ids=finished.token_ids,
        text=finished.text,
        finish_reason=finished.reason,
        timeline=finished.timeline,
        logprobs=collector.logprobs if submit.params.logprobs is not None else None,
        is_complete=finished.is_complete,
        stop_match=finished.stop_match,
    )
