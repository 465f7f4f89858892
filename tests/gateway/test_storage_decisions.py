"""What a client's grade may be compared with: the prediction of that very answer, or nothing."""

import pytest

from gateway.storage.decisions import Served

FIELDS = {"p_small": 0.25, "p_large": 0.75}


@pytest.mark.parametrize(
    ("served", "model", "expected"),
    [
        (Served(None, "small", **FIELDS), "small", 0.25),
        (Served(None, "large", **FIELDS), "large", 0.75),
        (Served(None, "small", p_right=0.5, **FIELDS), "small", 0.5),  # judged, and sent for that
        (Served(None, "large", p_right=0.5, escalated=True, **FIELDS), "large", None),
        (Served(None, "large", p_right=0.5, escalated=True, **FIELDS), "small", None),
        (Served(None, "small", **FIELDS), "large", None),  # got elsewhere
        (Served(None, "small"), "small", None),  # by rule
        (Served(None, None, **FIELDS), "small", None),
    ],
)
def test_only_the_answer_that_was_predicted_counts(served: Served, model: str, expected: float | None) -> None:
    assert served.predicted(model) == expected
