from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from router_model import promotion
from router_model.artefact import RouterArtefact
from router_model.bundle import bundle, recalibrate
from router_model.group_draws import GroupDraws
from router_model.logistic import Floats
from router_model.metrics import apgr
from router_model.outcomes import Outcome
from router_model.promotion import PromotionRefused, _ranking, apgr_difference, compare
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
    assert same.apgr.value == 0
    assert same.apgr.lower == -same.apgr.upper
    assert -0.05 < same.apgr.lower < 0, "it may differ on requests that were not seen"
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


def test_rows_that_either_router_was_trained_on_are_left_out_and_counted(
    artefact: RouterArtefact, worse: RouterArtefact, outcomes: list[Outcome], graded: list[Outcome]
) -> None:
    own = compare(artefact, worse, graded)
    for candidate, incumbent in ((artefact, worse), (worse, artefact)):
        with pytest.raises(ValueError, match=r"^0 graded requests .* beside 1200 that one of the routers"):
            compare(candidate, incumbent, outcomes)
    mixed = compare(artefact, worse, [*outcomes[:400], *graded])
    assert (mixed.n_rows, mixed.n_learned, mixed.unchecked) == (1_000, 400, ())
    assert mixed.apgr == own.apgr


def test_a_router_that_does_not_say_what_it_was_trained_on_is_named(
    artefact: RouterArtefact, worse: RouterArtefact, outcomes: list[Outcome]
) -> None:
    older = replace(artefact, learned=None)
    found = compare(older, worse, outcomes)
    assert (found.n_rows, found.n_learned, found.unchecked) == (1_200, 0, (older.hash,))


def test_a_recalibration_was_trained_on_its_own_rows_and_on_those_before(
    artefact: RouterArtefact, worse: RouterArtefact, outcomes: list[Outcome], graded: list[Outcome]
) -> None:
    again = recalibrate(artefact, graded[:500])
    assert compare(again, worse, [*outcomes, *graded]).n_learned == 1_200 + 500
    assert compare(again, worse, [*outcomes, *graded]).n_rows == 500
    assert recalibrate(replace(artefact, learned=None), graded).learned is None


def test_rows_count_by_their_weight(
    artefact: RouterArtefact, worse: RouterArtefact, graded: list[Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of weight 3 is three rows of one group, and one of weight 0 is none."""
    some = graded[:300]

    def alone(router: RouterArtefact, rows: Sequence[Outcome], embed: None) -> tuple[Floats, NDArray[np.bool_]]:
        """One by one: the last digits of predictions depend on the batch, and with them what is a tie."""
        found = [_ranking(router, [row], embed) for row in rows]
        return np.concatenate([one for one, _ in found]), np.concatenate([is_far for _, is_far in found])

    monkeypatch.setattr(promotion, "_ranking", alone)
    weighted = [replace(row, weight=(1.0, 3.0)[i % 2]) for i, row in enumerate(some)]
    repeated = [replace(row, weight=1.0) for row in weighted for _ in range(int(row.weight))]
    one, two = compare(artefact, worse, weighted), compare(artefact, worse, repeated)
    assert one.apgr is not None
    assert two.apgr is not None
    assert one.apgr.value == pytest.approx(two.apgr.value)
    assert one.apgr.lower == pytest.approx(two.apgr.lower, abs=5e-4)
    plain = compare(artefact, worse, some)
    assert plain.apgr is not None
    assert one.apgr.value != pytest.approx(plain.apgr.value, abs=1e-3)
    assert compare(artefact, worse, [replace(row, weight=7.0) for row in some]) == plain, "only ratios count"
    assert compare(artefact, worse, [*some, *(replace(row, weight=0.0) for row in graded[300:])]) == plain


def test_a_difference_is_that_of_the_two_areas() -> None:
    rng = np.random.default_rng(0)
    labels = np.stack([rng.random(400) < 0.4, rng.random(400) < 0.8], axis=1).astype(float)
    new, old = np.round(rng.random((2, 400)) + 0.3 * (labels[:, 1] - labels[:, 0]), 1)
    weights = GroupDraws(np.arange(400))
    drawn = list(weights.draw(rng, 50))
    found = apgr_difference(new, old, labels[:, 1] - labels[:, 0], weights.rows, drawn)
    assert found is not None
    assert found.value == pytest.approx(apgr(new, labels) - apgr(old, labels))
    assert found.lower < found.value < found.upper


@pytest.mark.parametrize(("n", "needed"), [(100, 5), (100, 30), (300, 8)])
def test_a_ranking_that_knows_nothing_is_measurably_better_in_five_of_a_hundred_comparisons_at_most(
    n: int, needed: int
) -> None:
    """Only `needed` of the rows tell the two apart, and few draws miss them all."""
    rng = np.random.default_rng(n + needed)
    wins = 0
    for _ in range(400):
        gains = (rng.permutation(n) < needed).astype(float)
        new, old = rng.random((2, n))
        weights = GroupDraws(np.arange(n))
        found = apgr_difference(new, old, gains, weights.rows, list(weights.draw(rng, 199)))
        wins += found is not None and found.lower > 0
    # 34 of 400 or more have probability 0.001 where 5 % are due.
    assert wins <= 33


def test_without_a_measurable_lead_of_the_large_model_no_router_is_better(
    artefact: RouterArtefact, worse: RouterArtefact, graded: list[Outcome]
) -> None:
    equal = [replace(row, weak_score=1.0, strong_score=1.0) for row in graded]
    turned = [replace(row, weak_score=row.strong_score, strong_score=row.weak_score) for row in graded]
    for rows in (equal, turned):
        found = compare(artefact, worse, rows)
        assert found.apgr is None
        with pytest.raises(PromotionRefused, match="the large model is not measurably better there"):
            found.require()
