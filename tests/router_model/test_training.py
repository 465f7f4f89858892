import numpy as np
import pytest

from router_model.features import Kind, extract_outcome
from router_model.metrics import apgr, ece
from router_model.outcomes import Outcome
from router_model.training import Trained, TrainingOptions, kind_of, labels_of, train
from tests.router_model.worlds import make_outcomes


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
    point = trained.curve.point_for(0.8)
    assert np.mean(seen.score >= point.threshold) == pytest.approx(point.share, abs=0.08)


def test_prompts_unlike_the_training_data_are_out_of_domain(trained: Trained) -> None:
    shifted = make_outcomes(100, with_state=True, seed=3, is_shifted=True)
    seen = trained.model.predict([extract_outcome(one, Kind.STATE) for one in shifted])
    assert np.mean(seen.ood > 1) > 0.95
    assert np.isfinite(seen.score).all()


def test_a_text_router_learns_from_text_alone() -> None:
    outcomes = make_outcomes(800, with_state=False)
    trained = train(outcomes)
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
    assert train(bare).held_out.small_tokens is None


def test_the_same_seed_gives_the_same_router_and_noise_labels_give_no_gain() -> None:
    rng = np.random.default_rng(5)
    noise = [
        Outcome(o.id, o.group, o.text, float(rng.random() < 0.5), float(rng.random() < 0.8), o.facts, o.state)
        for o in make_outcomes(600, with_state=True)
    ]
    one, two = train(noise, TrainingOptions(seed=4)), train(noise, TrainingOptions(seed=4))
    np.testing.assert_array_equal(one.held_out.score, two.held_out.score)
    np.testing.assert_array_equal(one.curve.lower, two.curve.lower)
    # A leak from held-out labels into scores would show here.
    assert apgr(one.held_out.score, labels_of(noise).scores) == pytest.approx(0.5, abs=0.08)


def test_outcomes_that_cannot_train_a_router_are_refused() -> None:
    outcomes = make_outcomes(100, with_state=True)
    with pytest.raises(ValueError, match="too few"):
        kind_of(outcomes[:49])
    bare = [Outcome(o.id, o.group, o.text, o.weak_score, o.strong_score) for o in outcomes[:50]]
    with pytest.raises(ValueError, match="50 of 100 outcomes have a prefill state"):
        kind_of([*bare, *outcomes[50:]])
    with pytest.raises(ValueError, match="l2_grid is empty"):
        train(outcomes, TrainingOptions(l2_grid=()))
