"""From a request's wish to the threshold in force: by the evidence, the share that is kept, and the load."""

from dataclasses import dataclass, field

from router_model.controller import ShareController
from router_model.costs import Prices
from router_model.evidence import Evidence
from router_model.options import Action, Cascade, QualityScale, RouteOptions
from router_model.thresholds import CurvePoint, QualityCurve, Wish

MAX_CONTROLLERS = 64
"""Wishes whose share is kept at a time; of more, the one not asked for longest starts anew. Clients choose budgets."""

MAX_POINTS = 256
"""Wishes whose point on the curve is remembered, since every request asks for it several times."""


class UnknownTarget(ValueError):
    """The artefact has no threshold of that name; the message lists those it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a wish is kept.

    point: what the evidence promises for it, second chances included. curve: where that is from. controller: keeps
    share or spend; None for a wish for quality. keeps_spend: the controller counts money, not requests. sheds_load:
    overload may undercut it. is_promised: the evidence was enough for a promise.
    """

    point: CurvePoint
    curve: QualityCurve
    controller: ShareController | None
    keeps_spend: bool
    sheds_load: bool
    is_promised: bool

    @property
    def is_quality(self) -> bool:
        """Whether quality is what is wished: then nothing but the large model keeps it where nothing is promised."""
        return self.controller is None

    def threshold(self, *, is_covered: bool, pressure: float) -> float:
        """The threshold for a request.

        is_covered: the promise covers it; without that, a wish for quality wants all such requests on the large model.
        pressure: takes that part off the wanted share, where the wish sheds load.
        """
        shed = pressure if self.sheds_load else 0.0
        if self.controller is not None:
            return self.controller.threshold(shed)
        share = self.point.share if is_covered else 1.0
        if shed > 0:
            return self.curve.threshold_at(share * (1 - shed))
        return self.point.threshold if is_covered else float(self.curve.thresholds[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Makes plans, and owns the controllers of a policy.

    targets: wishes by name; share_targets: those of them that keep a share where no quality can be promised.

    A share is that of the requests which the large model answers, at first or again. So the controllers' quantile is of
    first decisions alone, and second answers are owed to them (`Policy.observe_escalation`).
    """

    evidence: Evidence
    prices: Prices | None
    targets: dict[str, float]
    share_targets: frozenset[str]
    _controllers: dict[tuple[Wish, Cascade], ShareController] = field(default_factory=dict, init=False, repr=False)
    _points: dict[tuple[Wish, bool, Cascade], CurvePoint] = field(default_factory=dict, init=False, repr=False)

    def prepare(self) -> None:
        """Compute every curve that `plan` may need, so that no request waits for one."""
        for cascade in Cascade:
            for is_guarded in (True, False):
                self.evidence.curve(self.prices, is_guarded=is_guarded, cascade=cascade)

    def plan(self, options: RouteOptions) -> Plan:
        """The plan for these options. UnknownTarget; ConflictingWish: quality and cost cannot both be had."""
        wish, is_quality = self._wish(options)
        curve = self.evidence.curve(self.prices, is_guarded=is_quality, cascade=options.cascade)
        point = self._point((wish, is_quality, options.cascade), curve)
        is_named = options.quality is None and options.cost is None
        by_gap = wish.quality is not None and wish.scale is QualityScale.GAP
        return Plan(
            point=point,
            curve=curve,
            controller=None if is_quality else self._controller(wish, options.cascade, point, curve),
            keeps_spend=wish.quality is None and self.prices is not None,
            sheds_load=is_named or options.quality is None or options.sheds_load,
            is_promised=curve.is_identified or not by_gap,
        )

    def overspent(self, plan: Plan, action: Action, costs: tuple[float, float] | None, pressure: float) -> float | None:
        """What a request adds beyond the wanted, in requests on the large model; None where no share is kept.

        costs: USD of the model chosen (with what routing cost), and of the large one alone; None is unknown.
        """
        if plan.controller is None:
            return None
        wanted = 1.0 - pressure if plan.sheds_load else 1.0
        if plan.keeps_spend and self.prices is not None and costs is not None:
            unit = self.evidence.priced(self.prices).mean_extra
            if unit > 0:
                # Overload takes off the large model's part only: what the small one costs stays, failures included.
                least = float(plan.curve.cost[0])
                budget = least + (plan.point.cost - least) * wanted
                return (costs[0] - budget * costs[1]) / unit
        least = float(plan.curve.shares[0])  # of answers that failed, which go up whatever the threshold
        return float(action is Action.LARGE) - (least + (plan.point.share - least) * wanted)

    def _wish(self, options: RouteOptions) -> tuple[Wish, bool]:
        """The wish, and whether it is one for quality."""
        if options.quality is not None or options.cost is not None:
            return Wish(options.quality, options.quality_scale, options.cost), options.quality is not None
        if options.target not in self.targets:
            names = ", ".join(sorted(self.targets))
            raise UnknownTarget(f"the router has no target '{options.target}': use one of {names}")
        return Wish(self.targets[options.target]), options.target not in self.share_targets

    def _point(self, key: tuple[Wish, bool, Cascade], curve: QualityCurve) -> CurvePoint:
        """`curve.point` of the wish, remembered. key: what says which curve, too. ConflictingWish."""
        point = self._points.get(key)
        if point is None:
            point = self._points[key] = curve.point(key[0])
            if len(self._points) > MAX_POINTS:
                del self._points[next(iter(self._points))]
        return point

    def _controller(self, wish: Wish, cascade: Cascade, point: CurvePoint, curve: QualityCurve) -> ShareController:
        """One for each cascade: by another, the same threshold comes to another share."""
        controller = self._controllers.pop((wish, cascade), None)
        if controller is None:
            first_share = curve.first_share_at(point.threshold)
            controller = ShareController(first_share, point.threshold, self.evidence.ranks(self.prices))
        self._controllers[wish, cascade] = controller  # the last one asked for
        if len(self._controllers) > MAX_CONTROLLERS:
            del self._controllers[next(iter(self._controllers))]
        return controller
