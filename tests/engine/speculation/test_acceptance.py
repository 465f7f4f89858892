"""Estimates of acceptance against coins whose truth is known."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.speculation.acceptance import Acceptance, Trust
from engine.speculation.proposer import Source

BELIEFS = (0.02, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)
"""One in each bin."""


def observe(acceptance: Acceptance, belief: float, p: float, n: int, trust: Trust, draw: random.Random) -> None:
    for _ in range(n):
        acceptance.observe(Source.DRAFT_MODEL, belief, draw.random() < p, trust)


@pytest.mark.parametrize("belief", BELIEFS)
@pytest.mark.parametrize("p", [0.05, 0.5, 0.95])
def test_an_estimate_comes_to_what_is_accepted_whatever_was_believed(belief: float, p: float) -> None:
    acceptance, draw = Acceptance(), random.Random(f"{belief} {p}")
    for _ in range(20):  # many requests
        observe(acceptance, belief, p, 40, Trust(), draw)
    assert acceptance.estimate(Source.DRAFT_MODEL, belief, Trust()) == pytest.approx(p, abs=0.12)


def test_estimates_are_calibrated_where_every_belief_means_something_else() -> None:
    acceptance, draw = Acceptance(), random.Random(3)
    estimated, accepted = [0.0] * len(BELIEFS), [0] * len(BELIEFS)
    n = 2000
    for step in range(len(BELIEFS) * (n + 300)):
        i = step % len(BELIEFS)
        trust, truth = Trust(), BELIEFS[i] ** 2
        happens = draw.random() < truth
        if step >= len(BELIEFS) * 300:
            estimated[i] += acceptance.estimate(Source.NGRAM, BELIEFS[i], trust)
            accepted[i] += happens
        acceptance.observe(Source.NGRAM, BELIEFS[i], happens, trust)
    for i, belief in enumerate(BELIEFS):
        assert estimated[i] / n == pytest.approx(accepted[i] / n, abs=0.02), belief


def test_without_observations_a_proposer_is_believed() -> None:
    for belief in BELIEFS:
        assert Acceptance().estimate(Source.HEADS, belief, Trust()) == pytest.approx(belief)


def test_sources_are_told_apart() -> None:
    acceptance = Acceptance()
    observe(acceptance, 0.7, 0.0, 200, Trust(), random.Random(0))
    assert acceptance.estimate(Source.DRAFT_MODEL, 0.7, Trust()) < 0.05
    assert acceptance.expected(Source.DRAFT_MODEL) < 0.05
    assert acceptance.estimate(Source.NGRAM, 0.7, Trust()) == pytest.approx(0.7)


def test_an_estimate_follows_an_acceptance_that_changes() -> None:
    acceptance, draw = Acceptance(), random.Random(1)
    for p in (0.9, 0.2, 0.9):
        observe(acceptance, 0.7, p, 1000, Trust(), draw)
        assert acceptance.estimate(Source.DRAFT_MODEL, 0.7, Trust()) == pytest.approx(p, abs=0.12)
        assert acceptance.expected(Source.DRAFT_MODEL) == pytest.approx(p, abs=0.12)


def test_a_request_that_differs_from_the_others_is_soon_known_by_its_own() -> None:
    acceptance, draw = Acceptance(), random.Random(2)
    for truth in (0.1, 0.95):
        odd = Trust()
        for _ in range(40):
            observe(acceptance, 0.6, 0.5, 32, Trust(), draw)
        for _ in range(60):  # beside nine others
            observe(acceptance, 0.6, 0.5, 9, Trust(), draw)
            observe(acceptance, 0.6, truth, 1, odd, draw)
        assert acceptance.estimate(Source.DRAFT_MODEL, 0.6, odd) == pytest.approx(truth, abs=0.2)
        assert acceptance.estimate(Source.DRAFT_MODEL, 0.6, Trust()) == pytest.approx(0.5, abs=0.15)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=200), st.floats(0, 1))
def test_an_estimate_is_a_probability_and_more_acceptances_never_lower_it(
    seen: list[tuple[float, bool]], belief: float
) -> None:
    acceptance, trust = Acceptance(), Trust()
    for seen_belief, is_accepted in seen:
        acceptance.observe(Source.PREDICTION, seen_belief, is_accepted, trust)
    estimate = acceptance.estimate(Source.PREDICTION, belief, trust)
    assert 0.0 <= estimate <= 1.0
    assert 0.0 <= acceptance.expected(Source.PREDICTION, trust) <= 1.0
    acceptance.observe(Source.PREDICTION, belief, True, Trust())
    assert acceptance.estimate(Source.PREDICTION, belief, trust) >= estimate - 1e-9
