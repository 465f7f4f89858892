from dataclasses import replace

import numpy as np
import pytest

from router_model.cascade import MIN_ANSWERS, Answer, CascadeModel, answer_of, fit_cascade
from router_model.metrics import auroc, ece
from router_model.outcomes import Outcome
from router_model.packing import pack_cascade, unpack_cascade
from router_model.training import train
from tests.router_model.worlds import QUICK, make_outcomes


def with_answers(outcomes: list[Outcome], seed: int = 0) -> list[Outcome]:
    """Wrong answers miscalculate in two of three cases; log probabilities tell a little."""
    rng = np.random.default_rng(seed)
    answered = []
    for one in outcomes:
        is_right = one.weak_score > 0.5
        a, b = (int(n) for n in rng.integers(2, 50, 2))
        told = a + b + (0 if is_right or rng.random() < 1 / 3 else 7)
        answered.append(
            replace(
                one,
                weak_response=f"We need {a} + {b} = <<{a}+{b}={told}>>{told}.\n#### {told}",
                small_logprob_mean=float(-0.5 - 0.3 * (not is_right) + 0.3 * rng.normal()),
            )
        )
    return answered


@pytest.fixture(scope="module")
def answered() -> list[Outcome]:
    return with_answers(make_outcomes(900, with_state=False))


@pytest.fixture(scope="module")
def fitted(answered: list[Outcome]) -> tuple[CascadeModel, np.ndarray]:
    p = np.full(len(answered), 0.6)
    model, right = fit_cascade(answered, p, p + 0.3, np.arange(len(answered)) // 2 % 5)
    assert model is not None
    assert right is not None
    return model, right


def test_held_out_probabilities_find_wrong_answers_and_are_calibrated(
    answered: list[Outcome], fitted: tuple[CascadeModel, np.ndarray]
) -> None:
    is_right = np.array([one.weak_score for one in answered])
    assert auroc(fitted[1], is_right > 0.5) > 0.85
    assert ece(fitted[1], is_right) < 0.06


def test_an_answer_that_miscalculates_is_trusted_less(fitted: tuple[CascadeModel, np.ndarray]) -> None:
    good = Answer(text="We need 3 + 4 = <<3+4=7>>7.\n#### 7", n_tokens=9, logprob_mean=-0.5)
    bad = Answer(text="We need 3 + 4 = <<3+4=9>>9.\n#### 9", n_tokens=9, logprob_mean=-0.5)
    assert fitted[0].p_right(0.6, 0.9, good) > fitted[0].p_right(0.6, 0.9, bad) + 0.3


def test_new_answers_are_judged_as_held_out_ones_are(fitted: tuple[CascadeModel, np.ndarray]) -> None:
    fresh = with_answers(make_outcomes(500, with_state=False, seed=8), seed=9)
    judged = np.array([fitted[0].p_right(0.6, 0.9, answer) for one in fresh if (answer := answer_of(one)) is not None])
    is_right = np.array([one.weak_score for one in fresh])
    assert auroc(judged, is_right > 0.5) > 0.85
    assert ece(judged, is_right) < 0.08


def test_training_adds_a_cascade_where_rows_have_answers(answered: list[Outcome]) -> None:
    some = [
        one if i % 3 else replace(one, weak_response=None, small_logprob_mean=None) for i, one in enumerate(answered)
    ]
    trained = train(some, QUICK)
    assert trained.cascade is not None
    assert trained.held_out_right is not None
    np.testing.assert_array_equal(np.isnan(trained.held_out_right), np.arange(len(some)) % 3 == 0)
    assert train(some[::3], QUICK).cascade is None


def test_what_was_known_of_the_request_counts_beside_the_answer() -> None:
    outcomes = with_answers(make_outcomes(900, with_state=False))
    p = (
        np.array([0.9 if one.weak_score > 0.5 else 0.3 for one in outcomes])
        + np.random.default_rng(0).normal(size=900) * 0.1
    )
    p = np.clip(p, 0.01, 0.99)
    model, _ = fit_cascade(outcomes, p, p, np.arange(900) % 5)
    assert model is not None
    answer = Answer(text="It is so.", n_tokens=3)
    assert model.p_right(0.9, 0.9, answer) > model.p_right(0.3, 0.3, answer)


def test_rows_without_text_but_with_log_probabilities_are_answers_too() -> None:
    bare = Outcome("a", "a", "t", 1, 1)
    assert answer_of(bare) is None
    logged = answer_of(
        replace(bare, small_logprob_mean=-0.2, small_logprob_min=-3.0, small_valid=False, small_tokens=12)
    )
    assert logged == Answer(text="", n_tokens=12, logprob_mean=-0.2, logprob_min=-3.0, is_valid=False)


def test_too_few_answers_teach_nothing() -> None:
    outcomes = with_answers(make_outcomes(MIN_ANSWERS - 1, with_state=False))
    p = np.full(len(outcomes), 0.5)
    assert fit_cascade(outcomes, p, p, np.arange(len(outcomes)) % 5) == (None, None)


def test_a_cascade_packs_and_unpacks_to_itself(fitted: tuple[CascadeModel, np.ndarray]) -> None:
    again = unpack_cascade(*pack_cascade(fitted[0]))
    answer = Answer(text="2 + 2 = 5", n_tokens=5)
    assert again.p_right(0.4, 0.8, answer) == fitted[0].p_right(0.4, 0.8, answer)
    with pytest.raises(TypeError, match="str has no packed form"):
        pack_cascade("")
