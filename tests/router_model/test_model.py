from dataclasses import replace

import numpy as np
import pytest

from router_model.calibration import CalibrationMap, Method, RouteMaps
from router_model.cheap import NAMES
from router_model.features import Features, Kind
from router_model.model import Prediction, Predictions, RouterModel
from router_model.recalibration import Recalibration
from router_model.static_embedding import StaticVectors
from router_model.training import Trained, train
from tests.router_model.worlds import QUICK, make_outcomes

WIDTH = 32
"""Numbers of the state of one of `make_outcomes`' prompts."""

ROUTES = {"sql": (CalibrationMap(Method.PLATT, np.zeros(0), np.array([-0.5, 1.4])), 0.3)}


def with_routes(maps: RouteMaps) -> RouteMaps:
    return replace(maps, by_route=ROUTES)


def assert_same(one: Prediction, many: Predictions) -> None:
    """The prediction of a request alone, by both ways."""
    for name in ("p_small", "p_large", "ood", "score", "small_tokens", "large_tokens"):
        value, column = getattr(one, name), getattr(many, name)
        assert (value is None) == (column is None), name
        if value is not None:
            assert value == pytest.approx(float(column[0]), rel=1e-9, abs=1e-9), name


@pytest.fixture(scope="module")
def of_text() -> RouterModel:
    return train(make_outcomes(300, with_state=False), QUICK).model


def made_up(kind: Kind, model: RouterModel, seed: int, spread: float) -> Features:
    """Features around those of training, as many deviations away as `spread` says, and some parts missing."""
    rng = np.random.default_rng(seed)

    def vector(width: int) -> np.ndarray:
        return (rng.normal(size=width) * (rng.random() > 0.2) * spread).astype(np.float32)

    plain = model.encoder.plain_mean + vector(len(model.encoder.plain_mean)) * np.minimum(model.encoder.plain_scale, 9)
    cheap, few = plain[: len(NAMES)].astype(np.float32), plain[len(NAMES) :].astype(np.float32)
    if kind is Kind.STATE:
        return Features(kind, cheap, vector(WIDTH).reshape(4, -1), first_token=few)
    stem, options = (vector(len(model.encoder.dense[name].mean)) for name in ("stem", "options"))
    return Features(kind, cheap, vectors=StaticVectors(stem=stem, options=options, shape=few))


@pytest.mark.parametrize("kind", [Kind.STATE, Kind.TEXT])
@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0, 30.0])
@pytest.mark.parametrize("route", ["", "sql", "unknown"])
def test_a_request_by_itself_is_predicted_as_it_is_in_a_matrix(
    trained: Trained, of_text: RouterModel, kind: Kind, spread: float, route: str
) -> None:
    model = trained.model if kind is Kind.STATE else of_text
    for seed in range(40):
        features = made_up(kind, model, seed, spread)
        assert_same(model.predict_one(features, route), model.predict([features], [route]))
        maps = model.calibrated
        routed = replace(
            model,
            calibrated=replace(maps, small_map=with_routes(maps.small_map), large_map=with_routes(maps.large_map)),
        )
        seen = routed.predict([features], [route])
        assert_same(routed.predict_one(features, route), seen)
        again = Recalibration(with_routes(maps.large_map), maps.small_map, 1.5)
        assert_same(again.apply_one(routed.predict_one(features, route), route), again.apply(seen, [route]))


def test_a_route_with_a_map_of_its_own_is_predicted_by_it(trained: Trained) -> None:
    model = trained.model
    routed = replace(model, calibrated=replace(model.calibrated, small_map=with_routes(model.calibrated.small_map)))
    features = made_up(Kind.STATE, model, 1, 0.3)
    assert routed.predict_one(features, "sql").p_small != routed.predict_one(features).p_small


def test_without_token_counts_no_lengths_are_expected(trained: Trained) -> None:
    model = replace(trained.model, heads=replace(trained.model.heads, tokens=None))
    features = made_up(Kind.STATE, model, 0, 1.0)
    assert_same(model.predict_one(features), model.predict([features]))
    assert model.predict_one(features).small_tokens is None


def test_a_request_of_another_kind_is_refused_by_itself_too(trained: Trained, of_text: RouterModel) -> None:
    with pytest.raises(ValueError, match="another kind"):
        trained.model.predict_one(made_up(Kind.TEXT, of_text, 0, 1.0))
