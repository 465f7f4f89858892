"""What is kept of a request, and what the client is told of its routing: both from the same decision and outcome."""

from collections.abc import Mapping

import msgspec
from msgspec import UNSET

from engine.request import DraftCounts
from engine.speculation.proposer import Source
from gateway.openai.job import Job
from gateway.openai.responses import (
    CompletionDetails,
    DiscardedOut,
    PromptDetails,
    ProposerOut,
    RouterOut,
    SpeculationOut,
    Usage,
)
from gateway.prices import PriceTable, RequestCost
from gateway.routing.decision import Decision
from gateway.routing.outcome import Outcome
from gateway.storage.records import DecisionRecord, RequestRecord, Timing


def usage(outcome: Outcome) -> Usage:
    """Token counts in OpenAI's shape, details always included."""
    prompt, completion = outcome.prompt_tokens, outcome.completion_tokens
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptDetails(
            cached_tokens=outcome.cached_tokens,
            cache_write_tokens=prompt - outcome.cached_tokens,
            cache_miss=outcome.cache_miss,
        ),
        completion_tokens_details=_completion_details(outcome),
    )


def _completion_details(outcome: Outcome) -> CompletionDetails:
    drafts, forced, discarded = outcome.drafts, outcome.forced_tokens, outcome.discarded
    prediction = drafts.get(Source.PREDICTION, DraftCounts())
    speculation = SpeculationOut(
        drafted=outcome.drafted_tokens,
        accepted=outcome.accepted_tokens,
        wasted=outcome.drafted_tokens - outcome.accepted_tokens,
        forced=forced,
        by_proposer={name: ProposerOut(n.drafted, n.accepted, n.wasted) for name, n in drafts.items()},
    )
    return CompletionDetails(
        accepted_prediction_tokens=prediction.accepted,
        rejected_prediction_tokens=prediction.wasted,
        speculation=speculation if outcome.drafted_tokens or forced else UNSET,
        discarded=UNSET if discarded is None else _discarded(discarded),
    )


def _discarded(other: Outcome) -> DiscardedOut:
    return DiscardedOut(
        model=other.model,
        prompt_tokens=other.prompt_tokens,
        cached_tokens=other.cached_tokens,
        completion_tokens=other.completion_tokens,
    )


def router_of(
    job: Job, decision: Decision, outcome: Outcome | None = None, cost: RequestCost | None = None
) -> RouterOut:
    """The `router` object; cost and first-token time are null until they are known."""
    ttft_s = None if outcome is None else _ttft_s(job, outcome)
    expected_ttft_s = decision.expected_ttft_s.get(decision.model)
    return RouterOut(
        decision_id=str(decision.id),
        requested=job.wanted.name,
        target=decision.target,
        choice=decision.model,
        model=decision.model if outcome is None else outcome.model,
        reason=decision.reason,
        policy=decision.policy,
        score=decision.score,
        rank=decision.rank,
        threshold=decision.threshold,
        p_small=decision.p_small,
        p_large=decision.p_large,
        ood=decision.ood,
        calibrated=decision.is_calibrated,
        early=decision.is_early,
        pinned=decision.pinned,
        exceeds=list(decision.exceeds),
        route=decision.route,
        propensity=decision.propensity,
        explored=decision.explored,
        escalated=outcome is not None and outcome.escalated,
        escalate_reason=None if outcome is None else outcome.escalate_reason,
        p_right=None if outcome is None else outcome.p_right,
        overhead_ms=decision.overhead_s * 1000,
        ttft_ms=None if ttft_s is None else ttft_s * 1000,
        expected_ttft_ms=None if expected_ttft_s is None else expected_ttft_s * 1000,
        cost_usd=None if cost is None else cost.total_usd,
        expected_cost_usd=decision.expected_cost_usd.get(decision.model),
        cost_if_large_usd=None if cost is None else cost.cost_if_large_usd,
        price_version=None if cost is None else cost.version,
    )


RESPONSE_HEADERS: Mapping[str, str] = {
    "x-router-decision-id": "Id of the decision, for outcomes that are told later.",
    "x-router-model": "The model that answered.",
    "x-router-reason": "Why it was chosen.",
    "x-router-target": "The target by whose name it was chosen; absent for a model by name.",
    "x-router-calibrated": "`false` where no promise about quality covers this request: out of domain, during a drift, "
    "or where a limit, load, a conversation or chance put it on the small model against the threshold.",
    "x-router-escalated": "`true` where the large model answered again; the reason is in `router.escalate_reason`.",
    "x-router-score": "Expected gain of the large model.",
    "x-router-rank": "The gain by this request's costs: large from the threshold on.",
    "x-router-threshold": "What the rank was compared with.",
    "x-router-propensity": "Probability of this choice.",
    "x-router-cost-usd": "What the request cost; absent from streams, whose last chunk has it.",
    "x-router-cost-if-large-usd": "What the large model alone would have cost; likewise.",
    "x-router-overhead-ms": "What deciding took, without the prefill that it reads.",
}
"""Headers of a response, with their meaning."""


def router_headers(router: RouterOut) -> dict[str, str]:
    """The same as `x-router-*` headers, some of RESPONSE_HEADERS; what is not known (yet) is left out."""
    values: dict[str, str | float | bool | None] = {
        "x-router-decision-id": router.decision_id,
        "x-router-model": router.model,
        "x-router-reason": router.reason,
        "x-router-target": router.target,
        "x-router-calibrated": router.calibrated,
        "x-router-escalated": router.escalated,
        "x-router-score": router.score,
        "x-router-rank": router.rank,
        "x-router-threshold": router.threshold,
        "x-router-propensity": router.propensity,
        "x-router-cost-usd": router.cost_usd,
        "x-router-cost-if-large-usd": router.cost_if_large_usd,
        "x-router-overhead-ms": round(router.overhead_ms, 3),
    }
    return {name: _header(value) for name, value in values.items() if value is not None}


def _header(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else value


def request_record(
    job: Job, outcome: Outcome | None, prices: PriceTable, *, status: int, error_code: str | None, trace_id: str | None
) -> RequestRecord:
    """The row of the request. outcome None: it was refused before a model was chosen.

    status: of the response; a stream that broke keeps 200 and has an error_code; 499 is a client that left.
    """
    record = RequestRecord(
        id=job.arrival.id,
        key_id=job.principal.key_id,
        trace_id=trace_id,
        endpoint="/v1/chat/completions",
        model_requested=job.wanted.name,
        stream=bool(job.request.stream),
        choices=job.n,
        constraint_kind=job.asked.kind,
        status=status,
        error_code=error_code,
        duration_s=job.arrival.elapsed_s(),
        user=job.request.user or job.request.safety_identifier,
        metadata=job.request.metadata or {},
    )
    if outcome is None:
        return record
    cost = outcome.cost(prices)
    return msgspec.structs.replace(
        record,
        decision_id=outcome.decision.id,
        model_served=outcome.model,
        backend=outcome.backend,
        finish_reason=outcome.finish_reason,
        valid=outcome.valid,
        prompt_tokens=outcome.prompt_tokens,
        cached_tokens=outcome.cached_tokens,
        cache_miss=outcome.cache_miss,
        completion_tokens=outcome.completion_tokens,
        drafted_tokens=outcome.drafted_tokens,
        accepted_tokens=outcome.accepted_tokens,
        forced_tokens=outcome.forced_tokens,
        preemptions=sum(event.timeline.preemptions for event in outcome.finished.values()),
        compile_s=outcome.compile_s,
        route_s=outcome.route_s,
        timing=_timing(job, outcome),
        cost_usd=cost.total_usd,
        cost_route_usd=cost.route_usd,
        cost_discarded_usd=cost.discarded_usd,
        cost_draft_usd=cost.draft_usd,
        cost_if_large_usd=cost.cost_if_large_usd,
        price_version=cost.version,
    )


def decision_record(job: Job, outcome: Outcome, prices: PriceTable) -> DecisionRecord:
    """The row of the decision, with its evidence and what came of it; no text of the request is in it."""
    decision, cost, timing = outcome.decision, outcome.cost(prices), _timing(job, outcome)
    judged = outcome.judged
    return DecisionRecord(
        id=decision.id,
        request_id=job.arrival.id,
        key_id=job.principal.key_id,
        route=decision.route,
        session_hash=decision.session_hash,
        turn=job.turns,
        policy=decision.policy,
        artefact_hash=decision.artefact_hash,
        features_version=decision.features_version,
        features=decision.features,
        eligible=list(decision.eligible),
        ineligible_reasons=dict(decision.ineligible),
        p_small=decision.p_small,
        p_large=decision.p_large,
        score=decision.score if decision.rank is None else decision.rank,  # what was compared with the threshold
        ood_score=decision.ood,
        expected_tokens=dict(decision.expected_tokens),
        expected_cost_usd=dict(decision.expected_cost_usd),
        expected_ttft_s=dict(decision.expected_ttft_s),
        load=dict(decision.load),
        prefix_hit_tokens={} if outcome.prepared is None else {"small": outcome.prepared.cached_tokens},
        threshold=decision.threshold,
        target=decision.target,
        action=decision.model,
        reason=decision.reason,
        propensity=decision.propensity,
        explored=decision.explored,
        pinned=decision.pinned,
        calibrated=decision.is_calibrated,
        early=decision.is_early,
        wanted=dict(decision.wanted),
        overhead_s=decision.overhead_s,
        model_served=outcome.model,
        escalated=outcome.escalated,
        escalate_reason=outcome.escalate_reason,
        p_right=outcome.p_right,
        ttft_s=timing.ttft_s,
        itl_s=timing.itl_s,
        duration_s=job.arrival.elapsed_s(),
        prompt_tokens=outcome.prompt_tokens,
        cached_tokens=outcome.cached_tokens,
        completion_tokens=outcome.completion_tokens,
        draft_accept_rate=outcome.accepted_tokens / outcome.drafted_tokens if outcome.drafted_tokens else None,
        cost_usd=cost.total_usd,
        cost_if_large_usd=cost.cost_if_large_usd,
        valid=outcome.valid,
        logprob_mean=judged.logprob_mean,
        logprob_min=judged.logprob_min,
        finish_reason=outcome.finish_reason,
    )


def _timing(job: Job, outcome: Outcome) -> Timing:
    """The first choice's times in the engine; to the first token counts from the request's arrival at the gateway."""
    first = outcome.finished.get(0)
    timing = Timing() if first is None else Timing.of(first.timeline)
    return msgspec.structs.replace(timing, ttft_s=_ttft_s(job, outcome))


def _ttft_s(job: Job, outcome: Outcome) -> float | None:
    return None if outcome.first_token_s is None else outcome.first_token_s - job.arrival.arrived_s
