"""The policy: from a request's features to a decision with a known propensity.

Which models could answer at all is settled before (by the gateway: window, abilities); the policy chooses among those.

    predictions ─► rank ─► greedy by the threshold ─► conversation ─► the request's own limits ─► exploration
"""

from dataclasses import dataclass, field

import numpy as np

from router_model.appraisal import Appraisal, Appraiser
from router_model.artefact import RouterArtefact
from router_model.cascade import Answer
from router_model.circumstances import Circumstances
from router_model.costs import Prices, RowCosts
from router_model.decision import Decision, Reason
from router_model.drift import DriftMonitor
from router_model.escalation import EscalateReason, Escalation
from router_model.features import Features, Kind
from router_model.limits import broken_limits, least_breaking
from router_model.options import Action, RouteOptions
from router_model.plan import Plan, Planner, UnknownTarget
from router_model.thresholds import ALWAYS_LARGE, ConflictingWish, CurvePoint

__all__ = [
    "Action",
    "ConflictingWish",
    "Decision",
    "Escalation",
    "Policy",
    "Reason",
    "RouteOptions",
    "UnknownTarget",
]


@dataclass(frozen=True, slots=True)
class _Choice:
    """An action before exploration. may_explore: the other one is open to this request, too."""

    action: Action
    reason: Reason
    may_explore: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Policy:
    """A router in force.

    epsilon: probability of taking the other model, to learn from. max_regret: requests whose rank lies further than
    this from the threshold are never explored. prices: of the served pair; None ranks by gain alone, and takes the
    small model as free where a cost budget is asked.

    `decide`, `decide_early` and `judge` change nothing; `observe` and the other observations do: shares that are kept,
    and drift. Used from one thread.
    """

    artefact: RouterArtefact
    epsilon: float = 0.05
    max_regret: float = 1.0
    prices: Prices | None = None
    appraiser: Appraiser = field(init=False, repr=False)
    monitor: DriftMonitor = field(init=False, repr=False)
    planner: Planner = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Compute the curves, so that no request waits for them.

        ValueError: epsilon outside [0, 0.5] or a negative max_regret.
        """
        if not 0 <= self.epsilon <= 0.5:
            raise ValueError(f"epsilon is {self.epsilon}: use 0 (never explore) to 0.5")
        if not self.max_regret >= 0:
            raise ValueError(f"max_regret is {self.max_regret}: use 0 or more")
        evidence, manifest = self.artefact.evidence, self.artefact.manifest
        object.__setattr__(self, "appraiser", Appraiser(self.artefact, self.prices))
        object.__setattr__(self, "monitor", DriftMonitor(evidence, evidence.ranks(self.prices)))
        planner = Planner(
            evidence=evidence,
            prices=self.prices,
            targets={name: point.target for name, point in manifest.targets.items() if point.target is not None},
            share_targets=frozenset(manifest.share_targets),
        )
        planner.prepare()
        object.__setattr__(self, "planner", planner)

    @property
    def kind(self) -> Kind:
        """The kind of features that `decide` needs."""
        return self.artefact.kind

    def check(self, options: RouteOptions) -> CurvePoint:
        """What the evidence promises for a wish, before anything is computed for the request, with the second chance
        that `options.cascade` says.

        UnknownTarget; ConflictingWish: quality and cost cannot both be had. Both are ValueErrors.
        """
        return self.planner.plan(options).point

    def threshold(self, options: RouteOptions) -> float:
        """The threshold in force for a request in domain and without load. Raises what `check` raises."""
        return self.planner.plan(options).threshold(is_covered=True, pressure=0.0)

    def decide(
        self, features: Features, options: RouteOptions, circumstances: Circumstances, rng: np.random.Generator
    ) -> Decision:
        """Choose a model.

        ValueError: nothing is eligible, a cost limit without prices, or features of another kind than the artefact's;
        and what `check` raises.
        """
        _check_eligible(options, circumstances)
        plan = self.planner.plan(options)
        view = self.appraiser.appraise(features, options.route, circumstances)
        is_covered = self._is_covered(view, options.route)
        threshold = plan.threshold(is_covered=is_covered, pressure=circumstances.pressure)
        choice = self._choose(plan, view, threshold, options, circumstances)
        return self._decision(choice, plan, view, threshold, options, circumstances, rng)

    def decide_early(
        self, features: Features, options: RouteOptions, circumstances: Circumstances, rng: np.random.Generator
    ) -> Decision | None:
        """A clear case for the large model before any prefill; None: go on, prefill and `decide`.

        features: without the prefill's state. A case is clear where the lower bound of the rank reaches the threshold,
        where the wish is for all large, and where a tool loop keeps the large model. Raises what `decide` raises.
        """
        _check_eligible(options, circumstances)
        plan = self.planner.plan(options)
        if Action.LARGE not in options.eligible:
            return None
        view = self.appraiser.appraise_early(features, circumstances)
        threshold = plan.threshold(is_covered=True, pressure=0.0)
        if options.pinned is Action.LARGE and options.in_tool_loop:
            choice = _Choice(Action.LARGE, Reason.PINNED, False)
        elif not self._is_open(plan, view, options, circumstances):
            return None
        elif threshold <= ALWAYS_LARGE:
            # Nothing that the prefill says could change it, nor does a drift.
            is_covered = self._is_covered(view, options.route)
            reason = Reason.WORTH_IT if is_covered or not plan.is_quality else Reason.UNCALIBRATED
            choice = _Choice(Action.LARGE, reason, False)
        elif self._is_clear(view, threshold, options.route):
            may_explore = self._may_explore(view, threshold, options, circumstances)
            choice = _Choice(Action.LARGE, Reason.CLEAR_CASE, may_explore)
        else:
            return None
        return self._decision(choice, plan, view, threshold, options, circumstances, rng)

    def settle(self, options: RouteOptions, circumstances: Circumstances, rng: np.random.Generator) -> Decision:
        """The decision where one model is eligible, without a look at the request: what it costs, which limits that
        breaks and whether a promise is kept. Score and rank are bounds that nothing narrowed.

        ValueError: as many models are eligible as there are; and what `decide` raises.
        """
        _check_eligible(options, circumstances)
        (only,) = options.eligible
        plan = self.planner.plan(options)
        view = self.appraiser.appraise_early(None, circumstances)
        threshold = plan.threshold(is_covered=True, pressure=0.0)
        choice = _Choice(only, Reason.ONLY_ELIGIBLE, False)
        return self._decision(choice, plan, view, threshold, options, circumstances, rng)

    def judge(
        self, decision: Decision, answer: Answer, options: RouteOptions, circumstances: Circumstances
    ) -> Escalation:
        """What to make of the small model's answer to a request that `decision` sent there, if the answer did not fail
        (`escalation.failure`; those that did go up whatever the policy thinks).

        It escalates where the large model's expected gain over this very answer, by the cost of asking it now, reaches
        the threshold of the wish. Never where the large model is not eligible, where the request's cost limit forbids
        it, or in a tool loop. `options.cascade` says by which threshold: it does not forbid what is asked for here.
        """
        p_right = rank = None
        cascade = self.artefact.cascade
        if cascade is not None and decision.p_small is not None and decision.p_large is not None:
            p_right = cascade.p_right(decision.p_small, decision.p_large, answer)
            costs = self._costs_of(decision, circumstances)
            rank = self.appraiser.rank(decision.p_large - p_right, None if costs is None else float(costs.large[0]))
        plan = self.planner.plan(options)
        threshold = plan.threshold(is_covered=True, pressure=circumstances.pressure)
        doubts = rank is not None and rank >= threshold and self._may_escalate(decision, options, circumstances)
        reason = EscalateReason.LOW_CONFIDENCE if doubts else None
        return Escalation(p_right=p_right, rank=rank, threshold=threshold, reason=reason)

    def observe(self, decision: Decision) -> None:
        """Count a decision that is carried out: towards the share that its wish keeps, and towards drift. One that
        left no choice was not made by its rank: it counts as spending alone.
        """
        is_free = decision.reason is not Reason.ONLY_ELIGIBLE
        controller = None if decision.overspent is None else self.planner.plan(decision.options).controller
        if controller is not None and decision.overspent is not None:
            if is_free:
                controller.observe(decision.rank, decision.overspent)
            else:
                controller.owe(decision.overspent)
        if is_free:
            high = decision.rank if decision.rank_high is None else decision.rank_high
            self.monitor.saw_request(decision.rank, high, decision.ood, decision.options.route)

    def observe_escalation(self, decision: Decision, circumstances: Circumstances) -> None:
        """Count the second answer towards the share or spend that the wish of `decision` keeps: both count everything
        that the large model answers, at first or again.
        """
        plan = self.planner.plan(decision.options)
        if plan.controller is None:
            return
        costs = self._costs_of(decision, circumstances)
        extra = 1.0
        if plan.keeps_spend and self.prices is not None and costs is not None:
            unit = self.artefact.evidence.priced(self.prices).mean_extra
            extra = float(costs.large[0]) / unit if unit > 0 else 1.0
        plan.controller.owe(extra)

    def _is_covered(self, view: Appraisal, route: str) -> bool:
        """Whether a promise covers a request: in domain, as far as is known, and no drift."""
        return not view.is_far and not self.monitor.state.concerns(route)

    def _is_kept(self, action: Action, plan: Plan, view: Appraisal, options: RouteOptions) -> bool:
        """Whether the promise covers a request and the action is none that a limit, load, a conversation or chance took
        away from it."""
        keeps = action is Action.LARGE or view.rank_high < plan.threshold(is_covered=True, pressure=0.0)
        return keeps and plan.is_promised and self._is_covered(view, options.route)

    def _is_open(self, plan: Plan, view: Appraisal, options: RouteOptions, circumstances: Circumstances) -> bool:
        """Whether the threshold alone decides about the large model."""
        is_free = len(options.eligible) > 1 and options.pinned is None
        is_calm = not (plan.sheds_load and circumstances.pressure > 0)
        breaks = broken_limits(view, options, circumstances)[Action.LARGE]
        return is_free and is_calm and not breaks

    def _is_clear(self, view: Appraisal, threshold: float, route: str) -> bool:
        """Whether the rank reaches the threshold whatever a prefill would say, in domain as far as is known."""
        has_bounds = self.artefact.front is not None
        return has_bounds and view.rank_low >= threshold and self._is_covered(view, route)

    def _choose(
        self, plan: Plan, view: Appraisal, threshold: float, options: RouteOptions, circumstances: Circumstances
    ) -> _Choice:
        """The action before exploration."""
        if len(options.eligible) == 1:
            (only,) = options.eligible
            return _Choice(only, Reason.ONLY_ELIGIBLE, False)
        action, reason = self._greedy(plan, view, threshold, options.route)
        if options.pinned is not None:
            action, reason = _kept(options.pinned, action, reason, view, options, circumstances)
            if options.in_tool_loop:
                return _Choice(action, reason, False)
        broken = broken_limits(view, options, circumstances)
        if broken[action]:
            why = broken[action][0]
            both = bool(broken[action.other])
            return _Choice(least_breaking(broken, view, circumstances) if both else action.other, why, False)
        # Where nothing is promised the threshold is that of all large, from which no rank is near: nothing is explored.
        calm = plan.threshold(is_covered=self._is_covered(view, options.route), pressure=0.0)
        may_explore = reason is not Reason.OVERLOAD and self._may_explore(view, calm, options, circumstances)
        return _Choice(action, reason, may_explore)

    def _greedy(self, plan: Plan, view: Appraisal, threshold: float, route: str) -> tuple[Action, Reason]:
        """What the threshold says, and why."""
        is_covered = self._is_covered(view, route)
        if view.rank_low >= threshold:
            if is_covered or not plan.is_quality:
                return Action.LARGE, Reason.WORTH_IT
            return Action.LARGE, Reason.OUT_OF_DOMAIN if view.is_far else Reason.UNCALIBRATED
        if view.rank_low >= plan.threshold(is_covered=is_covered, pressure=0.0):
            return Action.SMALL, Reason.OVERLOAD
        return Action.SMALL, Reason.NOT_WORTH_IT

    def _may_explore(
        self, view: Appraisal, threshold: float, options: RouteOptions, circumstances: Circumstances
    ) -> bool:
        """Whether the other model may be taken: only where both are open, and where little is lost by it."""
        regret = max(abs(view.rank_low - threshold), abs(view.rank_high - threshold))
        return (
            options.explore
            and self.epsilon > 0
            and options.pinned is None
            and len(options.eligible) > 1
            and regret <= self.max_regret
            and not any(broken_limits(view, options, circumstances).values())
        )

    def _decision(
        self,
        choice: _Choice,
        plan: Plan,
        view: Appraisal,
        threshold: float,
        options: RouteOptions,
        circumstances: Circumstances,
        rng: np.random.Generator,
    ) -> Decision:
        """The decision, after exploration."""
        action, reason, propensity, explored = choice.action, choice.reason, 1.0, False
        if choice.may_explore:
            explored = bool(rng.random() < self.epsilon)
            propensity = self.epsilon if explored else 1.0 - self.epsilon
            if explored:
                action, reason = action.other, Reason.EXPLORED
        is_early, cost_usd = view.p_small is None, view.cost_usd
        ttft_s = {one: s for one in Action if (s := circumstances.offer(one).ttft_s) is not None}
        spent = None
        if view.costs is not None and cost_usd is not None:
            spent = cost_usd[action], float(view.costs.large[0])
        return Decision(
            action=action,
            reason=reason,
            score=view.score,
            rank=view.rank_low,
            threshold=threshold,
            p_small=view.p_small,
            p_large=view.p_large,
            ood=view.ood,
            propensity=propensity,
            explored=explored,
            expected_small_tokens=view.small_tokens,
            expected_large_tokens=view.large_tokens,
            is_calibrated=self._is_kept(action, plan, view, options),
            is_early=is_early,
            expected_cost_usd=cost_usd,
            expected_ttft_s=ttft_s or None,
            rank_high=view.rank_high if is_early else None,
            exceeds=broken_limits(view, options, circumstances)[action],
            overspent=self.planner.overspent(plan, action, spent, circumstances.pressure),
            options=options,
        )

    def _may_escalate(self, decision: Decision, options: RouteOptions, circumstances: Circumstances) -> bool:
        if decision.action is not Action.SMALL or Action.LARGE not in options.eligible:
            return False
        if options.in_tool_loop and options.pinned is not None:
            return False
        if options.max_cost_usd is None:
            return True
        costs = self._costs_of(decision, circumstances)
        return costs is not None and float(costs.small[0] + costs.large[0]) <= options.max_cost_usd

    def _costs_of(self, decision: Decision, circumstances: Circumstances) -> RowCosts | None:
        return self.appraiser.costs(decision.expected_small_tokens, decision.expected_large_tokens, circumstances)


def _check_eligible(options: RouteOptions, circumstances: Circumstances) -> None:
    if not options.eligible:
        raise ValueError("no model is eligible: refuse the request before asking the policy")
    if options.max_cost_usd is not None and not circumstances.has_prices:
        raise ValueError("max_cost_usd cannot be kept, since no prices are known: leave it out, or set prices")


def _kept(
    pinned: Action,
    action: Action,
    reason: Reason,
    view: Appraisal,
    options: RouteOptions,
    circumstances: Circumstances,
) -> tuple[Action, Reason]:
    """A conversation's model: up at any time, down only for more than its lost prefix costs, in a tool loop never."""
    if action is pinned or options.in_tool_loop:
        return pinned, Reason.PINNED
    if pinned is Action.SMALL:
        return action, reason
    saving = 0.0 if view.costs is None else float(view.costs.extra[0])
    return (action, reason) if saving > circumstances.large.warm_usd else (pinned, Reason.PINNED)
