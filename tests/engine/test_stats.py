"""Counters: what is counted by kind adds up to what is counted in all."""

from hypothesis import given
from hypothesis import strategies as st

from engine.speculation.proposer import Source
from engine.stats import Counters

drafts = st.tuples(st.sampled_from(list(Source)), st.integers(0, 63), st.integers(0, 63)).map(
    lambda draft: (draft[0], max(draft[1:]), min(draft[1:]))
)


@given(st.lists(drafts, max_size=30))
def test_drafts_by_source_add_up_to_the_sums(noted: list[tuple[Source, int, int]]) -> None:
    counters = Counters()
    for draft in noted:
        counters.note_draft(*draft)
    numbers = counters.snapshot()
    for verb, position in (("drafted", 1), ("accepted", 2)):
        by_source = {source: numbers[f"tokens_{verb}_{source}"] for source in Source}
        assert by_source == {source: sum(draft[position] for draft in noted if draft[0] is source) for source in Source}
        assert numbers[f"tokens_{verb}"] == sum(by_source.values())


def test_a_snapshot_is_of_numbers_only_and_stays_as_it_is() -> None:
    counters = Counters()
    before = counters.snapshot()
    assert all(isinstance(value, int | float) for value in before.values())
    counters.note_draft(Source.NGRAM, 4, 1)
    assert before == Counters().snapshot()
