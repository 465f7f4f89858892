"""Steps with drafts that take longer than was predicted."""

import random

import pytest

from engine.speculation.surcharge import Surcharge


def steps(
    surcharge: Surcharge, n: int, *, entry: float, factor: float, plain: float = 1.0, share: float = 0.7, seed: int = 0
) -> None:
    """Steps of 10 ms of which a share has drafts: these add `entry` steps, and `factor` times what was predicted."""
    draw = random.Random(seed)
    for _ in range(n):
        added = draw.uniform(0.05, 0.6) if draw.random() < share else 0.0
        took = plain + (entry + factor * added if added else 0.0)
        surcharge.observe(0.010, 0.010 * added, 0.010 * took * draw.gauss(1.0, 0.03))


@pytest.mark.parametrize("share", [0.3, 0.9, 1.0])
@pytest.mark.parametrize(("entry", "factor"), [(0.0, 1.0), (0.0, 2.5), (0.7, 1.0), (0.4, 1.8)])
def test_it_comes_to_what_drafts_take_beyond_their_prediction(entry: float, factor: float, share: float) -> None:
    surcharge = Surcharge()
    steps(surcharge, 1500, entry=entry, factor=factor, share=share)
    assert surcharge.factor == pytest.approx(factor, rel=0.15)
    assert surcharge.entry == pytest.approx(entry, abs=0.05)


def test_it_is_forgotten_in_steps_without_drafts() -> None:
    surcharge = Surcharge()
    steps(surcharge, 500, entry=2.0, factor=1.0)
    steps(surcharge, 200, entry=2.0, factor=1.0, share=0.0)
    assert surcharge.entry > 1.0
    steps(surcharge, 6000, entry=2.0, factor=1.0, share=0.0)
    assert surcharge.entry < 0.05


def test_drafts_are_not_charged_with_what_all_steps_take_longer() -> None:
    surcharge = Surcharge()
    steps(surcharge, 1000, entry=0.0, factor=1.3, plain=1.3)
    assert surcharge.factor == pytest.approx(1.0, abs=0.15)
    assert surcharge.entry < 0.05


def test_being_faster_than_predicted_earns_nothing() -> None:
    surcharge = Surcharge()
    steps(surcharge, 1000, entry=0.0, factor=0.3)
    assert surcharge.factor == 1.0
    assert surcharge.entry < 0.02


def test_one_long_pause_says_little_about_drafts() -> None:
    surcharge = Surcharge()
    steps(surcharge, 200, entry=0.0, factor=1.0)
    surcharge.observe(0.010, 0.005, 60.0)
    surcharge.observe(0.0, 0.005, 60.0)
    steps(surcharge, 16, entry=0.0, factor=1.0)
    assert surcharge.factor < 1.1
    assert surcharge.entry < 0.05
