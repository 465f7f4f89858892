"""Outcomes of both models on a file of requests, made on real checkpoints."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from gateway.cli import main
from gateway.routing.shadow import read_requests
from router_model.outcomes import read_outcomes
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
