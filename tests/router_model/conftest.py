"""Routers that several tests look at, trained once."""

import pytest

from router_model.artefact import RouterArtefact
from router_model.bundle import bundle
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
