"""Routers that several tests look at, trained once."""

import numpy as np
import pytest

from router_model.artefact import RouterArtefact
from router_model.bundle import bundle
from router_model.features import Features, Kind, extract_outcome
from router_model.outcomes import Outcome
from router_model.training import Trained, train
from tests.router_model.worlds import make_outcomes


@pytest.fixture(scope="session")
def outcomes() -> list[Outcome]:
    return make_outcomes(1_200, with_state=True)


@pytest.fixture(scope="session")
def trained(outcomes: list[Outcome]) -> Trained:
    return train(outcomes)


@pytest.fixture(scope="session")
def artefact(trained: Trained, outcomes: list[Outcome]) -> RouterArtefact:
    return bundle(trained, outcomes, small_model="small-1", large_model="large-1")


@pytest.fixture(scope="module")
def requests() -> list[Features]:
    return [extract_outcome(one, Kind.STATE) for one in make_outcomes(300, with_state=True, seed=21)]


@pytest.fixture(scope="module")
def unfamiliar() -> Features:
    return extract_outcome(make_outcomes(1, with_state=True, seed=22, is_shifted=True)[0], Kind.STATE)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
