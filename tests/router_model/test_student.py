import pytest
from scipy import stats

from router_model.student import student_quantile


@pytest.mark.parametrize(("df", "off"), [(3, 0.01), (5, 0.002), (8, 3e-4), (20, 1e-5), (1e9, 1e-6)])
@pytest.mark.parametrize("p", [0.9, 0.95, 0.975])
def test_quantiles_are_those_of_students_t(df: float, off: float, p: float) -> None:
    assert student_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=off)


def test_fewer_than_three_degrees_of_freedom_are_three_and_infinitely_many_are_normal() -> None:
    assert student_quantile(0.975, 0.5) == student_quantile(0.975, 3)
    assert student_quantile(0.975, float("inf")) == pytest.approx(1.959964, abs=1e-6)
