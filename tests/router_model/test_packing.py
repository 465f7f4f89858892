from dataclasses import replace

import msgspec
import numpy as np
import pytest

from router_model.features import Kind, extract_cheap, extract_outcome
from router_model.outcomes import Outcome
from router_model.packing import pack_front, pack_model, unpack_front, unpack_model, with_prefix, without_prefix
from router_model.training import Trained, train
from tests.router_model.worlds import QUICK, make_outcomes


@pytest.mark.parametrize("with_state", [True, False])
def test_an_unpacked_model_predicts_what_the_packed_one_did(with_state: bool) -> None:
    outcomes = [
        replace(one, route=("a", "b")[i % 2]) for i, one in enumerate(make_outcomes(200, with_state=with_state))
    ]
    model = train(outcomes, QUICK).model
    arrays, meta = pack_model(model)
    again = unpack_model(arrays, msgspec.json.decode(msgspec.json.encode(meta)))
    features = [extract_outcome(one, model.encoder.kind) for one in outcomes]
    for routes in ((), ["a"] * 200):
        before, after = model.predict(features, routes), again.predict(features, routes)
        for name in ("p_small", "p_large", "ood", "score", "small_tokens", "large_tokens"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def test_a_model_that_lacks_an_array_is_refused(trained: Trained) -> None:
    arrays, meta = pack_model(trained.model)
    for missing in ("heads.gain", "forest.child", "encoder.state.centre"):
        with pytest.raises(KeyError):
            unpack_model({name: array for name, array in arrays.items() if name != missing}, meta)


def test_a_front_model_packs_and_unpacks_to_itself(trained: Trained, outcomes: list[Outcome]) -> None:
    assert trained.front is not None
    arrays, meta = pack_front(trained.front)
    again = unpack_front(arrays, msgspec.json.decode(msgspec.json.encode(meta)))
    features = extract_cheap(outcomes[0].text, outcomes[0].facts)
    assert again.bounds(features) == trained.front.bounds(features)
    with pytest.raises(TypeError, match="int has no packed form"):
        pack_front(3)


def test_only_a_router_of_kind_state_has_a_front_model(trained: Trained) -> None:
    assert trained.model.encoder.kind is Kind.STATE
    assert train(make_outcomes(150, with_state=False), QUICK).front is None


def test_a_prefix_comes_off_as_it_went_on() -> None:
    arrays = {"a": np.zeros(2), "b.c": np.ones(3)}
    together = with_prefix("x.", arrays) | with_prefix("y.", arrays)
    assert without_prefix("x.", together).keys() == arrays.keys()
