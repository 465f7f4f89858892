"""The benchmark of speculation: what it compares, how it counts, and that the model which copies does copy."""

import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.checkpoints import Shape
from benchmarks.speculation.__main__ import main
from benchmarks.speculation.comparison import Contestant, Ratio, compare
from benchmarks.speculation.copier import MARK, build_copier
from benchmarks.speculation.side import COUNTED, OFF, Ask, Outcome, Side
from benchmarks.speculation.workloads import edits, grouped, with_drift
from engine.request import SamplingParams
from engine.speculation.config import SpeculationConfig
from engine.speculation.proposer import Source

TINY = Shape("llama", 2, 448, 7, 1, 16, 8192)
SECONDS = st.lists(st.floats(0.01, 10.0), min_size=1, max_size=20)


def taking(seconds: float, answer: tuple[int, ...] = (1, 2, 3)) -> Contestant:
    counted = dict.fromkeys(COUNTED, 0.0) | {"steps": 1.0, "tokens_generated": float(len(answer))}
    return lambda _job: Outcome(seconds, seconds / 2, (answer,), counted)


@given(SECONDS, st.floats(0.1, 10.0))
def test_a_contestant_that_is_always_so_many_times_faster_has_that_ratio_and_no_doubt(
    seconds: list[float], factor: float
) -> None:
    ratio = Ratio.of([factor * s for s in seconds], seconds)
    for value in (ratio.median, ratio.low, ratio.high, ratio.of_sums):
        assert value == pytest.approx(factor)


@given(SECONDS, SECONDS)
def test_the_interval_holds_the_median_and_lies_within_the_pairs(base: list[float], other: list[float]) -> None:
    pairs = list(zip(base, other, strict=False))
    ratio = Ratio.of(*zip(*pairs, strict=True))
    ratios = [a / b for a, b in pairs]
    assert min(ratios) <= ratio.low <= ratio.median <= ratio.high <= max(ratios)
    assert ratio.n_pairs == len(pairs)


def test_pairs_whose_answers_differ_are_named_and_count_in_no_ratio() -> None:
    right, wrong = taking(1.0), taking(100.0, (1, 9, 3))
    turns = iter([right, right, wrong, right])  # the first two only warm up

    def odd(job: int) -> Outcome:
        return next(turns)(job)

    found = compare(taking(2.0), {"odd": odd}, ["first", "second"], 1)["odd"]
    assert found.differing == ["first: answer 0, token 1: [2, 3] without drafts, [9, 3]"]
    assert found.whole is not None
    assert (found.whole.n_pairs, found.whole.median) == (1, 2.0)


def test_answers_that_may_differ_are_compared_by_the_token() -> None:
    other = taking(1.0, (4, 5, 6, 7, 8, 9))
    found = compare(taking(1.0), {"other": other}, ["job"], 2, sampled=frozenset({"other"}))["other"]
    assert not found.differing
    assert found.whole is not None
    assert found.whole.median == pytest.approx(2.0)
    assert found.work.tokens_per_step == 6.0


@pytest.mark.parametrize("n_others", [1, 2, 3])
def test_nobody_is_favoured_by_the_order(n_others: int) -> None:
    names = ["base", *(f"other {number}" for number in range(n_others))]
    called = list[str]()

    def noting(name: str) -> Callable[[int], Outcome]:
        def answer(job: int) -> Outcome:
            called.append(name)
            return taking(1.0)(job)

        return answer

    base, *others = (noting(name) for name in names)
    turns = 2 * len(names)
    compare(base, dict(zip(names[1:], others, strict=True)), ["job"], turns - 1)  # and one to warm up
    laps = [called[at : at + len(names)] for at in range(0, len(called), len(names))]
    assert all(sorted(lap) == sorted(names) for lap in laps)
    places = Counter((name, at) for lap in laps for at, name in enumerate(lap))
    assert set(places.values()) == {2}
    before = Counter((a, b) for lap in laps for a, b in itertools.combinations(lap, 2))
    assert set(before.values()) == {turns // 2}


@given(st.lists(st.integers(0, 99), min_size=1, max_size=60), st.floats(0.0, 1.0), st.integers(0, 9))
def test_drift_changes_that_share_of_an_answer(answer: list[int], share: float, seed: int) -> None:
    drifted = with_drift(answer, share, 100, seed)
    assert len(drifted) == len(answer)
    assert all(0 <= token < 100 for token in drifted)
    assert sum(a != b for a, b in zip(answer, drifted, strict=True)) == max(1, round(share * len(answer)))


@given(st.integers(0, 20), st.integers(1, 8))
def test_jobs_are_full_and_hold_each_request_once(n: int, batch: int) -> None:
    asks = [Ask(f"{number}", [5], SamplingParams()) for number in range(n)]
    jobs = grouped(asks, batch)
    assert all(len(job) == batch for job in jobs)
    assert [ask for job in jobs for ask in job] == asks[: n - n % batch]


def test_the_copier_writes_a_document_anew_with_its_edits_and_drafts_do_not_change_that(tmp_path: Path) -> None:
    folder = build_copier(tmp_path, TINY, corpus_files=20)
    plain, drafting = Side(folder, None, OFF), Side(folder, None, SpeculationConfig(sources=(Source.NGRAM,)))
    [edit] = edits(plain.tokenizer, 1, 120, 25)
    document = list(edit.ask.prompt)[: list(edit.ask.prompt).index(MARK)]
    assert edit.n_new > 0
    assert list(edit.right) != document[-len(edit.right) :]
    without, with_drafts = plain.answer([edit.ask]), drafting.answer([edit.ask])
    assert without.answers == with_drafts.answers == (edit.right,)
    assert without.counted["steps"] == len(edit.right)
    assert with_drafts.counted["steps"] < len(edit.right) / 2
    assert with_drafts.counted["tokens_accepted_ngram"] > len(edit.right) / 2
    plain.close(), drafting.close()


def test_a_copier_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="heads of 64"):
        build_copier(tmp_path, Shape("llama", 2, 256, 2, 1, 16, 4096))
    with pytest.raises(ValueError, match="3 heads for each of keys"):
        build_copier(tmp_path, Shape("llama", 2, 448, 7, 7, 16, 4096))


def test_a_part_runs_finds_equal_answers_and_judges_its_targets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    assert main(["--quick", "--always", "--runs", "1", "--only", "pair", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["parts"]["pair"]["rows"]
    assert {"calls, temperature 0.0", "extract, temperature 0.8"} <= set(rows)
    for row in rows.values():
        assert row["differing"] == []
        assert row["whole"]["n_pairs"] == 2
        assert row["work"]["tokens"] == row["base_work"]["tokens"] > 0
        assert row["work"]["steps"] < row["base_work"]["steps"]
        assert row["base_work"]["drafted"] == 0
        assert {target["what"] for target in row["targets"]} == {"tokens/step", "whole"}
    assert "tokens/step" in capsys.readouterr().out
