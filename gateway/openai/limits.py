"""What one request may ask for, checked before anything is computed for it."""

from gateway.openai.errors import bad_request, unsupported
from gateway.openai.schemas import ChatRequest
from gateway.settings import LimitSettings

METADATA_KEY_CHARS = 64
METADATA_VALUE_CHARS = 512
SALT_CHARS = 512


def check_limits(request: ChatRequest, limits: LimitSettings) -> None:
    """Raise ApiError 400 that names the field, its value and the limit."""
    n_messages, n_tools = len(request.messages), len(request.tools or ())
    stops = 0 if request.stop is None else 1 if isinstance(request.stop, str) else len(request.stop)
    counts = [
        ("messages", n_messages, 1, limits.messages),
        ("tools", n_tools, 0, limits.tools),
        ("n", 1 if request.n is None else request.n, 1, limits.choices),
        ("stop", stops, 0, limits.stop_strings),
        ("logit_bias", len(request.logit_bias or ()), 0, limits.logit_bias),
        ("top_logprobs", request.top_logprobs or 0, 0, limits.top_logprobs),
        ("metadata", len(request.metadata or ()), 0, limits.metadata_pairs),
        ("priority", request.priority or 0, -100, 100),
    ]
    for name, value, low, high in counts:
        if not low <= value <= high:
            raise bad_request(f"'{name}' has {value}; use {low} to {high}.", name)
    for key, text in (request.metadata or {}).items():
        if len(key) > METADATA_KEY_CHARS or len(text) > METADATA_VALUE_CHARS:
            raise bad_request(
                f"'metadata' takes keys up to {METADATA_KEY_CHARS} characters and values up to {METADATA_VALUE_CHARS}; "
                f"shorten '{key[:METADATA_KEY_CHARS]}'.",
                "metadata",
            )
    for name, salt in (("cache_salt", request.cache_salt), ("prompt_cache_key", request.prompt_cache_key)):
        if salt is not None and len(salt) > SALT_CHARS:
            raise bad_request(f"'{name}' has {len(salt)} characters; use {SALT_CHARS} at most.", name)
    if request.top_logprobs and not request.logprobs:
        raise bad_request("'top_logprobs' needs 'logprobs': true.", "top_logprobs")
    if request.stream_options is not None and not request.stream:
        raise bad_request("'stream_options' needs 'stream': true.", "stream_options")
    if request.stream_options is not None and request.stream_options.continuous_usage_stats:
        raise unsupported("stream_options.continuous_usage_stats", "use 'include_usage': usage comes once, at the end.")
