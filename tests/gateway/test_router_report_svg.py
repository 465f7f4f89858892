"""Charts that can be read."""

from xml.etree import ElementTree

import numpy as np
import pytest

from gateway.reports import svg


@pytest.mark.parametrize(("low", "high"), [(0.0022, 0.0131), (-0.05, 1.05), (0.229, 0.547), (3e-7, 9e-6), (0, 17_000)])
def test_ticks_are_few_round_numbers_within_the_range(low: float, high: float) -> None:
    ticks = svg._ticks(low, high)
    assert 3 <= len(ticks) <= 9
    assert len(set(ticks)) == len(ticks)
    numbers = [float(tick) for tick in ticks]
    assert low <= min(numbers) <= max(numbers) <= high
    steps = np.diff(numbers)
    assert steps == pytest.approx(np.full(len(steps), steps[0]))
    assert all(len(tick.strip("-").replace(".", "").strip("0")) <= 3 for tick in ticks)


def test_labels_of_dots_in_one_place_do_not_overlap() -> None:
    chart = svg.Chart([0, 1], [0, 1], x_title="", y_title="", title="")
    for i in range(6):
        chart.mark((0.7 + i / 1000, 0.5), f"policy {i}")
    root = ElementTree.fromstring(chart.svg())  # noqa: S314
    placed = [
        (float(one.attrib["x"]), float(one.attrib["y"]))
        for one in root.iter("text")
        if one.text and "policy" in one.text
    ]
    assert len(placed) == 6
    for i, (x, y) in enumerate(placed):
        assert all(abs(y - other_y) >= 12 or abs(x - other_x) >= 8 * 6.5 for other_x, other_y in placed[:i])
