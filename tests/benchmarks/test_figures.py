"""Ratios and agreement, against values worked out by hand."""

import pytest

from benchmarks.checkpoints import SHAPES
from benchmarks.peers.figures import Record, ratios, table
from benchmarks.peers.roster import ROSTER
from benchmarks.timing import Spread

NAMES = ["pointsman-bf16", "vllm-bf16-eager", "llamacpp-bf16"]
ENTRIES = [ROSTER[name] for name in NAMES]


def records_of(*decode: list[float]) -> dict[str, Record]:
    records = {}
    for name, seconds in zip(NAMES, decode, strict=True):
        records[name] = Record(load_s=1.0, peak_bytes=2**30)
        for value in seconds:
            records[name].add("decode", {"decode": value})
    return records


def test_the_ratio_is_to_the_fastest_peer_round_by_round() -> None:
    compared = ratios(ENTRIES, records_of([0.5, 1.0, 1.0], [1.0, 1.5, 3.0], [2.0, 2.0, 2.0]))
    found = compared["pointsman-bf16 decode"]
    assert found.peer == "vllm-bf16-eager"
    assert found.spread == Spread(2.0, 1.5, 3.0, 3)


def test_without_a_peer_that_answered_there_is_no_ratio() -> None:
    assert not ratios(ENTRIES, records_of([0.5], [], []))


def test_a_failed_task_is_shown_and_counts_for_nothing() -> None:
    records = records_of([0.5], [1.0], [])
    records["llamacpp-bf16"].add("decode", {"error": "ValueError: 3 answers"})
    shown = table(ENTRIES, records, SHAPES["S"], Spread.of([1e10]), ratios(ENTRIES, records))
    assert "failed: ValueError: 3 answers" in shown
    assert "pointsman-bf16 decode" in shown


def test_the_share_of_the_bandwidth_is_bytes_over_seconds_over_bandwidth() -> None:
    entry, shape = ROSTER["pointsman-bf16"], SHAPES["S"]
    n_bytes = 2 * (shape.layer_weights + shape.head_weights)
    assert entry.bytes_per_token(shape) == n_bytes
    shown = table([entry], {entry.name: records_of([n_bytes / 1e10], [], [])[entry.name]}, shape, Spread.of([2e10]), {})
    assert "50% of the bandwidth" in shown


def test_agreement_is_the_share_of_equal_first_tokens() -> None:
    ours, peer = Record(), Record()
    ours.add("batch", {"answer": [1, 2, 3, 4]})
    peer.add("batch", {"answer": [1, 2, 9, 4]})
    assert peer.agreement(ours) == pytest.approx(0.75)
    assert Record().agreement(ours) is None
