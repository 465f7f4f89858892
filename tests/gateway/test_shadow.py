"""Outcomes of both models on a file of requests, made on real checkpoints."""

import asyncio
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from engine.request import EngineDied
from gateway.cli import main
from gateway.routing import shadow
from gateway.routing.shadow import GradedRequest, NoOutcome, Shadow, read_requests
from gateway.routing.unfinished_outcomes import UnfinishedOutcomes
from gateway.settings import Settings
from router_model.outcomes import OutcomeRow, read_outcomes
from tests.engine.checkpoints import build_checkpoint

EMPTY = {"type": "object", "properties": {}, "additionalProperties": False}
CHOICE = {"structured_outputs": {"choice": ["left", "right"]}}


@pytest.fixture(scope="module")
def outcomes_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shadow")
    small, large = folder / "small", folder / "large"
    build_checkpoint(small, "llama", seed=1)
    build_checkpoint(large, "llama", seed=2)
    ask = {"messages": [{"role": "user", "content": "Which way?"}], "max_tokens": 64}
    tool = {"type": "function", "function": {"name": "turn", "parameters": EMPTY}}
    lines = [
        {"id": "a", "request": ask | CHOICE, "expected": "left"},
        {"id": "b", "request": ask | CHOICE, "expected": "right", "group": "ways", "subject": "roads"},
        {"id": "c", "request": ask | {"max_tokens": 2}},
        {
            "id": "d",
            "request": ask | {"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False},
            "expected": [{"name": "turn", "arguments": {}}],
        },
    ]
    data, out = folder / "requests.jsonl", folder / "outcomes.jsonl.gz"
    data.write_bytes(b"\n".join(msgspec.json.encode(line) for line in lines))
    arguments = ["router", "generate-outcomes", "--data", str(data), "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POINTSMAN_ENGINE_MODE", "thread")
        patch.setenv("POINTSMAN_DATA_DIR", str(folder))
        assert main([*arguments, "--small", str(small), "--large", str(large)]) == 0
    return out


def test_answers_are_graded_by_what_was_expected(outcomes_file: Path) -> None:
    rows = {outcome.id: outcome for outcome in read_outcomes([outcomes_file])}
    assert list(rows) == ["a", "b", "c", "d"]
    for side in ("weak_score", "strong_score"):
        # of two choices exactly one is right, whichever the random weights prefer
        assert getattr(rows["a"], side) + getattr(rows["b"], side) == 1.0
        assert getattr(rows["d"], side) == 1.0  # the only tool, without arguments
    assert rows["b"].group == "ways"


def test_a_row_has_what_the_router_reads(outcomes_file: Path) -> None:
    for outcome in read_outcomes([outcomes_file]):
        assert outcome.text == "Which way?"
        assert outcome.state is not None
        assert np.abs(outcome.state.values).max() > 0
        assert outcome.state.entropy > 0
        assert outcome.facts.prompt_tokens > 0


def test_the_state_does_not_depend_on_what_is_asked_of_the_answer(outcomes_file: Path) -> None:
    first, second = (outcome.state for outcome in read_outcomes([outcomes_file])[:2])
    assert first is not None
    assert second is not None
    np.testing.assert_allclose(
        first.values, second.values, atol=0.02
    )  # one was computed, the other came from the cache


def test_a_request_that_the_server_would_refuse_is_named(
    outcomes_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = outcomes_file.parent
    monkeypatch.setenv("POINTSMAN_ENGINE_MODE", "thread")
    path = tmp_path / "requests.jsonl"
    path.write_text('{"id": "odd", "request": {"messages": []}}\n')
    arguments = ["router", "generate-outcomes", "--data", str(path), "--out", str(tmp_path / "out.jsonl")]
    assert main([*arguments, "--small", str(folder / "small"), "--large", str(folder / "large")]) == 2
    assert "request odd" in capsys.readouterr().err


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text('{"id": "a", "request": {}}\n{"id": "b"}\n')
    with pytest.raises(ValueError, match=r"requests.jsonl, line 2.*request"):
        list(read_requests(path))


def generate(folder: Path, data: Path, out: Path) -> int:
    """The command's exit code."""
    pair = ["--small", str(folder / "small"), "--large", str(folder / "large")]
    return main(["router", "generate-outcomes", "--data", str(data), "--out", str(out), *pair])


def write_requests(path: Path, names: Sequence[str], **fields: Any) -> Path:
    ask = {"messages": [{"role": "user", "content": "Which way?"}], "max_tokens": 2, **fields}
    path.write_bytes(b"\n".join(msgspec.json.encode({"id": name, "request": ask}) for name in names))
    return path


@pytest.fixture
def pair_folder(outcomes_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POINTSMAN_ENGINE_MODE", "thread")
    monkeypatch.setenv("POINTSMAN_DATA_DIR", str(outcomes_file.parent))
    return outcomes_file.parent


def test_a_request_that_the_pair_cannot_answer_is_skipped_and_named(
    pair_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_requests(tmp_path / "requests.jsonl", ["before", "after"])
    long = {"messages": [{"role": "user", "content": "way " * 100_000}]}
    wide = {"messages": [{"role": "user", "content": "way"}], "max_tokens": 10_000_000}
    with data.open("ab") as file:
        for name, request in (("long", long), ("wide", wide), ("odd", {"messages": []})):
            file.write(b"\n" + msgspec.json.encode({"id": name, "request": request}))
    out = tmp_path / "new" / "folder" / "out.jsonl"
    assert generate(pair_folder, data, out) == 0
    assert [one.id for one in read_outcomes([out])] == ["before", "after"]
    said = capsys.readouterr().out
    assert "3 requests were skipped:" in said
    for name in ("long", "wide", "odd"):
        assert f"\n  {name}: " in said
    assert [path.name for path in out.parent.iterdir()] == ["out.jsonl"]


def test_a_run_that_failed_keeps_what_it_made_and_is_taken_up(
    pair_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"r{i}" for i in range(40)]
    data = write_requests(tmp_path / "requests.jsonl", names)
    out = tmp_path / "out.jsonl.gz"
    out.write_bytes(b"of a run before")
    asked: list[str] = []
    whole = Shadow._answered

    def failing_from(first: str | None) -> None:
        async def answered(self: Shadow, graded: GradedRequest) -> OutcomeRow | NoOutcome:
            asked.append(graded.id)
            if graded.id == first:
                raise EngineDied("the engine is gone")
            return await whole(self, graded)

        monkeypatch.setattr(Shadow, "_answered", answered)

    failing_from("r25")
    assert generate(pair_folder, data, out) == 2
    said = capsys.readouterr().err
    (unfinished,) = tmp_path.glob("out.jsonl.gz.unfinished-*")
    kept = [one.id for one in read_outcomes([unfinished])]
    assert kept[:25] == names[:25]
    assert "request r25" in said
    assert f"{len(kept)} outcomes are kept in {unfinished}" in said
    assert out.read_bytes() == b"of a run before"

    with unfinished.open("ab") as file:
        file.write(b'{"id": "r30", "weak_sco')  # as a crash would leave it
    asked.clear()
    failing_from(None)
    assert generate(pair_folder, data, out) == 0
    assert not set(asked) & set(kept)
    assert f"40 outcomes in {out}, {len(kept)} of them from the run before" in capsys.readouterr().out
    assert sorted(one.id for one in read_outcomes([out])) == sorted(names)
    assert not list(tmp_path.glob("*unfinished*"))

    asked.clear()
    assert generate(pair_folder, data, out) == 0
    assert set(asked) == set(names), "what is finished is made again"


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C means what it does at a terminal, even where whoever runs the tests has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_stopped_run_keeps_what_it_made(
    pair_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_requests(tmp_path / "requests.jsonl", [f"r{i}" for i in range(40)])
    whole = Shadow._answered

    async def answered(self: Shadow, graded: GradedRequest) -> OutcomeRow | NoOutcome:
        if graded.id == "r20":
            await asyncio.sleep(1.0)  # the others are ready by then
            signal.raise_signal(signal.SIGINT)
        return await whole(self, graded)

    monkeypatch.setattr(Shadow, "_answered", answered)
    assert generate(pair_folder, data, tmp_path / "out.jsonl") == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    (unfinished,) = tmp_path.glob("out.jsonl.unfinished-*")
    ready = {one.id for one in read_outcomes([unfinished])}
    assert ready >= {f"r{i}" for i in range(20)}
    assert ready & {f"r{i}" for i in range(21, 40)}, "what waited for a slower one is kept, too"


def test_where_nothing_can_be_written_no_model_is_loaded(
    pair_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def start(settings: Settings) -> None:
        raise AssertionError(f"loaded {settings.small_path}")

    monkeypatch.setattr(shadow, "start_engine", start)
    data = write_requests(tmp_path / "requests.jsonl", ["a"])
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "out.jsonl", tmp_path):
        assert generate(pair_folder, data, out) == 2
    assert "is a folder: name a file" in capsys.readouterr().err


def test_no_more_than_a_few_requests_and_their_outcomes_are_in_memory() -> None:
    read = taken = most = 0

    def requests() -> Iterator[GradedRequest]:
        nonlocal read
        for i in range(200):
            read += 1
            yield GradedRequest(id=str(i), request={})

    class Quick(Shadow):
        async def _answered(self, graded: GradedRequest) -> OutcomeRow | NoOutcome:
            await asyncio.sleep(0)
            return NoOutcome(graded.id)

    def take(_: OutcomeRow | NoOutcome) -> None:
        nonlocal taken, most
        most = max(most, read - taken)
        taken += 1

    unused: Any = None
    asyncio.run(Quick(unused, unused, unused, at_once=8).outcomes(requests(), take))
    assert (read, taken) == (200, 200)
    assert most <= 8


def test_outcomes_of_another_pair_or_grader_are_not_taken_up(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    row = OutcomeRow(id="a", prompt="p", weak_score=1.0, strong_score=0.5)
    with UnfinishedOutcomes(out, "aa") as kept:
        kept.add(row)
    with UnfinishedOutcomes(out, "bb") as kept:
        assert (kept.n, kept.ids) == (0, set())
    with UnfinishedOutcomes(out, "aa") as kept:
        assert (kept.n, kept.ids, kept.small_sum, kept.large_sum) == (1, {"a"}, 1.0, 0.5)
        kept.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_compressed_file_of_outcomes_does_not_depend_on_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    for now in (1.0e9, 2.0e9):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        with UnfinishedOutcomes(tmp_path / "out.jsonl.gz", "aa") as kept:
            kept.add(OutcomeRow(id="a", prompt="p", weak_score=1.0, strong_score=0.5))
            kept.finish()
        written.append((tmp_path / "out.jsonl.gz").read_bytes())
    assert written[0] == written[1]
    assert [one.id for one in read_outcomes([tmp_path / "out.jsonl.gz"])] == ["a"]
