import json
import os
from pathlib import Path

import pytest

from router_model.artefact import ArtefactError, RouterArtefact
from router_model.commands import evaluate, train
from router_model.features import Kind
from router_model.outcomes import Outcome, OutcomeError, OutcomeRow, StateBlob, write_outcomes
from tests.router_model.worlds import make_outcomes


def row(outcome: Outcome) -> OutcomeRow:
    state = outcome.state
    return OutcomeRow(
        id=outcome.id,
        group=outcome.group,
        prompt=outcome.text,
        weak_score=outcome.weak_score,
        strong_score=outcome.strong_score,
        facts=outcome.facts,
        state=None if state is None else StateBlob.of(state.values),
        entropy=None if state is None else state.entropy,
        margin=None if state is None else state.margin,
        small_tokens=outcome.small_tokens,
        large_tokens=outcome.large_tokens,
    )


def test_a_router_is_trained_saved_and_evaluated_from_files(tmp_path: Path) -> None:
    write_outcomes(tmp_path / "a.jsonl", map(row, make_outcomes(500, with_state=True)))
    write_outcomes(tmp_path / "b.jsonl.gz", map(row, make_outcomes(300, with_state=True, seed=1)))
    write_outcomes(tmp_path / "test.jsonl", map(row, make_outcomes(400, with_state=True, seed=2)))
    shown: list[str] = []
    report = train(
        [tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"],
        tmp_path / "router",
        small_model="s",
        large_model="l",
        show=shown.append,
    )
    assert (report.n_rows, report.kind, report.is_identified) == (800, Kind.STATE, True)
    assert set(report.targets) == {"auto", "auto-quality", "auto-cost"}
    artefact = RouterArtefact.load(tmp_path / "router", small_model="s", large_model="l")
    assert artefact.hash == report.artefact_hash

    json_out = tmp_path / "reports" / "out.json"
    evaluation = evaluate(tmp_path / "router", tmp_path / "test.jsonl", json_out, show=shown.append)
    router, oracle = evaluation.routers["router"].apgr.value, evaluation.routers["oracle"].apgr.value
    assert router is not None
    assert oracle is not None
    assert 0.6 < router < oracle
    assert evaluation.routers["random"].apgr.value == pytest.approx(0.5)
    assert (evaluation.apgr_over["random"].lower or 0) > 0
    written = json.loads(json_out.read_text())
    assert written["routers"]["router"]["apgr"]["value"] == pytest.approx(router)
    assert "auto-quality" in shown[0]
    assert f"{router:.3f}" in shown[1]


def test_a_malformed_file_ends_the_command_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(OutcomeError, match=r"bad\.jsonl, line 1"):
        train([tmp_path / "bad.jsonl"], tmp_path / "router")
    assert not (tmp_path / "router").exists()
    with pytest.raises(ArtefactError):
        evaluate(tmp_path / "router", tmp_path / "bad.jsonl")


def test_an_empty_file_and_rows_without_the_state_that_the_router_reads_are_refused(
    tmp_path: Path, artefact: RouterArtefact
) -> None:
    artefact.save(tmp_path)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(OutcomeError, match="holds no rows"):
        evaluate(tmp_path, tmp_path / "empty.jsonl")
    write_outcomes(tmp_path / "text.jsonl", map(row, make_outcomes(5, with_state=False)))
    with pytest.raises(ValueError, match="no prefill state"):
        evaluate(tmp_path, tmp_path / "text.jsonl")


def test_public_outcomes_train_a_router_that_beats_random(tmp_path: Path) -> None:
    if "POINTSMAN_DATA" not in os.environ:
        pytest.skip("POINTSMAN_DATA names no folder with the public outcomes")
    data = Path(os.environ["POINTSMAN_DATA"]) / "routing" / "routellm-gsm8k.dev.jsonl.gz"
    report = train([data], tmp_path / "router", show=lambda _: None)
    assert report.kind is Kind.TEXT
    assert report.n_rows == 802
    assert report.metrics.apgr is not None
    assert report.metrics.apgr > 0.55
    assert report.metrics.ece_small < 0.08
