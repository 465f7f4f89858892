"""What the gateway learned from traffic, as Prometheus metrics: grades, shadow pairs, live grading."""

from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.routing.grade_book import GradeBook
from gateway.routing.live_grading import LiveGrading
from gateway.routing.live_shadow import LiveShadow
from gateway.telemetry import semconv


class LearningCollector(Collector):
    """Read at every scrape. Sources that clients made up share one label."""

    def __init__(self, grades: GradeBook, shadow: LiveShadow, grading: LiveGrading) -> None:
        self._grades, self._shadow, self._grading = grades, shadow, grading

    def collect(self) -> Iterable[Metric]:
        """One family for each number."""
        told = CounterMetricFamily(
            semconv.METRIC_OUTCOMES, "What was said of answers, by how it came about.", labels=["origin", "source"]
        )
        for (origin, source), n in self._grades.counts.items():
            told.add_metric([origin.value, source], n)
        pairs, graded = self._shadow.counts, self._grading.counts
        yield told
        yield _by_state(
            semconv.METRIC_SHADOW_PAIRS,
            "Requests that both models were to answer.",
            {
                "drawn": pairs.drawn,
                "done": pairs.answered - pairs.ungraded,
                "failed": pairs.failed + pairs.ungraded,
                "skipped": pairs.dropped + pairs.abandoned,
            },
        )
        yield CounterMetricFamily(
            semconv.METRIC_SHADOW_COST, "Cost in USD of shadow answers, in no client's bill.", value=pairs.cost_usd
        )
        yield _by_state(
            semconv.METRIC_LIVE_GRADES,
            "Ordinary answers that the grader was to grade.",
            {"drawn": graded.drawn, "done": graded.done, "failed": graded.failed, "dropped": graded.dropped},
        )


def _by_state(name: str, text: str, values: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=["state"])
    for state, value in values.items():
        family.add_metric([state], value)
    return family
