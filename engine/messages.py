"""What travels between an EngineClient and the engine's process: tagged msgspec structs, msgpack-encoded, never pickle.

Every command carries an `id` chosen by the client; every event names the `id` it answers. A `Submit` is answered by
exactly one terminal event (`Finished` or `Failed`) after any number of `Delta`s; `Compile`, `Prepare`, `GetStats` by
exactly one event.
"""

from typing import Any

import msgspec

from engine.request import (
    CacheMiss,
    EngineError,
    FinishReason,
    RequestRefused,
    RequestTimeline,
    SamplingParams,
    TokenLogprob,
)
from grammars.constraint import Constraint
from grammars.errors import CompileTimeout, ConstraintRefused


class Compile(msgspec.Struct, frozen=True, tag="compile"):
    """Compile a constraint for a model's vocabulary, on a worker thread. Answered by Compiled or Failed."""

    id: str
    model: str
    constraint: Constraint


class Prepare(msgspec.Struct, frozen=True, tag="prepare"):
    """Prefill `tokens` on `model` and hold the request. Answered by Prepared or Failed.

    turn_start: index of the token with which the last turn of the user begins, 0 where that is not known. The pooled
    state's mean is taken from there on, see Prepared. params: of an answer without a constraint that probably
    follows: its first token is drawn at once, and a Submit that `continues` goes on after it.
    """

    id: str
    model: str
    tokens: list[int]
    salt: str = ""
    turn_start: int = 0
    params: SamplingParams | None = None


class Submit(msgspec.Struct, frozen=True, tag="submit", kw_only=True):
    """Generate. Exactly one of `tokens` and `handle` is set; `handle` continues a prepared request on its model.

    priority: higher runs first. deadline_s: seconds from arrival, None is none. salt: scopes the prefix cache (tenant).
    prediction: tokens of the answer that somebody expects (a client, or a smaller model whose answer was not good
    enough); what of it the model would have said anyway is verified instead of generated. It never changes the answer.
    continues: go on after the first token that came with Prepared, which is not told again. params must be those of the
    Prepare, but for `logprobs`, and there is no constraint.
    """

    id: str
    model: str
    params: SamplingParams
    tokens: list[int] | None = None
    handle: str | None = None
    constraint: Constraint | None = None
    priority: int = 0
    deadline_s: float | None = None
    salt: str = ""
    prediction: list[int] = []
    continues: bool = False


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Stop a submitted request; its terminal event says `cancelled`. Unknown ids are ignored."""

    id: str


class Release(msgspec.Struct, frozen=True, tag="release"):
    """Free a prepared request that will not be continued. Unknown handles are ignored."""

    handle: str


class GetStats(msgspec.Struct, frozen=True, tag="stats"):
    """Ask for counters of every model. Answered by Stats."""

    id: str


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """End the process once nothing is running, at the latest after `grace_s`."""

    grace_s: float = 10.0


Command = Compile | Prepare | Submit | Cancel | Release | GetStats | Shutdown


class ModelInfo(msgspec.Struct, frozen=True):
    """What a client must know of a loaded model. kv_dtype: see CacheConfig."""

    name: str
    path: str
    n_parameters: int
    vocab_size: int
    max_model_len: int
    dtype: str
    kv_bytes: int
    n_blocks: int
    block_size: int
    fingerprint: str
    kv_dtype: str = "auto"


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The process has loaded its models; sent once, first. shares_vocabulary: every token id means the same in all of
    them.
    """

    models: list[ModelInfo]
    load_s: float
    shares_vocabulary: bool = True


class Compiled(msgspec.Struct, frozen=True, tag="compiled"):
    """A constraint compiled: which backend, how long it took, whether the cache had it; warnings name annotations not
    asserted.
    """

    id: str
    backend: str
    cached: bool
    seconds: float
    warnings: list[str] = []


class Delta(msgspec.Struct, frozen=True, tag="delta"):
    """New committed tokens of a request; `text` is what they add to the stream (may be empty while UTF-8 or a stop
    string is open).
    """

    id: str
    text: str
    token_ids: list[int]
    logprobs: list[TokenLogprob] | None = None


class Prepared(msgspec.Struct, frozen=True, tag="prepared"):
    """A held prefill. state: float32 little-endian bytes of shape [n_layers, 2, hidden] of the chosen layers: the last
    token, and the mean from the beginning of the page in which the last turn begins (PooledStates.pooled_from, which
    depends on the prompt alone); entropy (nats) and margin (logit difference of the best two) of the first next token.
    first: of the answer that Prepare has params for, its first token.
    """

    id: str
    handle: str
    state: bytes
    state_shape: tuple[int, ...]
    entropy: float
    margin: float
    prompt_tokens: int
    cached_tokens: int
    computed_tokens: int
    queue_s: float
    prefill_s: float
    cache_miss: CacheMiss | None = None
    first: Delta | None = None


class Finished(msgspec.Struct, frozen=True, tag="finished", kw_only=True):
    """Terminal: the request ended in order. `text` is the whole answer, equal to the concatenated deltas.

    is_complete: the constraint is satisfied by `text` (True without one). stop_match: the stop string or token id that
    ended it.
    """

    id: str
    reason: FinishReason
    text: str
    token_ids: list[int]
    timeline: RequestTimeline
    is_complete: bool = True
    stop_match: str | int | None = None


class Failed(msgspec.Struct, frozen=True, tag="failed", kw_only=True):
    """Terminal: a refusal or a fault. For a refused constraint `keyword` and `pointer` are set. is_refusal: the engine
    turned the request away at admission (`RequestRefused`).
    """

    id: str
    code: str
    message: str
    keyword: str | None = None
    pointer: str | None = None
    retry_after_s: float | None = None
    is_refusal: bool = False


class Stats(msgspec.Struct, frozen=True, tag="stats_reply"):
    """Counters by model name (see `EngineCore.stats`): plain numbers, cumulative since start unless named `*_now`."""

    id: str
    models: dict[str, dict[str, Any]]


Event = Ready | Compiled | Prepared | Delta | Finished | Failed | Stats


def failed(id: str, error: Exception) -> Failed:
    """The event that tells a client of `error`; `as_exception` is its inverse on the other side."""
    match error:
        case ConstraintRefused():
            message, keyword, pointer = error.reason, error.keyword, error.pointer
            return Failed(id=id, code="constraint_refused", message=message, keyword=keyword, pointer=pointer)
        case CompileTimeout():
            return Failed(id=id, code="compile_timeout", message=str(error))
        case RequestRefused():
            return Failed(
                id=id, code=error.code, message=str(error), retry_after_s=error.retry_after_s, is_refusal=True
            )
        case EngineError():
            return Failed(id=id, code=error.code, message=str(error))
    raise error


def as_exception(event: Failed) -> EngineError | ConstraintRefused | CompileTimeout:
    """What a caller of the engine is to be raised for a Failed event."""
    if event.code == "constraint_refused":
        return ConstraintRefused(event.keyword or "schema", event.pointer or "", event.message)
    if event.code == "compile_timeout":
        return CompileTimeout(event.message)
    if event.is_refusal:
        return RequestRefused(event.code, event.message, event.retry_after_s)
    error = EngineError(event.message)
    error.code = event.code
    return error
