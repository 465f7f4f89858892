from dataclasses import replace

import pytest

from router_model.artefact import RouterArtefact
from router_model.bundle import bundle
from router_model.outcomes import Outcome
from router_model.promotion import PromotionRefused, compare
from router_model.training import train
from tests.router_model.worlds import QUICK, make_outcomes


@pytest.fixture(scope="module")
def graded() -> list[Outcome]:
    return make_outcomes(1_000, with_state=True, seed=41)


@pytest.fixture(scope="module")
def worse() -> RouterArtefact:
    """Trained on labels that mean nothing."""
    rows = make_outcomes(300, with_state=True, seed=42)
    mixed = [
        replace(row, weak_score=other.weak_score, strong_score=other.strong_score)
        for row, other in zip(rows, rows[150:] + rows[:150], strict=True)
    ]
    return bundle(train(mixed, QUICK), mixed)


def test_a_better_router_is_promoted_and_a_worse_one_refused(
    artefact: RouterArtefact, worse: RouterArtefact, graded: list[Outcome]
) -> None:
    up, down = compare(artefact, worse, graded), compare(worse, artefact, graded)
    assert up.apgr is not None
    assert down.apgr is not None
    assert up.is_better
    assert up.apgr.lower > 0
    up.require()
    assert not down.is_better
    assert down.apgr.value == pytest.approx(-up.apgr.value)
    assert set(down.quality) == {"auto", "auto-quality", "auto-cost"}
    with pytest.raises(PromotionRefused, match=r"not measurably better .* on 1000 graded requests: APGR differs by -0"):
        down.require()


def test_an_equal_router_is_not_better(artefact: RouterArtefact, graded: list[Outcome]) -> None:
    same = compare(artefact, artefact, graded)
    assert same.apgr is not None
    assert (same.apgr.value, same.apgr.lower, same.apgr.upper) == (0, 0, 0)
    assert not same.is_better


def test_rows_that_one_model_answered_do_not_count(
    artefact: RouterArtefact, worse: RouterArtefact, graded: list[Outcome]
) -> None:
    half = [replace(row, weak_score=float("nan")) if i % 2 else row for i, row in enumerate(graded)]
    assert compare(artefact, worse, half).n_rows == 500
    with pytest.raises(ValueError, match="a comparison needs 100"):
        compare(artefact, worse, half[:150])


def test_a_comparison_is_the_same_each_time(
    artefact: RouterArtefact, worse: RouterArtefact, graded: list[Outcome]
) -> None:
    assert compare(artefact, worse, graded, n_draws=50) == compare(artefact, worse, graded, n_draws=50)
