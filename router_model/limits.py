"""A request's own limits: which models are expected to keep them."""

from collections.abc import Mapping
from types import MappingProxyType

from router_model.appraisal import Appraisal
from router_model.circumstances import Circumstances
from router_model.decision import Reason
from router_model.options import Action, RouteOptions

_UNBROKEN: Mapping[Action, tuple[Reason, ...]] = MappingProxyType(dict.fromkeys(Action, ()))


def broken_limits(
    view: Appraisal, options: RouteOptions, circumstances: Circumstances
) -> Mapping[Action, tuple[Reason, ...]]:
    """By model, the limits that it is expected to break. A time that nobody can predict yet breaks none."""
    if options.max_cost_usd is None and options.max_ttft_s is None:
        return _UNBROKEN
    broken = {}
    for action in Action:
        reasons = []
        cost_usd, ttft_s = view.cost_usd, circumstances.offer(action).ttft_s
        if options.max_cost_usd is not None and cost_usd is not None and cost_usd[action] > options.max_cost_usd:
            reasons.append(Reason.OVER_BUDGET)
        if options.max_ttft_s is not None and ttft_s is not None and ttft_s > options.max_ttft_s:
            reasons.append(Reason.TOO_SLOW)
        broken[action] = tuple(reasons)
    return broken


def least_breaking(
    broken: Mapping[Action, tuple[Reason, ...]], view: Appraisal, circumstances: Circumstances
) -> Action:
    """Of two models that break a limit: the one that keeps the cost, else the cheaper, and without a cost limit the
    faster.
    """
    dear = [action for action in Action if Reason.OVER_BUDGET in broken[action]]
    if len(dear) == 1:
        return dear[0].other
    cost_usd = view.cost_usd
    if dear and cost_usd is not None:
        return min(Action, key=lambda action: cost_usd[action])
    return min(Action, key=lambda action: circumstances.offer(action).ttft_s or 0.0)
