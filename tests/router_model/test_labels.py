import math
from dataclasses import replace

import numpy as np
import pytest

from router_model.labels import labels_of
from router_model.outcomes import Outcome

ROW = Outcome("a", "a", "text", 0.0, 1.0)


def test_what_is_not_known_is_nan() -> None:
    rows = [ROW, replace(ROW, weak_score=math.nan, weight=3.0), replace(ROW, large_tokens=7)]
    labels = labels_of(rows)
    np.testing.assert_array_equal(labels.scores, [[0, 1], [math.nan, 1], [0, 1]])
    np.testing.assert_array_equal(labels.tokens, [[math.nan] * 2, [math.nan] * 2, [math.nan, 7]])
    assert labels.is_pair.tolist() == [True, False, True]
    np.testing.assert_array_equal(labels.gains, [1, math.nan, 1])
    assert labels_of([]).scores.shape == (0, 2)


def test_means_count_rows_by_their_weight_and_skip_the_unknown() -> None:
    rows = [ROW, replace(ROW, weak_score=1.0, weight=3.0), replace(ROW, weak_score=math.nan, weight=9.0)]
    assert labels_of(rows).mean(0) == pytest.approx(0.75)
    assert labels_of([replace(ROW, weak_score=math.nan)]).mean(0) == 0.5
    assert labels_of([replace(ROW, weight=0.0)]).mean(1) == 0.5
