"""How the router in force is doing, as Prometheus metrics."""

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.routing.grade_book import GradeBook
from gateway.routing.router import Router
from gateway.telemetry import semconv
from router_model.drift import DriftState
from router_model.options import Action

_EVERYWHERE = (*(f"calibration_{action.value}" for action in Action), "out_of_domain")


class RouterCollector(Collector):
    """Read at every scrape; nothing while no trained router decides.

    Clients name routes, each its own, and whoever may scrape is to learn none of them: of those whose traffic has
    shifted only the number is told.
    """

    def __init__(self, router: Router, grades: GradeBook) -> None:
        self._router, self._grades = router, grades

    def collect(self) -> Iterable[Metric]:
        """One family for each number."""
        policy = self._router.policy
        drift = GaugeMetricFamily(
            semconv.METRIC_DRIFT, "1 while no quality is promised for this reason, on any route.", labels=["reason"]
        )
        shifted = GaugeMetricFamily(
            semconv.METRIC_SHIFTED_ROUTES, "Routes that nothing is promised on, since their traffic is another."
        )
        far = GaugeMetricFamily(semconv.METRIC_OOD_SHARE, "Share of recent requests unlike the training data.")
        error = GaugeMetricFamily(
            semconv.METRIC_CALIBRATION_ERROR,
            "Predictions against the scores of the last graded answers, root mean square without noise.",
            labels=["model"],
        )
        if policy is not None:
            state = policy.monitor.state
            for reason in _EVERYWHERE:
                drift.add_metric([reason], reason in state.reasons)
            shifted.add_metric([], _n_shifted(state))
            far.add_metric([], state.ood_share)
            for action in Action:
                value = self._grades.calibration_error(action.value, policy.artefact.hash)
                if value is not None:
                    error.add_metric([action.value], value)
        return [drift, shifted, far, error]


def _n_shifted(state: DriftState) -> int:
    return sum(reason not in _EVERYWHERE for reason in state.reasons)
