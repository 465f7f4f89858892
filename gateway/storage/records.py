"""What is written per request, as plain data: the gateway fills these, `write_behind` carries them to the database.

They also lie in the spool as tagged msgpack maps, so a field may be added (with a default) but never change its
meaning.
"""

import uuid
from datetime import UTC, datetime

import msgspec

from engine.request import RequestTimeline
from gateway.storage.identifiers import new_id


def _now() -> datetime:
    return datetime.now(UTC)


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """A request's timeline as durations in seconds; None where it never got so far.

    queue_s: arrival to admission; prefill_s: admission to first token; decode_s: first token to end; ttft_s: arrival to
    first token; itl_s: mean time between tokens.
    """

    queue_s: float | None = None
    prefill_s: float | None = None
    decode_s: float | None = None
    ttft_s: float | None = None
    itl_s: float | None = None

    @classmethod
    def of(cls, timeline: RequestTimeline) -> "Timing":
        """The durations of an engine timeline, in which 0.0 stands for not yet."""
        end, first = timeline.finished_s, timeline.first_token_s
        tokens = len(timeline.token_times_s)
        return cls(
            queue_s=_between(timeline.arrived_s, timeline.admitted_s),
            prefill_s=_between(timeline.admitted_s, first),
            decode_s=_between(first, end),
            ttft_s=_between(timeline.arrived_s, first),
            itl_s=(timeline.token_times_s[-1] - timeline.token_times_s[0]) / (tokens - 1) if tokens > 1 else None,
        )


def _between(start_s: float, end_s: float) -> float | None:
    return end_s - start_s if start_s and end_s else None


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True, tag="request"):
    """One HTTP request for generation: who asked, what ran, how long it took, what it cost. Holds no prompt and no
    answer.

    Token counts are sums over the request's choices. cache_miss: the engine's reason why no more of the prompt was
    cached. status: HTTP status of the answer (a stream that broke keeps 200 and has an error_code). valid: the finished
    answer satisfied its constraint; None without a constraint or when unchecked.
    """

    id: uuid.UUID = msgspec.field(default_factory=new_id)
    created_at: datetime = msgspec.field(default_factory=_now)
    key_id: uuid.UUID | None = None
    decision_id: uuid.UUID | None = None
    trace_id: str | None = None
    endpoint: str
    model_requested: str
    model_served: str | None = None
    stream: bool = False
    choices: int = 1
    constraint_kind: str | None = None
    backend: str | None = None
    status: int
    error_code: str | None = None
    finish_reason: str | None = None
    valid: bool | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    cache_miss: str | None = None
    completion_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    forced_tokens: int = 0
    preemptions: int = 0
    compile_s: float | None = None
    route_s: float | None = None
    timing: Timing = Timing()
    duration_s: float = 0.0
    cost_usd: float = 0.0
    cost_route_usd: float = 0.0
    cost_discarded_usd: float = 0.0
    cost_draft_usd: float = 0.0
    cost_if_large_usd: float = 0.0
    price_version: str = ""
    user: str | None = None
    metadata: dict[str, str] = {}


class DecisionRecord(msgspec.Struct, frozen=True, kw_only=True, tag="decision"):
    """One routing decision with its evidence and outcome, written once the outcome is known.

    propensity: probability with which the policy took `action`; keep_prob: probability with which the row was kept.
    Both are 1.0 for deterministic choices and never left out, or no later estimate could be unbiased. score, threshold:
    what was compared; the score is the rank, the expected gain by this request's costs (`rank` in a response, whose
    `score` is the gain alone). p_small, p_large: calibrated probabilities that the model's answer is good. reason:
    stable snake_case name. expected_*: predictions by model name. features: as `router_model.features.Features.pack`
    makes them, or None. calibrated: the promise of the target held for this request. early: decided before any prefill.
    wanted: what the request asked of the router, by name (quality, cost, max_cost_usd, max_ttft_s). p_right: how likely
    the small model's answer was right, once it was there. logprob_mean, logprob_min: over that answer's tokens.
    valid: as in the request. feedback, grade: known when the row is written; what comes later is an `OutcomeRecord`.
    """

    id: uuid.UUID = msgspec.field(default_factory=new_id)
    created_at: datetime = msgspec.field(default_factory=_now)
    request_id: uuid.UUID
    key_id: uuid.UUID | None = None
    schema_version: int = 1
    route: str = ""
    session_hash: str | None = None
    turn: int | None = None

    policy: str
    artefact_hash: str | None = None
    features_version: str | None = None
    features: bytes | None = None
    eligible: list[str]
    ineligible_reasons: dict[str, str] = {}
    p_small: float | None = None
    p_large: float | None = None
    score: float | None = None
    ood_score: float | None = None
    expected_tokens: dict[str, float] = {}
    expected_cost_usd: dict[str, float] = {}
    expected_ttft_s: dict[str, float] = {}
    load: dict[str, float] = {}
    prefix_hit_tokens: dict[str, int] = {}

    threshold: float | None = None
    target: str | None = None
    action: str
    reason: str
    propensity: float = 1.0
    keep_prob: float = 1.0
    explored: bool = False
    pinned: bool = False
    shadow: bool = False
    calibrated: bool = True
    early: bool = False
    wanted: dict[str, float] = {}
    overhead_s: float | None = None

    model_served: str | None = None
    escalated: bool = False
    escalate_reason: str | None = None
    p_right: float | None = None
    ttft_s: float | None = None
    itl_s: float | None = None
    duration_s: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    draft_accept_rate: float | None = None
    cost_usd: float = 0.0
    cost_if_large_usd: float = 0.0
    valid: bool | None = None
    logprob_mean: float | None = None
    logprob_min: float | None = None
    finish_reason: str | None = None

    feedback: int | None = None
    grade: float | None = None
    grade_source: str | None = None
    grade_weight: float | None = None


class OutcomeRecord(msgspec.Struct, frozen=True, kw_only=True, tag="outcome"):
    """What became known of one model's answer to the request of a decision: from the client, a grader or a shadow run.

    Later rows of one decision, model and source replace earlier ones. key_id: whose decision it is. model: alias of the
    model that answered. score: 0 to 1; feedback: -1, 0 or 1; at least one of them is set, unless a shadow answer could
    not be graded. source: who says so. weight: what the label counts beside others, above 0 to 1. keep_prob:
    probability with which chance picked the answer to be graded; 1 for what a client says of its own accord.

    shadow: the answer, or its grade, was made in a shadow run and no client saw it; then keep_prob is the probability
    with which the request was drawn for one, tokens the answer's length, cost_usd what it cost (in no client's bill),
    and logprob_mean and logprob_min are over its tokens. valid: the answer satisfied its constraint. Holds no text.
    """

    id: uuid.UUID = msgspec.field(default_factory=new_id)
    created_at: datetime = msgspec.field(default_factory=_now)
    decision_id: uuid.UUID
    key_id: uuid.UUID | None = None
    model: str
    score: float | None = None
    feedback: int | None = None
    source: str
    weight: float = 1.0
    shadow: bool = False
    keep_prob: float = 1.0
    tokens: int | None = None
    cost_usd: float = 0.0
    logprob_mean: float | None = None
    logprob_min: float | None = None
    valid: bool | None = None


Record = RequestRecord | DecisionRecord | OutcomeRecord


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A stored API key. hash: hex digest of the secret; prefix: its first characters, for people to tell keys apart.

    router_admin: it may change how requests are routed and read what was measured over all keys.
    """

    id: uuid.UUID = msgspec.field(default_factory=new_id)
    name: str
    prefix: str
    hash: str
    router_admin: bool = False
    created_at: datetime = msgspec.field(default_factory=_now)
    revoked_at: datetime | None = None
