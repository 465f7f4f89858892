"""From what a request asks and what the server is set to, to the options of the policy."""

from gateway.routing.catalogue import Target
from gateway.routing.question import Question
from gateway.settings import RoutingSettings
from router_model.options import Action, Cascade, QualityScale, RouteOptions


class RouterConflict(ValueError):
    """What the request asks of the router cannot be had together; the message says what to change."""


def options_of(question: Question, settings: RoutingSettings, *, explore: bool = True) -> RouteOptions:
    """The options of a routed request. Its own quality or cost wins over the target that its `model` names; of a
    conversation only a model that can answer this turn counts.
    """
    ask, target = question.ask, question.wanted.target or Target.AUTO
    quality, cost = ask.quality, ask.cost
    if quality is None and cost is None:
        quality = settings.quality_target if target is Target.AUTO else None
        cost = settings.cost_target if target is Target.COST else None
    past = question.session.past
    eligible = frozenset(map(Action, question.eligibility.eligible))
    pinned = None if past is None or past.model not in question.eligibility.eligible else Action(past.model)
    return RouteOptions(
        target=target.value,
        quality=quality,
        quality_scale=QualityScale(settings.quality_scale),
        cost=cost,
        max_cost_usd=ask.max_cost_usd,
        max_ttft_s=ask.max_ttft_s,
        eligible=eligible,
        pinned=pinned,
        in_tool_loop=question.in_tool_loop,
        route=ask.route or "",
        explore=explore and ask.may_explore,
        sheds_load=ask.quality is None,
        cascade=cascade_of(question, settings),
    )


def cascade_of(question: Question, settings: RoutingSettings) -> Cascade:
    """The second chance that a promise to this request may count on; what it really gets, `second_chance` says.

    Off where there is none: several answers, a tool loop. And where there may be one that the evidence, which is of
    whole answers and of requests without limits, does not speak of: of a stream only the beginning is judged, and a
    limit may forbid the second answer.
    """
    ask = question.ask
    has_limit = ask.max_cost_usd is not None or ask.max_ttft_s is not None
    if question.is_streamed or question.n > 1 or question.in_tool_loop or has_limit:
        return Cascade.OFF
    return Cascade(ask.cascade or settings.cascade)


def wanted_of(options: RouteOptions) -> dict[str, float]:
    """The numbers in force, by name, for decision rows: the request's own, or the server's where it had none."""
    named = {
        "quality": options.quality,
        "cost": options.cost,
        "max_cost_usd": options.max_cost_usd,
        "max_ttft_s": options.max_ttft_s,
    }
    return {name: value for name, value in named.items() if value is not None}
