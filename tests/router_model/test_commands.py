import json
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from router_model.artefact import ArtefactError, RouterArtefact
from router_model.candidates import Candidate
from router_model.commands import evaluate, train
from router_model.evaluation import RoutingQuality
from router_model.evaluation_report import EvaluationReport, OffPolicy
from router_model.features import Kind
from router_model.options import Action
from router_model.outcomes import Choice, Outcome, OutcomeError, OutcomeRow, StateBlob, write_outcomes
from router_model.policy_value import PolicyValue
from router_model.promises import Realised, ShareKept, TargetKept
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
    write_outcomes(tmp_path / "a.jsonl", map(row, make_outcomes(300, with_state=True)))
    write_outcomes(tmp_path / "b.jsonl.gz", map(row, make_outcomes(200, with_state=True, seed=1)))
    write_outcomes(tmp_path / "test.jsonl", map(row, make_outcomes(300, with_state=True, seed=2)))
    shown: list[str] = []
    report = train(
        [tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"],
        tmp_path / "router",
        small_model="s",
        large_model="l",
        show=shown.append,
    )
    assert (report.n_rows, report.kind, report.is_identified) == (500, Kind.STATE, True)
    assert set(report.targets) == {"auto", "auto-quality", "auto-cost"}
    artefact = RouterArtefact.load(tmp_path / "router", small_model="s", large_model="l")
    assert artefact.hash == report.artefact_hash

    json_out = tmp_path / "reports" / "out.json"
    evaluation = evaluate(
        tmp_path / "router",
        [tmp_path / "test.jsonl"],
        json_out,
        train_files=[tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"],
        show=shown.append,
    )
    router, oracle = evaluation.routers["router"].apgr.value, evaluation.routers["oracle"].apgr.value
    assert router is not None
    assert oracle is not None
    assert 0.6 < router < oracle
    assert evaluation.routers["random"].apgr.value == pytest.approx(0.5)
    assert (evaluation.apgr_over["random"].lower or 0) > 0
    assert list(evaluation.routers) == ["router", "random", "length", "kNN", "subject", "oracle"]
    written = json.loads(json_out.read_text())
    assert written["routers"]["router"]["apgr"]["value"] == pytest.approx(router)
    assert set(written) == KEYS
    assert "auto-quality" in shown[0]
    assert f"{router:.3f}" in shown[1]
    assert evaluation.off_policy is None


KEYS = {
    *("artefact_hash", "data_files", "n_rows", "n_both", "n_groups", "n_answers", "out_of_domain_share"),
    *("small_quality", "large_quality", "routers", "left_out", "apgr_over", "answer_over_router"),
    *("calibration_small", "calibration_large", "calibration_answer", "targets", "shares", "drift", "off_policy"),
}


def test_every_key_of_the_report_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "routing_evaluation.md").read_text()
    for struct in (EvaluationReport, RoutingQuality, TargetKept, Realised, ShareKept, PolicyValue, OffPolicy):
        for name in struct.__struct_fields__:
            assert f"`{name}`" in page, f"docs/routing_evaluation.md does not say what {struct.__name__}.{name} is"
    assert set(EvaluationReport.__struct_fields__) == KEYS


def test_without_training_rows_neighbours_are_sought_among_the_others(tmp_path: Path, artefact: RouterArtefact) -> None:
    artefact.save(tmp_path / "router")
    rows = make_outcomes(300, with_state=True, seed=2)
    write_outcomes(tmp_path / "test.jsonl", map(row, rows))
    shown: list[str] = []
    report = evaluate(tmp_path / "router", [tmp_path / "test.jsonl"], data_names=["the file"], show=shown.append)
    assert list(report.routers) == ["router", "random", "length", "kNN, folds of these rows", "oracle"]
    assert report.left_out == {}
    assert (report.data_files, shown[0].startswith("the file: ")) == (["the file"], True)
    value = report.routers["kNN, folds of these rows"].apgr.value
    assert value is not None
    assert value > 0.55


def test_too_few_rows_for_neighbours_of_their_own_is_said(tmp_path: Path, artefact: RouterArtefact) -> None:
    artefact.save(tmp_path / "router")
    write_outcomes(tmp_path / "few.jsonl", map(row, make_outcomes(80, with_state=True, seed=2)))
    shown: list[str] = []
    report = evaluate(tmp_path / "router", [tmp_path / "few.jsonl"], show=shown.append)
    assert list(report.routers) == ["router", "random", "length", "oracle"]
    assert "100 rows" in report.left_out["kNN, folds of these rows"]
    assert "Without kNN, folds of these rows: it needs 100 rows" in shown[0]


def log_rows(n: int, epsilon: float = 0.1) -> list[OutcomeRow]:
    """Rows of a log: one side graded, with action and propensity; large where the prompt is long."""
    rng = np.random.default_rng(3)
    rows = []
    for one in make_outcomes(n, with_state=True, seed=5):
        explored = bool(rng.random() < epsilon)
        is_large = (len(one.text) > 60) != explored
        made = msgspec.structs.replace(
            row(one), action=Action.LARGE if is_large else Action.SMALL, propensity=epsilon if explored else 1 - epsilon
        )
        side = "weak_score" if is_large else "strong_score"
        rows.append(msgspec.structs.replace(made, **{side: None}))
    return rows


def test_the_rows_of_a_log_give_off_policy_values(tmp_path: Path, artefact: RouterArtefact) -> None:
    artefact.save(tmp_path / "router")
    write_outcomes(tmp_path / "log.jsonl", log_rows(3_000))
    shown: list[str] = []
    asked = [Candidate(quality=0.8, quality_scale="gap"), Candidate(shift=9.0)]  # what `auto` asks for
    report = evaluate(tmp_path / "router", [tmp_path / "log.jsonl"], candidates=asked, show=shown.append)
    assert (report.n_both, report.routers, report.drift) == (0, {}, None)
    assert report.off_policy is not None
    values = {one.policy: one for one in report.off_policy.policies}
    assert list(values)[:3] == ["as logged", "all small", "all large"]
    assert {"target auto", "target auto-quality", "target auto-cost"} < set(values)
    # The world: small is right with 0.95 - 0.7 d, large with 0.97 - 0.1 d, d uniform.
    for name, truth in (("all small", 0.6), ("all large", 0.92)):
        one = values[name]
        assert one.dr is not None
        assert one.dr.lower - 0.02 < truth < one.dr.upper + 0.02
    auto, small = values["target auto"].dr, values["all small"].dr
    assert auto is not None
    assert small is not None
    assert auto.value > small.value
    assert "ESS" in shown[0]

    mine, shifted = report.off_policy.policies[-2:]
    assert mine.dr is not None
    assert mine.dr.value == pytest.approx(auto.value, abs=0.02)
    assert "no score and threshold" in (shifted.refused or "")


def test_a_log_without_exploration_is_refused_in_words(tmp_path: Path, artefact: RouterArtefact) -> None:
    artefact.save(tmp_path / "router")
    fixed = [msgspec.structs.replace(one, propensity=1.0) for one in log_rows(300)]
    write_outcomes(tmp_path / "log.jsonl", fixed)
    shown: list[str] = []
    report = evaluate(tmp_path / "router", [tmp_path / "log.jsonl"], show=shown.append)
    assert report.off_policy is not None
    assert report.off_policy.fixed == 300
    assert all(one.refused for one in report.off_policy.policies)


def test_the_choice_of_a_row_wins_over_the_side_that_was_graded(tmp_path: Path, artefact: RouterArtefact) -> None:
    artefact.save(tmp_path / "router")
    rows = [
        msgspec.structs.replace(
            one,
            weak_score=0.0,
            strong_score=1.0,
            action=Action.LARGE,
            propensity=None,
            choice=Choice(action=Action.SMALL, propensity=0.95, reward=1.0, is_escalated=True),
        )
        for one in log_rows(400)
    ]
    write_outcomes(tmp_path / "log.jsonl", rows)
    report = evaluate(tmp_path / "router", [tmp_path / "log.jsonl"], show=lambda _: None)
    assert report.off_policy is not None
    logged = report.off_policy.policies[0]
    assert logged.large_share == pytest.approx(0.05), "every action was small, and the large model had the rest"
    assert logged.dr is not None
    assert logged.dr.value == pytest.approx(1.0)


def test_choices_that_were_graded_more_seldom_stand_for_more(tmp_path: Path, artefact: RouterArtefact) -> None:
    artefact.save(tmp_path / "router")
    rows = [
        msgspec.structs.replace(
            one,
            choice=Choice(action=Action.SMALL, propensity=0.95, reward=float(i % 2), graded_prob=1.0 if i % 2 else 0.5),
        )
        for i, one in enumerate(log_rows(400))
    ]
    write_outcomes(tmp_path / "log.jsonl", rows)
    report = evaluate(tmp_path / "router", [tmp_path / "log.jsonl"], show=lambda _: None)
    assert report.off_policy is not None
    snips = report.off_policy.policies[0].snips
    assert snips is not None
    assert snips.value == pytest.approx(1 / 3)


def test_a_malformed_file_ends_the_command_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(OutcomeError, match=r"bad\.jsonl, line 1"):
        train([tmp_path / "bad.jsonl"], tmp_path / "router")
    assert not (tmp_path / "router").exists()
    with pytest.raises(ArtefactError):
        evaluate(tmp_path / "router", [tmp_path / "bad.jsonl"])


def test_an_empty_file_and_rows_without_the_state_that_the_router_reads_are_refused(
    tmp_path: Path, artefact: RouterArtefact
) -> None:
    artefact.save(tmp_path)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(OutcomeError, match="holds no rows"):
        evaluate(tmp_path, [tmp_path / "empty.jsonl"])
    write_outcomes(tmp_path / "text.jsonl", map(row, make_outcomes(5, with_state=False)))
    with pytest.raises(ValueError, match="no prefill state"):
        evaluate(tmp_path, [tmp_path / "text.jsonl"])


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
