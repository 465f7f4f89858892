import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_model.ttft import MIN_SEEN, LoadSnapshot, TtftModel

COEFFICIENTS = st.tuples(*[st.floats(0, 0.01)] * 3, *[st.floats(0, 5e-4)] * 2)
Law = tuple[float, float, float, float, float]


def seconds(law: Law, load: LoadSnapshot, prompt_tokens: int) -> float:
    waiting, running, rows, prefill, own = law
    return (
        0.01
        + waiting * load.waiting
        + running * load.running
        + rows * load.decode_rows
        + prefill * load.prefill_tokens
        + own * prompt_tokens
    )


def traffic(rng: np.random.Generator) -> tuple[LoadSnapshot, int]:
    load = LoadSnapshot(
        waiting=int(rng.integers(0, 20)),
        running=int(rng.integers(0, 32)),
        prefill_tokens=int(rng.integers(0, 8_000)),
        decode_rows=int(rng.integers(0, 32)),
    )
    return load, int(rng.integers(1, 4_000))


def learn(model: TtftModel, law: Law, n: int, rng: np.random.Generator, noise: float = 0.0) -> None:
    for _ in range(n):
        load, prompt = traffic(rng)
        took = seconds(law, load, prompt) * (1 + noise * rng.normal())
        model.observe(load, prompt, max(took, 0.0))


def error(model: TtftModel, law: Law, rng: np.random.Generator) -> float:
    """Median relative error on new requests."""
    asked = [traffic(rng) for _ in range(200)]
    errors = []
    for load, prompt in asked:
        predicted = model.predict(load, prompt)
        assert predicted is not None
        errors.append(abs(predicted - seconds(law, load, prompt)) / seconds(law, load, prompt))
    return float(np.median(errors))


@settings(max_examples=30, deadline=None)
@given(law=COEFFICIENTS, seed=st.integers(0, 1_000))
def test_a_linear_law_is_found(law: Law, seed: int) -> None:
    model, rng = TtftModel(), np.random.default_rng(seed)
    learn(model, law, 400, rng)
    assert error(model, law, rng) < 0.05


LAW: Law = (3e-3, 2e-3, 1e-3, 2e-4, 1.5e-4)


def test_noise_averages_out_and_a_stall_is_no_law() -> None:
    model, rng = TtftModel(), np.random.default_rng(0)
    learn(model, LAW, 800, rng, noise=0.2)
    before = error(model, LAW, np.random.default_rng(1))
    assert before < 0.06
    load, prompt = traffic(rng)
    model.observe(load, prompt, 600.0)
    assert error(model, LAW, np.random.default_rng(1)) < before + 0.05


def test_a_machine_that_becomes_slower_is_followed() -> None:
    model, rng = TtftModel(), np.random.default_rng(0)
    learn(model, LAW, 600, rng, noise=0.1)
    slower: Law = (9e-3, 6e-3, 3e-3, 6e-4, 4.5e-4)
    learn(model, slower, 600, rng, noise=0.1)
    assert error(model, slower, rng) < 0.1


def test_nothing_is_predicted_until_enough_was_seen() -> None:
    model, rng = TtftModel(), np.random.default_rng(0)
    learn(model, LAW, MIN_SEEN - 1, rng)
    assert model.predict(*traffic(rng)) is None
    learn(model, LAW, 1, rng)
    assert model.predict(*traffic(rng)) is not None
    assert model.n_seen == MIN_SEEN


MOST_TOKENS = st.sampled_from([20, 70, 500, 5_000])
PER_TOKEN_S = st.floats(5e-5, 5e-2)


@settings(max_examples=40, deadline=None)
@given(most=MOST_TOKENS, per_token_s=PER_TOKEN_S, seed=st.integers(0, 1_000))
def test_thirty_requests_teach_any_machine_at_any_length_of_prompts(most: int, per_token_s: float, seed: int) -> None:
    model, rng = TtftModel(), np.random.default_rng(seed)
    for prompt in rng.integers(10, most, 30):
        model.observe(LoadSnapshot(), int(prompt), per_token_s * (int(prompt) + 5))
    for prompt in (10, most, int(1.5 * most)):
        assert model.predict(LoadSnapshot(), prompt) == pytest.approx(per_token_s * (prompt + 5), rel=0.02)


def test_short_prompts_on_an_idle_machine_are_no_constant() -> None:
    model, rng = TtftModel(), np.random.default_rng(0)
    for prompt in rng.integers(10, 71, 30):
        model.observe(LoadSnapshot(), int(prompt), 1e-3 * int(prompt) * (1 + 0.1 * rng.normal()))
    assert model.predict(LoadSnapshot(), 100) == pytest.approx(0.1, rel=0.1)


@settings(max_examples=20, deadline=None)
@given(per_token_s=PER_TOKEN_S, seed=st.integers(0, 1_000))
def test_load_that_was_not_seen_never_makes_it_faster(per_token_s: float, seed: int) -> None:
    """Noise alone could give a queue a negative coefficient, and a long one a time below 0."""
    model, rng = TtftModel(), np.random.default_rng(seed)
    for prompt in rng.integers(10, 200, 60):
        load = LoadSnapshot(waiting=int(rng.integers(0, 2)), running=int(rng.integers(0, 2)))
        model.observe(load, int(prompt), abs(per_token_s * int(prompt) * (1 + 0.5 * rng.normal())))
    idle = model.predict(LoadSnapshot(), 100)
    busy = model.predict(LoadSnapshot(waiting=500, running=500, prefill_tokens=10**6, decode_rows=500), 100)
    assert idle is not None
    assert busy is not None
    assert 0 <= idle <= busy


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_another_machine_is_followed_however_long_the_first_was_seen(factor: float) -> None:
    """Nothing waits here: what the requests say nothing of must not stop the forgetting of the rest."""
    model, rng = TtftModel(), np.random.default_rng(0)
    for per_token_s, n in ((1e-3, 3_000), (1e-3 * factor, 300)):
        for prompt in rng.integers(10, 500, n):
            model.observe(LoadSnapshot(), int(prompt), per_token_s * int(prompt) * (1 + 0.05 * rng.normal()))
    assert model.predict(LoadSnapshot(), 300) == pytest.approx(0.3 * factor, rel=0.05)


@pytest.fixture(scope="module")
def bored() -> TtftModel:
    """It saw the same request 3,000 times."""
    model = TtftModel()
    for _ in range(3_000):
        model.observe(LoadSnapshot(), 10, 0.02)
    return model


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1_000))
def test_a_prediction_is_never_negative_nor_infinite_even_after_long_sameness(bored: TtftModel, seed: int) -> None:
    model, rng = copy.deepcopy(bored), np.random.default_rng(seed)
    assert model.predict(LoadSnapshot(), 10) == pytest.approx(0.02, rel=0.01)
    learn(model, LAW, 300, rng)
    for _ in range(50):
        predicted = model.predict(*traffic(rng))
        assert predicted is not None
        assert 0 <= predicted < 100
    assert error(model, LAW, rng) < 0.2


@pytest.mark.parametrize("took", [-1.0, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(took: float) -> None:
    with pytest.raises(ValueError, match="finite number"):
        TtftModel().observe(LoadSnapshot(), 1, took)
