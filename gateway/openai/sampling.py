"""The sampling fields of a request as the engine's SamplingParams."""

from typing import TypeVar

from engine.request import SamplingParams
from gateway.openai.errors import ApiError, bad_request
from gateway.openai.schemas import ChatRequest

# OpenAI's ranges; what it does not define (top_k, min_p, ...) is checked by SamplingParams itself.
_RANGES = {
    "temperature": (0.0, 2.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "repetition_penalty": (0.01, 10.0),
}
_SEED_LIMIT = 2**63
_BIAS_LIMIT = 100
T = TypeVar("T")


def sampling_params(request: ChatRequest, *, vocab_size: int, room: int) -> SamplingParams:
    """The parameters of the request's first choice.

    vocab_size: of the models, which share a tokenizer; room: tokens that the window leaves after the prompt (the
    default of max_tokens). Raises ApiError 400 naming the field.
    """
    _check(request, vocab_size)
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    top_k = request.top_k or 0
    try:
        return SamplingParams(
            temperature=_or(request.temperature, 1.0),
            top_k=0 if top_k == -1 else top_k,  # vLLM's clients write -1 for off
            top_p=_or(request.top_p, 1.0),
            min_p=request.min_p or 0.0,
            repetition_penalty=_or(request.repetition_penalty, 1.0),
            presence_penalty=request.presence_penalty or 0.0,
            frequency_penalty=request.frequency_penalty or 0.0,
            logit_bias=request.logit_bias or {},
            seed=request.seed,
            stop=tuple(stop),
            stop_token_ids=tuple(request.stop_token_ids or ()),
            include_stop_str=bool(request.include_stop_str_in_output),
            min_tokens=request.min_tokens or 0,
            max_tokens=_or(max_tokens(request), room),
            ignore_eos=bool(request.ignore_eos),
            logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        )
    except ValueError as exc:
        raise bad_request(f"{exc}.", str(exc).partition(" ")[0]) from exc


def max_tokens(request: ChatRequest) -> int | None:
    """The most tokens the client wants; `max_completion_tokens` is the newer name of `max_tokens`.

    Raises ApiError 400 when both are given and differ, or when it is below 1.
    """
    old, new = request.max_tokens, request.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise bad_request("'max_tokens' and 'max_completion_tokens' differ; send one of them.", "max_tokens")
    name, value = ("max_tokens", old) if new is None else ("max_completion_tokens", new)
    if value is not None and value < 1:
        raise bad_request(f"'{name}' is {value}; use 1 or more.", name)
    return value


def _check(request: ChatRequest, vocab_size: int) -> None:
    for name, (low, high) in _RANGES.items():
        value = getattr(request, name)
        if value is not None and not low <= value <= high:
            raise bad_request(f"'{name}' is {value}; use {low:g} to {high:g}.", name)
    if request.seed is not None and not -_SEED_LIMIT <= request.seed < _SEED_LIMIT:
        raise bad_request("'seed' needs more than 64 bits; use a smaller integer.", "seed")
    for name, ids in (("logit_bias", list(request.logit_bias or ())), ("stop_token_ids", request.stop_token_ids or [])):
        unknown = [token for token in ids if not 0 <= token < vocab_size]
        if unknown:
            raise _unknown_token(name, unknown[0], vocab_size)
    for token, bias in (request.logit_bias or {}).items():
        if not -_BIAS_LIMIT <= bias <= _BIAS_LIMIT:
            raise bad_request(f"'logit_bias' of token {token} is {bias}; use -100 to 100.", "logit_bias")


def _unknown_token(name: str, token: int, vocab_size: int) -> ApiError:
    return bad_request(f"'{name}' names token {token}; the vocabulary has ids 0 to {vocab_size - 1}.", name)


def _or(value: T | None, default: T) -> T:
    """The value, or the default where the client sent none (0 is a value)."""
    return default if value is None else value
