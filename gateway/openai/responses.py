"""The bodies that leave: a chat completion, and the chunks of a streamed one: OpenAI's shape plus `router`."""

import msgspec
from msgspec import UNSET, UnsetType


class FunctionOut(msgspec.Struct):
    """The called function; `arguments` is a JSON text."""

    name: str
    arguments: str


class ToolCallOut(msgspec.Struct):
    """One call of the answer."""

    id: str
    function: FunctionOut
    type: str = "function"


class MessageOut(msgspec.Struct, kw_only=True):
    """The answer. content is null when it only calls tools; refusal is always null: models say no in words.

    reasoning: what was thought before it, vLLM's name; absent unless the request asked for it.
    """

    role: str = "assistant"
    content: str | None
    refusal: str | None = None
    reasoning: str | UnsetType = UNSET
    tool_calls: list[ToolCallOut] | UnsetType = UNSET


class TopLogprobOut(msgspec.Struct):
    """A rival of a generated token; `bytes` are its UTF-8 bytes, or a part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobOut(msgspec.Struct):
    """A generated token, its logprob after the constraint's mask and before temperature, and its best rivals."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprobOut]


class LogprobsOut(msgspec.Struct):
    """`choices[].logprobs`."""

    content: list[TokenLogprobOut]
    refusal: None = None


class ChoiceOut(msgspec.Struct, kw_only=True):
    """One of the `n` answers."""

    index: int
    message: MessageOut
    logprobs: LogprobsOut | None = None
    finish_reason: str


class PromptDetails(msgspec.Struct):
    """Where the prompt's tokens came from. cache_miss, an addition to OpenAI's shape, says why no more were cached: a
    value of `engine.request.CacheMiss`.
    """

    cached_tokens: int = 0
    cache_write_tokens: int = 0
    audio_tokens: int = 0
    cache_miss: str | None = None


class ProposerOut(msgspec.Struct):
    """Tokens that one source drafted: verified by the model, taken by it, and verified in vain."""

    drafted: int
    accepted: int
    wasted: int


class SpeculationOut(msgspec.Struct):
    """What drafts did for the answers. drafted, accepted and wasted are the sums over by_proposer; forced, which is in
    none of them: tokens that were never asked of the model, since the grammar allowed no other.
    """

    drafted: int
    accepted: int
    wasted: int
    forced: int
    by_proposer: dict[str, ProposerOut]


class DiscardedOut(msgspec.Struct):
    """An answer that was generated and not sent, since another model answered again: in none of the usage's counts,
    but in the cost. prompt_tokens: cached_tokens among them.
    """

    model: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class CompletionDetails(msgspec.Struct):
    """What the generated tokens were. accepted_prediction_tokens were verified from the request's prediction;
    rejected_prediction_tokens were tried in vain, and are not among the generated tokens. speculation, an addition to
    OpenAI's shape, is absent where nothing was drafted or forced; discarded, another, where nothing was.
    """

    reasoning_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0
    audio_tokens: int = 0
    speculation: SpeculationOut | UnsetType = UNSET
    discarded: DiscardedOut | UnsetType = UNSET


class Usage(msgspec.Struct):
    """Token counts: the prompt once, the answers of all choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class ExpectedOut(msgspec.Struct, kw_only=True):
    """What one model was expected to take for the request, null is not known. warm_tokens: of the prompt, in its cache
    by all that was known. cost_usd: with the router's prefill, where the large model had to wait for it.
    """

    tokens: float | None = None
    cost_usd: float | None = None
    ttft_ms: float | None = None
    warm_tokens: int = 0


class PromiseOut(msgspec.Struct, kw_only=True):
    """What the threshold promises over many requests like those of the training data, each with 95 % confidence.

    quality_at_least: of the large model's; gap_at_least: of its lead over the small one; cost_at_most: of what the
    large model alone would cost. large_share: of the requests that the large model is expected to answer, at first or
    again.
    """

    quality_at_least: float | None = None
    gap_at_least: float | None = None
    cost_at_most: float | None = None
    large_share: float | None = None


class SessionOut(msgspec.Struct, kw_only=True):
    """The conversation: its id in decision rows, and who answered its last turn, null in the first."""

    id: str | None
    last_model: str | None
    in_tool_loop: bool


class ExplainOut(msgspec.Struct, kw_only=True):
    """The evidence of a decision. features: the counts and shares that the router read, by name; first_token: entropy
    and margin of the small model's first token, where its prefill was read. ineligible: by model why it was out.
    exploration: probability with which the other model is taken, to learn from it. pressure: 0 (no overload) to 1.
    drift: why nothing is promised at present.
    """

    eligible: list[str]
    ineligible: dict[str, str]
    features: dict[str, float] = {}
    first_token: dict[str, float] | None = None
    gain: float | None = None
    promise: PromiseOut | None = None
    expected: dict[str, ExpectedOut] = {}
    session: SessionOut
    load: dict[str, float] = {}
    pressure: float = 0.0
    exploration: float = 0.0
    drift: list[str] = []
    artefact: str | None = None


class RouterOut(msgspec.Struct, kw_only=True):
    """Which model answered, why, and what it cost. Times are milliseconds, costs USD; null is not known.

    choice: the model that was chosen; model: the one that answered, another where the request escalated. score:
    expected gain of the large model; rank, the gain by this request's costs, is compared with threshold: from it on the
    large model answers. calibrated: the promise of the target covers this request. early: decided before the small
    model's prefill. pinned: the conversation's last model decided. exceeds: limits of the request that no model keeps
    (over_budget, too_slow). propensity: probability of this choice under the
    policy. cost_if_large_usd: what the large model alone would have cost, an estimate where the small one answered.
    """

    decision_id: str
    requested: str
    target: str | None = None
    choice: str
    model: str
    reason: str
    policy: str
    score: float | None = None
    rank: float | None = None
    threshold: float | None = None
    p_small: float | None = None
    p_large: float | None = None
    ood: float | None = None
    calibrated: bool = True
    early: bool = False
    pinned: bool = False
    exceeds: list[str] = []
    route: str = ""
    propensity: float = 1.0
    explored: bool = False
    escalated: bool = False
    escalate_reason: str | None = None
    p_right: float | None = None
    overhead_ms: float = 0.0
    ttft_ms: float | None = None
    expected_ttft_ms: float | None = None
    cost_usd: float | None = None
    expected_cost_usd: float | None = None
    cost_if_large_usd: float | None = None
    price_version: str | None = None
    explain: ExplainOut | UnsetType = UNSET


class ChatCompletion(msgspec.Struct, kw_only=True):
    """The body of a response that was not streamed."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: list[ChoiceOut]
    usage: Usage
    system_fingerprint: str
    service_tier: str = "default"
    router: RouterOut


class FunctionDelta(msgspec.Struct):
    """A piece of a call: the name in its first delta only."""

    arguments: str
    name: str | UnsetType = UNSET


class ToolCallDelta(msgspec.Struct):
    """A piece of the call at `index`: id and type in its first delta only."""

    index: int
    function: FunctionDelta
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET


class Delta(msgspec.Struct, kw_only=True):
    """What a chunk adds to a message."""

    role: str | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    refusal: UnsetType | None = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


class ChunkChoice(msgspec.Struct, kw_only=True):
    """One choice in a chunk."""

    index: int
    delta: Delta
    logprobs: LogprobsOut | None = None
    finish_reason: str | None = None


class ChatChunk(msgspec.Struct, kw_only=True):
    """One event of a stream. usage is absent unless asked for, then null in all chunks but the last."""

    id: str
    object: str = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str
    service_tier: str = "default"
    usage: Usage | UnsetType | None = UNSET
    router: RouterOut | UnsetType = UNSET
