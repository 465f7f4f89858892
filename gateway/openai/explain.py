"""Why a model was chosen, in full: the evidence of a decision as clients see it."""

from gateway.openai.responses import ExpectedOut, ExplainOut, PromiseOut, SessionOut
from gateway.routing.question import Question
from gateway.routing.router import Route
from router_model.cheap import NAMES
from router_model.circumstances import Circumstances
from router_model.options import Action
from router_model.thresholds import CurvePoint

_FIRST_TOKEN = ("entropy", "margin")


def explanation(question: Question, route: Route, *, exploration: float) -> ExplainOut:
    """Of a routed or a certain decision. exploration: probability of taking the other model to learn."""
    decision, features = route.decision, route.features
    past = question.session.past
    circumstances = decision.circumstances or Circumstances()
    first_token = None if features is None else features.first_token
    return ExplainOut(
        eligible=list(decision.eligible),
        ineligible=dict(decision.ineligible),
        features={} if features is None else dict(zip(NAMES, map(float, features.cheap), strict=True)),
        first_token=None if first_token is None else dict(zip(_FIRST_TOKEN, map(float, first_token), strict=True)),
        gain=decision.score,
        promise=_promise(route.promise) if route.promise is not None and decision.is_calibrated else None,
        expected={alias: _expected(route, circumstances, alias) for alias in decision.eligible},
        session=SessionOut(
            id=decision.session_hash,
            last_model=None if past is None else past.model,
            in_tool_loop=question.in_tool_loop,
        ),
        load=dict(decision.load),
        pressure=circumstances.pressure,
        exploration=exploration,
        drift=[] if route.ruling is None else list(route.ruling.policy.monitor.state.concerning({decision.route})),
        artefact=decision.artefact_hash,
    )


def _promise(point: CurvePoint) -> PromiseOut:
    return PromiseOut(
        quality_at_least=point.quality_lower,
        gap_at_least=point.lower,
        cost_at_most=point.cost_upper,
        large_share=point.share,
    )


def _expected(route: Route, circumstances: Circumstances, alias: str) -> ExpectedOut:
    decision = route.decision
    ttft_s = decision.expected_ttft_s.get(alias)
    return ExpectedOut(
        tokens=decision.expected_tokens.get(alias),
        cost_usd=decision.expected_cost_usd.get(alias),
        ttft_ms=None if ttft_s is None else ttft_s * 1000,
        warm_tokens=circumstances.offer(Action(alias)).warm_tokens,
    )
