"""What is kept of a request, and what the client is told of its routing: both from the same decision and outcome."""

import msgspec
from msgspec import UNSET

from engine.request import DraftCounts
from engine.speculation.proposer import Source
from gateway.openai.job import Job
from gateway.openai.responses import (
    CompletionDetails,
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
    drafts, forced = outcome.drafts, outcome.forced_tokens
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
    )


def router_of(
    job: Job, decision: Decision, outcome: Outcome | None = None, cost: RequestCost | None = None
) -> RouterOut:
    """The `router` object; cost and first-token time are null until they are known."""
    ttft_s = None if outcome is None else _ttft_s(job, outcome)
    return RouterOut(
        decision_id=str(decision.id),
        requested=job.wanted.name,
        model=decision.model,
        reason=decision.reason,
        policy=decision.policy,
        score=decision.score,
        threshold=decision.threshold,
        p_small=decision.p_small,
        p_large=decision.p_large,
        ood=decision.ood,
        propensity=decision.propensity,
        explored=decision.explored,
        overhead_ms=decision.overhead_s * 1000,
        ttft_ms=None if ttft_s is None else ttft_s * 1000,
        cost_usd=None if cost is None else cost.total_usd,
        cost_if_large_usd=None if cost is None else cost.cost_if_large_usd,
        price_version=None if cost is None else cost.version,
    )


def router_headers(router: RouterOut) -> dict[str, str]:
    """The same as `x-router-*` headers; what is not known (yet) is left out."""
    values: dict[str, str | float | None] = {
        "x-router-decision-id": router.decision_id,
        "x-router-model": router.model,
        "x-router-reason": router.reason,
        "x-router-score": router.score,
        "x-router-threshold": router.threshold,
        "x-router-propensity": router.propensity,
        "x-router-cost-usd": router.cost_usd,
        "x-router-cost-if-large-usd": router.cost_if_large_usd,
        "x-router-overhead-ms": round(router.overhead_ms, 3),
    }
    known = {name: value for name, value in values.items() if value is not None}
    return {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in known.items()}


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
        model_served=outcome.decision.model,
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
    """The row of the decision, with its evidence and what came of it."""
    decision, cost, timing = outcome.decision, outcome.cost(prices), _timing(job, outcome)
    return DecisionRecord(
        id=decision.id,
        request_id=job.arrival.id,
        key_id=job.principal.key_id,
        route=job.wanted.name,
        turn=job.turns,
        policy=decision.policy,
        artefact_hash=decision.artefact_hash,
        features_version=decision.features_version,
        eligible=list(decision.eligible),
        ineligible_reasons=dict(decision.ineligible),
        p_small=decision.p_small,
        p_large=decision.p_large,
        score=decision.score,
        ood_score=decision.ood,
        expected_tokens=dict(decision.expected_tokens),
        prefix_hit_tokens={} if outcome.prepared is None else {"small": outcome.prepared.cached_tokens},
        threshold=decision.threshold,
        target=decision.target,
        action=decision.model,
        reason=decision.reason,
        propensity=decision.propensity,
        explored=decision.explored,
        overhead_s=decision.overhead_s,
        model_served=decision.model,
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
        logprob_mean=outcome.logprob_sum / outcome.logprob_tokens if outcome.logprob_tokens else None,
        finish_reason=outcome.finish_reason,
    )


def _timing(job: Job, outcome: Outcome) -> Timing:
    """The first choice's times in the engine; to the first token counts from the request's arrival at the gateway."""
    first = outcome.finished.get(0)
    timing = Timing() if first is None else Timing.of(first.timeline)
    return msgspec.structs.replace(timing, ttft_s=_ttft_s(job, outcome))


def _ttft_s(job: Job, outcome: Outcome) -> float | None:
    return None if outcome.first_token_s is None else outcome.first_token_s - job.arrival.arrived_s
