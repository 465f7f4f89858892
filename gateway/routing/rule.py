"""What `auto` means without a trained router: quality first, because nothing is known about the small model's answers.

`auto` and `auto-quality` take the large model, `auto-cost` the small one; where that one is not eligible, the other. A
wish for quality takes the large model, which has all of it; a budget below all takes the small one, which costs least.
Limits of one request are held with the most that its answer can be: the tokens that it asks for, or the window's rest.
"""

from collections.abc import Mapping

from gateway.routing.catalogue import Catalogue, Target
from gateway.routing.decision import Decision, Reason
from gateway.routing.question import Question
from gateway.routing.wishes import RouterConflict
from router_model.circumstances import Circumstances
from router_model.options import Action

POLICY = "rule-1"


def decide_by_rule(question: Question, circumstances: Circumstances, catalogue: Catalogue) -> Decision:
    """The rule's choice; deterministic, so its propensity is 1. Raises RouterConflict for a quality within a budget."""
    ask, eligible = question.ask, question.eligibility.eligible
    if ask.quality and ask.cost is not None and ask.cost < 1:
        raise RouterConflict(
            "This server has no trained router, so it cannot say which quality a budget buys; "
            "ask for quality or for cost alone."
        )
    wants_small = question.wanted.target is Target.COST
    if ask.quality is not None:
        wants_small = ask.quality == 0
    elif ask.cost is not None:
        wants_small = ask.cost < 1
    preferred = "small" if wants_small else "large"
    costs = {alias: _most_usd(question, circumstances, catalogue, alias) for alias in eligible}
    waits = {alias: circumstances.offer(Action(alias)).ttft_s for alias in eligible}
    model, reason = preferred, Reason.NO_ROUTER
    if preferred not in eligible:
        model, reason = eligible[0], Reason.ONLY_ELIGIBLE
    elif len(eligible) > 1:
        other = Action(preferred).other.value
        if ask.max_cost_usd is not None and costs[preferred] > ask.max_cost_usd and costs[other] < costs[preferred]:
            model, reason = other, Reason.OVER_BUDGET
        elif ask.max_ttft_s is not None and _is_slower(waits, preferred, other, ask.max_ttft_s):
            model, reason = other, Reason.TOO_SLOW
    return Decision(
        model=model,
        reason=reason,
        policy=POLICY,
        eligible=eligible,
        ineligible=question.eligibility.reasons,
        target=None if question.wanted.target is None else question.wanted.target.value,
        wanted=question.wishes,
        route=ask.route or "",
        session_hash=question.session.id,
        expected_cost_usd=costs,
        expected_ttft_s={alias: wait for alias, wait in waits.items() if wait is not None},
        is_calibrated=model == "large",
    )


def _most_usd(question: Question, circumstances: Circumstances, catalogue: Catalogue, alias: str) -> float:
    """The most that the request can cost on that model."""
    offer = circumstances.offer(Action(alias))
    room = catalogue[alias].info.max_model_len - len(question.prompts[alias])
    return offer.prompt_usd + (question.max_tokens or room) * offer.output_usd_per_token


def _is_slower(waits: Mapping[str, float | None], alias: str, other: str, limit_s: float) -> bool:
    """Whether a model is predicted to exceed the limit and the other to come earlier."""
    own, others = waits[alias], waits[other]
    return own is not None and others is not None and own > limit_s and others < own
