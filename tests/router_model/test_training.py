import math
from dataclasses import replace

import numpy as np
import pytest

from router_model.features import Kind, extract_outcome
from router_model.metrics import apgr, ece
from router_model.outcomes import Outcome
from router_model.packing import pack_model
from router_model.training import Trained, TrainingOptions, kind_of, labels_of, train
from tests.router_model.worlds import QUICK, make_outcomes


def test_held_out_scores_route_and_are_calibrated(trained: Trained, outcomes: list[Outcome]) -> None:
    labels = labels_of(outcomes).scores
    assert apgr(trained.held_out.score, labels) > 0.6  # 0.656 is what knowing the difficulty itself would reach
    assert ece(trained.held_out.p_small, labels[:, 0]) < 0.06
    assert np.mean(trained.held_out.ood > 1) == pytest.approx(0.01, abs=0.005)


def test_new_prompts_are_routed_as_well_as_held_out_ones(trained: Trained) -> None:
    fresh = make_outcomes(800, with_state=True, seed=9)
    seen = trained.model.predict([extract_outcome(one, Kind.STATE) for one in fresh])
    labels = labels_of(fresh).scores
    assert apgr(seen.score, labels) > 0.6
    assert ece(seen.p_small, labels[:, 0]) < 0.07
    assert np.mean(seen.ood > 1) < 0.05
    for share in (0.2, 0.5, 0.8):
        threshold = np.quantile(trained.held_out.score, 1 - share)
        assert np.mean(seen.score >= threshold) == pytest.approx(share, abs=0.08)


def test_prompts_unlike_the_training_data_are_out_of_domain(trained: Trained) -> None:
    shifted = make_outcomes(100, with_state=True, seed=3, is_shifted=True)
    seen = trained.model.predict([extract_outcome(one, Kind.STATE) for one in shifted])
    assert np.mean(seen.ood > 1) > 0.95
    assert np.isfinite(seen.score).all()


def test_a_text_router_learns_from_text_alone() -> None:
    outcomes = make_outcomes(800, with_state=False)
    trained = train(outcomes, QUICK)
    assert trained.model.encoder.kind is Kind.TEXT
    assert apgr(trained.held_out.score, labels_of(outcomes).scores) > 0.6


def test_expected_tokens_follow_the_recorded_ones(trained: Trained, outcomes: list[Outcome]) -> None:
    labels = labels_of(outcomes)
    for m, expected in enumerate((trained.held_out.small_tokens, trained.held_out.large_tokens)):
        assert expected is not None
        assert np.corrcoef(expected, labels.tokens[:, m])[0, 1] > 0.8
        assert expected.mean() == pytest.approx(labels.tokens[:, m].mean(), rel=0.05)


def test_outcomes_without_token_counts_train_no_token_head() -> None:
    outcomes = make_outcomes(100, with_state=False)
    bare = [Outcome(o.id, o.group, o.text, o.weak_score, o.strong_score) for o in outcomes]
    assert train(bare, QUICK).held_out.small_tokens is None


def test_the_same_seed_gives_the_same_router_and_noise_labels_give_no_gain() -> None:
    rng = np.random.default_rng(5)
    noise = [
        Outcome(o.id, o.group, o.text, float(rng.random() < 0.5), float(rng.random() < 0.8), o.facts, o.state)
        for o in make_outcomes(600, with_state=True)
    ]
    options = TrainingOptions(seed=4, forest=QUICK.forest)
    one, two = train(noise, options), train(noise, options)
    np.testing.assert_array_equal(one.held_out.score, two.held_out.score)
    for ours, theirs in zip(pack_model(one.model)[0].values(), pack_model(two.model)[0].values(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # A leak from held-out labels into scores would show here.
    assert apgr(one.held_out.score, labels_of(noise).scores) == pytest.approx(0.5, abs=0.08)


def one_sided(outcomes: list[Outcome], seed: int = 0) -> list[Outcome]:
    """The own log: of each request only one model's answer was graded, small in a quarter of them."""
    is_small = np.random.default_rng(seed).random(len(outcomes)) < 0.25
    return [
        replace(one, strong_score=math.nan, weight=4.0) if small else replace(one, weak_score=math.nan, weight=4 / 3)
        for one, small in zip(outcomes, is_small, strict=True)
    ]


def test_rows_with_one_models_score_train_a_router_that_is_calibrated_for_both() -> None:
    log = make_outcomes(2_000, with_state=True, seed=6)
    trained = train(one_sided(log), QUICK)
    labels = labels_of(log).scores
    assert apgr(trained.held_out.score, labels) > 0.58
    assert np.isfinite(trained.held_out.score).all()
    for side, p in enumerate((trained.held_out.p_small, trained.held_out.p_large)):
        assert p.mean() == pytest.approx(labels[:, side].mean(), abs=0.04)


def test_some_pairs_among_one_sided_rows_are_used_as_pairs() -> None:
    log = make_outcomes(1_200, with_state=True, seed=7)
    trained = train([*log[:600], *one_sided(log[600:])], QUICK)
    assert apgr(trained.held_out.score, labels_of(log).scores) > 0.6


def test_a_row_without_weight_changes_nothing_that_labels_decide() -> None:
    outcomes = make_outcomes(400, with_state=True)
    lying = [replace(one, weak_score=1 - one.weak_score, strong_score=0.0, weight=0.0) for one in outcomes[:100]]
    honest = [replace(one, weight=0.0) for one in outcomes[:100]]
    one, two = (train([*rows, *outcomes[100:]], QUICK).model for rows in (lying, honest))
    for ours, theirs in zip(pack_model(one)[0].values(), pack_model(two)[0].values(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_log_of_packed_features_trains_the_router_that_its_requests_would() -> None:
    outcomes = make_outcomes(400, with_state=True)
    log = [replace(one, text="", state=None, features=extract_outcome(one, Kind.STATE).pack()) for one in outcomes]
    assert kind_of(log) is Kind.STATE
    whole, packed = (train(rows, QUICK).held_out.score for rows in (outcomes, log))
    assert np.corrcoef(whole, packed)[0, 1] > 0.95


def test_a_kind_of_traffic_gets_its_own_calibration() -> None:
    rng = np.random.default_rng(3)
    outcomes = [
        replace(one, route=("easy", "hard")[i % 2], weak_score=float(rng.random() < (0.9, 0.2)[i % 2]))
        for i, one in enumerate(make_outcomes(800, with_state=False))
    ]
    trained = train(outcomes, QUICK)
    assert trained.held_out.p_small[::2].mean() == pytest.approx(0.9, abs=0.08)
    assert trained.held_out.p_small[1::2].mean() == pytest.approx(0.2, abs=0.08)  # shrunk towards everyone
    features = [extract_outcome(one, Kind.TEXT) for one in outcomes[:2]]
    easy, unknown, none = (
        trained.model.predict(features, routes).p_small[0] for routes in (["easy"] * 2, ["?"] * 2, ())
    )
    assert easy > unknown == none
    with pytest.raises(ValueError, match="1 routes were given for 2 requests"):
        trained.model.predict(features, ["easy"])


def test_the_score_is_the_difference_of_the_probabilities(trained: Trained) -> None:
    seen = trained.held_out
    np.testing.assert_array_equal(seen.score, seen.p_large - seen.p_small)


def test_far_from_the_training_data_only_length_counts() -> None:
    outcomes = make_outcomes(800, with_state=True)
    model = train(outcomes, QUICK).model
    labels = labels_of(outcomes)
    shifted = [
        replace(one, text=text)
        for one in make_outcomes(60, with_state=True, seed=3, is_shifted=True)
        for text in ("abc " * 5, "abc " * 50)
    ]
    seen = model.predict([extract_outcome(one, Kind.STATE) for one in shifted])
    assert (seen.ood > 1.5).all()
    short, long = seen.p_small[::2], seen.p_small[1::2]
    np.testing.assert_allclose(short, short[0])
    np.testing.assert_allclose(long, long[0])
    assert short[0] > labels.mean(0) > long[0]  # in this world long requests are hard


@pytest.mark.parametrize("scores", [(1.0, 1.0), (0.0, 0.0)])
def test_rows_on_which_every_answer_is_alike_train_a_router_that_expects_no_gain(scores: tuple[float, float]) -> None:
    rows = [replace(one, weak_score=scores[0], strong_score=scores[1]) for one in make_outcomes(120, with_state=True)]
    trained = train(rows, QUICK)
    np.testing.assert_allclose(trained.held_out.score, 0.0, atol=1e-6)
    np.testing.assert_allclose(trained.held_out.p_small, scores[0], atol=0.01)


def test_pairs_without_weight_teach_no_gain() -> None:
    rows = make_outcomes(120, with_state=True)
    rows = [replace(one, weight=0.0) if i % 2 else replace(one, strong_score=math.nan) for i, one in enumerate(rows)]
    rows += [replace(one, weak_score=math.nan) for one in make_outcomes(60, with_state=True, seed=1)]
    assert np.isfinite(train(rows, QUICK).held_out.score).all()


def test_without_any_score_of_one_model_there_is_no_router() -> None:
    outcomes = [replace(one, strong_score=math.nan) for one in make_outcomes(100, with_state=False)]
    with pytest.raises(ValueError, match="no outcome has a score of the large model"):
        train(outcomes)


def test_outcomes_that_cannot_train_a_router_are_refused() -> None:
    outcomes = make_outcomes(100, with_state=True)
    with pytest.raises(ValueError, match="too few"):
        kind_of(outcomes[:49])
    bare = [Outcome(o.id, o.group, o.text, o.weak_score, o.strong_score) for o in outcomes[:50]]
    with pytest.raises(ValueError, match="50 of 100 outcomes have a prefill state"):
        kind_of([*bare, *outcomes[50:]])
    with pytest.raises(ValueError, match="l2_grid is empty"):
        train(outcomes, TrainingOptions(l2_grid=()))


def test_what_never_varied_in_training_makes_nothing_unfamiliar(trained: Trained) -> None:
    outcomes = make_outcomes(40, with_state=True, seed=9)
    limited = [replace(one, facts=replace(one.facts, max_tokens=300)) for one in outcomes]  # training had no limits
    seen, same = (
        trained.model.predict([extract_outcome(one, Kind.STATE) for one in rows]) for rows in (outcomes, limited)
    )
    np.testing.assert_array_equal(seen.ood, same.ood)
    np.testing.assert_array_equal(seen.score, same.score)
