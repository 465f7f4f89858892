"""The benchmark of the grammars: what counts as right, what as a refusal, and engines that hang or crash."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.schemabench.__main__ import main
from benchmarks.schemabench.contender import OutOfTime, Refused, Setting, start
from benchmarks.schemabench.judge import BYTES_END, Judge
from benchmarks.schemabench.process import Killable, Killed
from benchmarks.schemabench.report import groups_table, table
from benchmarks.schemabench.rows import Row, read_rows
from benchmarks.schemabench.tally import Tally, percentiles
from benchmarks.tokenizers import byte_tokenizer

OURS = Setting("declared", "ours", (",", ":"), 6)
PEER = Setting("llguidance", "llguidance", (", ", ": "), 6)
POINT = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "number"}}, "required": ["x"]}


def _row(schema: Any, *tests: tuple[Any, bool], name: str = "a", keywords: tuple[str, ...] = ()) -> Row:
    return Row(name, "set", keywords, schema, tests)


@pytest.fixture(scope="module")
def ours() -> Judge:
    """A judge of our compiler over the bytes."""
    tokenizer = byte_tokenizer(BYTES_END)
    return Judge(start(OURS, tokenizer, "compact", 5.0), tokenizer, OURS)


class Refusing:
    """A contender that refuses, or fails, in one way."""

    n_words = 9

    def __init__(self, error: Exception) -> None:
        self._error = error

    def compile(self, _: Any) -> Any:
        """Raises it."""
        raise self._error


def test_valid_instances_are_accepted_and_invalid_ones_are_not(ours: Judge) -> None:
    verdict = ours(_row(POINT, ({"x": 1, "y": 0.5}, True), ({"x": "1"}, False), ({}, False)))
    assert (verdict.status, verdict.n_valid, verdict.n_invalid) == ("compiled", 1, 2)
    assert verdict.refused == []
    assert verdict.accepted == []
    assert len(verdict.mask_us) == len(verdict.advance_us) > 10
    assert 0 < verdict.cached_us < verdict.cold_us


def test_an_invalid_instance_that_passes_is_counted_with_its_text(ours: Judge) -> None:
    verdict = ours(_row(POINT, ({"x": 1}, False)))
    assert verdict.accepted == ['{"x":1}']


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        ({"y": 0.5, "x": 1}, "order"),
        ({"x": 1.0}, "number"),
        ({"y": 2, "x": 1.0}, "order and number"),
        ({"x": "one"}, "assertion"),
    ],
    ids=["order", "number", "order and number", "no validator takes it"],
)
def test_a_refused_valid_instance_has_a_cause(ours: Judge, data: Any, cause: str) -> None:
    verdict = ours(_row(POINT, (data, True)))
    assert [found for found, _ in verdict.refused] == [cause]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Refused("no", "type", ""), "refused"),
        (Refused("no", "type", "/properties/x/type"), "refused"),
        (Refused("no", "type", "/properties/z"), "error"),
        (Refused("no", "", ""), "error"),
        (OutOfTime("5 s"), "timeout"),
        (IndexError("0"), "error"),
    ],
    ids=["root", "a place", "no such place", "no keyword", "out of time", "any other"],
)
def test_a_refusal_counts_only_with_a_keyword_and_a_place_that_exists(error: Exception, status: str) -> None:
    judge = Judge(Refusing(error), byte_tokenizer(BYTES_END), OURS)
    assert judge(_row(POINT)).status == status


def test_peers_may_refuse_without_naming_a_place() -> None:
    judge = Judge(Refusing(Refused("unimplemented")), byte_tokenizer(BYTES_END), PEER)
    assert judge(_row(POINT)).status == "refused"


@pytest.mark.parametrize("name", ["xgrammar", "xgrammar-open", "llguidance", "outlines"])
def test_every_peer_judges(name: Any) -> None:
    setting, tokenizer = Setting(name, name, (", ", ": "), 6), byte_tokenizer(BYTES_END)
    judge = Judge(start(setting, tokenizer, "compact", 5.0), tokenizer, setting)
    schema = {**POINT, "additionalProperties": False, "required": ["x", "y"]}
    verdict = judge(_row(schema, ({"x": 1, "y": 0.5}, True), ({"x": "1"}, False), ({"x": 1}, False)))
    assert (verdict.status, verdict.refused, verdict.accepted) == ("compiled", [], [])
    assert judge(_row({"$ref": "#/$defs/none"})).status == "refused"


def _shift() -> Callable[[int], int]:
    def work(item: int) -> int:
        match item:
            case 1:
                os.kill(os.getpid(), signal.SIGSEGV)
            case 2:
                while True:
                    pass
            case 3:
                time.sleep(60)
            case 4:
                os._exit(3)
        return item + 100

    return work


def _broken() -> Callable[[int], int]:
    raise RuntimeError("cannot be made")


def test_a_hang_or_a_crash_ends_one_item_and_the_next_goes_on() -> None:
    work: Killable[int, int] = Killable(_shift, cpu_s=0.5, wall_s=3.0)
    found = list(work.map([0, 1, 2, 3, 4, 5]))
    assert found == [100, Killed("signal 11"), Killed("cpu"), Killed("wall"), Killed("exit 3"), 105]


@pytest.mark.filterwarnings("ignore")
def test_work_that_cannot_begin_is_an_error() -> None:
    work: Killable[int, int] = Killable(_broken, cpu_s=0.5, wall_s=3.0)
    with pytest.raises(RuntimeError, match="did not start"):
        list(work.map([0]))


def test_tallies_group_by_data_set_and_keyword_and_print_ratios(ours: Judge) -> None:
    mine, theirs = Tally(), Tally()
    good = _row(POINT, ({"x": 1}, True), ({"x": "1"}, False), keywords=("properties", "type"))
    mine.add(good, ours(good))
    mine.add(good, ours(good))
    theirs.add(good, ours(good))
    theirs.add(good, Killed("cpu"))
    assert (mine.whole.passing, theirs.whole.passing, theirs.whole.timeout) == (2, 1, 1)
    assert mine.by_keyword["type"].schemas == 2
    assert mine.right == 4
    results = {"declared": (OURS, mine), "llguidance": (PEER, theirs)}
    passing, *_ = (line for line in table(results).split("\n") if line.startswith("schemas passing"))
    assert passing.split() == [
        "schemas",
        "passing",
        "2",
        "of",
        "2",
        "(100.00",
        "%)",
        "1",
        "of",
        "2",
        "(50.00",
        "%)",
        "2.00",
    ]
    assert "100 (0, 0, 0)" in groups_table(results, lambda tally: tally.by_dataset, "data set")


def test_percentiles_are_nearest_ranks() -> None:
    assert percentiles([float(i) for i in range(101)]) == {"p50": 50, "p95": 95, "p99": 99, "p99.9": 100, "max": 100}
    assert percentiles([]) == {}


def test_rows_of_both_kinds_of_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [
        {"id": "x", "dataset": "d", "features": ["not"], "schema": {}, "tests": [{"data": 1, "valid": True}]},
        {"keyword": "enum", "group": 3, "schema": True, "tests": [{"data": 2, "valid": False}]},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert read_rows(path) == [
        Row("x", "d", ("not",), {}, ((1, True),)),
        Row("enum/3", "suite", ("enum",), True, ((2, False),)),
    ]
    assert len(read_rows(path, 1)) == 1


@pytest.mark.parametrize(("is_valid", "status"), [(True, 0), (False, 1)], ids=["right", "loose"])
def test_the_command_reports_and_fails_when_something_invalid_passed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_valid: bool, status: int
) -> None:
    data, out = tmp_path / "rows.jsonl", tmp_path / "out.json"
    row = {"id": "x", "dataset": "d", "schema": POINT, "tests": [{"data": {"x": 1}, "valid": is_valid}]}
    data.write_text(json.dumps(row))
    arguments = ["--data", str(data), "--order", "declared", "--peers", "llguidance", "--json", str(out)]
    assert main(arguments) == status
    assert "separators (',', ':')" in capsys.readouterr().out
    report = json.loads(out.read_text())
    assert set(report["contenders"]) == {"declared", "llguidance", "llguidance-compact"}
    assert report["contenders"]["declared"]["invalid_accepted"] == status
