import numpy as np
import pytest

from router_model.facts import RequestFacts
from router_model.features import Features, Kind, extract_cheap
from router_model.front import MIN_ROWS, FrontModel
from router_model.training import Trained
from tests.router_model.worlds import make_outcomes


def front_of(trained: Trained) -> FrontModel:
    assert trained.front is not None
    return trained.front


def test_the_main_score_of_new_requests_lies_outside_its_bounds_as_rarely_as_promised(trained: Trained) -> None:
    from router_model.features import extract_outcome

    fresh = make_outcomes(1_000, with_state=True, seed=21)
    scores = trained.model.predict([extract_outcome(one, Kind.STATE) for one in fresh]).score
    low, high = front_of(trained).bounds_all([extract_cheap(one.text, one.facts) for one in fresh])
    assert np.mean((scores < low) | (scores > high)) < 0.08
    assert np.mean(scores < low) < 0.05


def test_bounds_tell_requests_apart_and_are_narrower_than_knowing_nothing(trained: Trained) -> None:
    low, high = front_of(trained).bounds_all(
        [extract_cheap(one.text, one.facts) for one in make_outcomes(300, with_state=True)]
    )
    assert (low <= high).all()
    assert np.median(high - low) < 0.8 * np.ptp(trained.held_out.score)
    assert low.std() > 0.02


def test_one_request_has_the_bounds_that_it_has_among_many(trained: Trained) -> None:
    features = [extract_cheap(one.text, one.facts) for one in make_outcomes(20, with_state=False)]
    low, high = front_of(trained).bounds_all(features)
    assert front_of(trained).bounds(features[7]) == (low[7], high[7])
    rng = np.random.default_rng(0)
    front = front_of(trained)
    for spread in (0.1, 1.0, 3.0):
        rows = front.mean + spread * front.scale * rng.normal(size=(30, len(front.mean)))
        made_up = [Features(Kind.TEXT, row.astype(np.float32)) for row in rows]
        np.testing.assert_allclose([front.bounds(one) for one in made_up], np.stack(front.bounds_all(made_up), 1))


def test_of_a_request_unlike_the_training_data_nothing_is_known(trained: Trained) -> None:
    strange = extract_cheap("<b>{};</b> " * 500, RequestFacts(n_tools=400, schema_depth=30))
    assert front_of(trained).bounds(strange) == (-1, 1)


def test_errors_that_grow_with_a_feature_widen_the_bounds_there() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3_000, 5)).astype(np.float32)
    scores = 0.2 * x[:, 0] + rng.normal(size=3_000) * np.where(x[:, 1] > 0, 0.2, 0.02)
    features = [Features(Kind.TEXT, row) for row in x]
    front = FrontModel.fit(features, np.clip(scores, -1, 1), np.arange(3_000) % 5)
    assert front is not None
    low, high = front.bounds_all(features)
    width = high - low
    assert np.median(width[x[:, 1] > 0.5]) > 2 * np.median(width[x[:, 1] < -0.5])
    assert np.mean((scores < low) | (scores > high)) == pytest.approx(0.05, abs=0.01)


def test_too_few_rows_give_no_front_model() -> None:
    features = [Features(Kind.TEXT, np.zeros(3, np.float32))] * (MIN_ROWS - 1)
    assert FrontModel.fit(features, np.zeros(MIN_ROWS - 1), np.arange(MIN_ROWS - 1) % 5) is None
