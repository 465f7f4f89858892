"""Whole series of steps on an imagined machine, against the best that a fixed length of drafts could do there."""

import random
from math import inf

import pytest

from engine.chunk_limit import Shape
from engine.speculation.acceptance import Trust
from engine.speculation.controller import PROBED_SHARE, Controller
from engine.speculation.proposer import Source
from tests.engine.speculation.imagined_pair import Coin, ImaginedPair

STEPS = {1: 1600, 4: 1000, 16: 700, 64: 500}
"""By the number of streams."""


def coin(p: float, belief: float = 0.7) -> Coin:
    return lambda step, draw: (belief, p)  # noqa: ARG005


@pytest.mark.parametrize("n_streams", STEPS)
@pytest.mark.parametrize("ratio", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("p", [0.3, 0.6, 0.8, 0.95])
def test_it_comes_close_to_the_best_fixed_length(n_streams: int, ratio: float, p: float) -> None:
    pair = ImaginedPair(round_s=0.010 * ratio, round_row_s=0.0002 * ratio)
    controller, draw = pair.controller(), random.Random(f"{n_streams} {ratio} {p}")
    pair.run(controller, coin(p), n_streams=n_streams, n_steps=100, rng=draw)
    outcome = pair.run(controller, coin(p), n_streams=n_streams, n_steps=STEPS[n_streams], rng=draw)
    assert outcome.rate > 0.95 * pair.best_rate(n_streams, p)


@pytest.mark.parametrize("n_streams", STEPS)
@pytest.mark.parametrize(
    ("ratio", "token_s", "p"), [(1.0, 0.0002, 0.9), (2.0, 0.0002, 0.95), (0.1, 0.002, 0.1), (0.05, 0.0002, 0.02)]
)
def test_where_drafts_cannot_pay_nothing_is_slower_than_without_them(
    n_streams: int, ratio: float, token_s: float, p: float
) -> None:
    pair = ImaginedPair(round_s=0.010 * ratio, round_row_s=token_s * ratio, token_s=token_s)
    assert pair.best_rate(n_streams, p) < 1.01 * pair.fixed_rate(n_streams, 0, p)
    draw = random.Random(n_streams)
    outcome = pair.run(pair.controller(), coin(p), n_streams=n_streams, n_steps=2 * STEPS[n_streams], rng=draw)
    assert outcome.rate > 0.99 * pair.fixed_rate(n_streams, 0, p)


def test_it_follows_an_acceptance_that_changes_in_the_middle_of_an_answer() -> None:
    pair, draw = ImaginedPair(), random.Random(5)
    controller = pair.controller()
    for p in (0.9, 0.3, 0.9, 0.05, 0.8):
        pair.run(controller, coin(p), n_streams=1, n_steps=300, rng=draw)
        outcome = pair.run(controller, coin(p), n_streams=1, n_steps=1500, rng=draw)
        assert outcome.rate > 0.95 * pair.best_rate(1, p), p


def test_beliefs_that_mean_something_beat_every_fixed_length() -> None:
    beliefs = (0.2, 0.5, 0.9, 0.99)

    def informed(step: int, draw: random.Random) -> tuple[float, float]:  # noqa: ARG001
        p = draw.choice(beliefs)
        return p, p

    pair, draw = ImaginedPair(), random.Random(6)
    outcome = pair.run(pair.controller(), informed, n_streams=1, n_steps=2000, rng=draw)
    # Nodes are independent here, so a fixed length sees their mean.
    assert outcome.rate > 1.03 * pair.best_rate(1, sum(beliefs) / len(beliefs))


def test_drafts_shrink_to_none_as_more_streams_share_a_machine_where_every_token_costs() -> None:
    pair = ImaginedPair(token_s=0.001, round_s=0.0005, round_row_s=0.0003)
    lengths = []
    for n_streams in (1, 4, 16, 64):
        outcome = pair.run(pair.controller(), coin(0.75), n_streams=n_streams, n_steps=300, rng=random.Random(7))
        lengths.append(outcome.nodes / (300 * n_streams))
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > 2.0
    assert lengths[-1] < 0.05


def test_a_machine_that_is_slow_at_some_sizes_which_no_term_predicts_is_not_drafted_on_for_long() -> None:
    pair, draw = ImaginedPair(), random.Random(8)
    outcome = pair.run(
        pair.controller(), coin(0.8), n_streams=1, n_steps=2000, rng=draw, surprise_s=lambda n: 0.05 if n else 0.0
    )
    assert outcome.nodes < 0.15 * 2000
    assert outcome.rate > 0.75 * pair.fixed_rate(1, 0, 0.8)


def test_prices_are_those_that_the_cost_model_gives_the_same_rows_with_a_longer_tail() -> None:
    pair = ImaginedPair()
    model = pair.cost_model()
    for n_rows, start in ((1, 0), (4, 100), (15, 30), (16, 100), (40, 20)):
        controller = Controller(model)
        rows = [Shape(start, 1, 1)] * n_rows
        outlook = controller.outlook(rows, n_rows)
        free = outlook.prices.nodes_s(0, 0, 0)
        assert free == 0.0
        for n in (1, 3, 16, 30):
            longer = [Shape(start, 1 + n, 1 + n), *rows[1:]]
            forward_s = model.seconds(model.step(longer)) - model.seconds(model.step(rows))
            host_s = n * 5e-6  # what is guessed of a node
            assert outlook.prices.nodes_s(0, n, 0) == pytest.approx(forward_s + host_s, rel=0.05)


def test_what_the_host_takes_for_rows_nodes_and_masks_is_learned_from_steps() -> None:
    pair, draw = ImaginedPair(), random.Random(9)
    controller = Controller(pair.cost_model())
    for _ in range(1500):
        n_rows, n = draw.randint(1, 8), draw.choice((0, 0, 4, 12))
        n_masked = n if draw.random() < 0.5 else 0
        host_s = 0.0002 + 0.0001 * n_rows + 0.0003 * (n > 0) + 0.00004 * n + 0.00008 * n_masked
        controller.observe_step(n_rows, n, n_masked, host_s * draw.gauss(1.0, 0.03))
    plain = controller.outlook([Shape(100, 1, 1)] * 4, 4)
    model = pair.cost_model()
    forward_s = model.seconds(model.step([Shape(100, 1, 1)] * 4))
    assert plain.plain_s - forward_s == pytest.approx(0.0006, rel=0.1)
    assert plain.prices.mask_s == pytest.approx(0.00008, rel=0.15)
    assert plain.prices.entry_s == pytest.approx(0.0003, rel=0.3)


def test_rounds_are_predicted_by_what_they_took() -> None:
    pair, draw = ImaginedPair(), random.Random(10)
    controller = pair.controller()
    before = controller.round_seconds(4, 4, 0)
    assert before == pytest.approx(0.5 * pair.drafting_s(4) + 50e-6 + 4 * 20e-6, rel=0.05)
    for _ in range(400):
        n = draw.randint(1, 16)
        controller.observe_round(n, n, 0, pair.drafting_s(n) * draw.gauss(1.0, 0.05))
    for n in (1, 4, 16):
        assert controller.round_seconds(n, n, 0) == pytest.approx(pair.drafting_s(n), rel=0.05)
    assert Controller(pair.cost_model()).round_seconds(1, 1, 0) == inf


def accepted(controller: Controller, p: float) -> None:
    draw = random.Random(11)
    for _ in range(1000):
        controller.acceptance.observe(Source.DRAFT_MODEL, 0.7, draw.random() < p, Trust())


def test_catching_up_pays_where_the_rest_of_the_answer_saves_more_than_it_takes() -> None:
    pair = ImaginedPair(round_row_s=0.0005)
    controller = pair.controller()
    accepted(controller, 0.8)
    for step in range(500):
        controller.observe_answer(200)
        controller.observe_round(1 + step % 16, 1 + step % 16, 0, pair.drafting_s(1 + step % 16))
    assert controller.worth_catching_up(500, 400, 1)
    assert not controller.worth_catching_up(500, 2, 1)
    longest = max(n for n in range(0, 8000, 50) if controller.worth_catching_up(n, 400, 1))
    # The oracle: each of 200 tokens is faster by the difference of the best fixed length to none.
    saved_s = 200 * (1 / pair.fixed_rate(1, 0, 0.8) - 1 / pair.best_rate(1, 0.8))
    assert controller.round_seconds(1, longest, 0) == pytest.approx(saved_s, rel=0.15)
    for _ in range(500):
        controller.observe_answer(10)
    assert not controller.worth_catching_up(longest, 400, 1)


def test_catching_up_does_not_pay_for_a_draft_model_that_is_mostly_wrong_nor_without_one_nor_under_load() -> None:
    pair = ImaginedPair(token_s=0.001, round_row_s=0.0003)
    controller = pair.controller()
    accepted(controller, 0.7)
    assert controller.worth_catching_up(200, 400, 1)
    assert not controller.worth_catching_up(200, 400, 64)
    accepted(controller, 0.02)
    assert not controller.worth_catching_up(200, 400, 1)
    assert not Controller(pair.cost_model()).worth_catching_up(1, 400, 1)


def test_probes_take_a_small_share_of_all_time_and_go_on_for_ever() -> None:
    controller = ImaginedPair().controller()
    assert not controller.may_probe(0.001)  # nothing is known of how long steps take
    rows, total_s, probed_s, last = [Shape(100, 1, 1)], 0.0, 0.0, 0
    for step in range(20_000):
        total_s += controller.outlook(rows, 1).seconds
        if controller.may_probe(0.002):
            probed_s, last = probed_s + 0.002, step
    assert probed_s == pytest.approx(PROBED_SHARE * total_s, rel=0.1)
    assert last > 19_900


def test_what_probes_did_not_use_does_not_add_up_to_a_long_series_of_them() -> None:
    controller = ImaginedPair().controller()
    rows = [Shape(100, 1, 1)]
    for _ in range(50_000):
        controller.outlook(rows, 1)
    assert sum(controller.may_probe(0.01) for _ in range(10_000)) <= 101
