"""Invented tools: reproducible, well-formed, and of words that the other splits do not have."""

import random

import pytest

from bundled_models.catalogue import Split, check
from bundled_models.invention import Inventor
from bundled_models.values import belongs

SPLITS: tuple[Split, ...] = ("train", "router", "held")


def test_equal_seeds_invent_equal_tools() -> None:
    assert Inventor(random.Random(5), "held").family(6) == Inventor(random.Random(5), "held").family(6)


@pytest.mark.parametrize("split", SPLITS)
def test_every_invented_sentence_states_what_its_definition_requires(split: Split) -> None:
    inventor = Inventor(random.Random(1), split)
    for _ in range(80):
        for entry in (*inventor.family(3), inventor.record()):
            for phrasing in entry.phrasings[split]:
                check(phrasing, entry.parameters, entry.name)


def test_a_family_has_different_names_and_some_relatives() -> None:
    inventor = Inventor(random.Random(2), "train")
    shared = 0
    for _ in range(50):
        family = inventor.family(4)
        assert len({e.name for e in family}) == 4
        shared += len({e.domain for e in family}) < 4
    assert shared > 5


def test_the_words_of_the_splits_are_disjoint() -> None:
    for split in SPLITS:
        inventor = Inventor(random.Random(3), split)
        assert len(inventor._make.nouns) > 30
        assert all(belongs(noun, split) for noun in inventor._make.nouns)
