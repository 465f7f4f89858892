"""The whole report on rows that cannot say much."""

from dataclasses import replace

import msgspec
import numpy as np

from router_model.artefact import RouterArtefact
from router_model.evaluation_report import EvaluationReport, Rows, evaluation_report
from router_model.features import Kind, extract_outcome
from router_model.outcomes import Outcome
from router_model.tables import evaluation_table
from tests.router_model.worlds import make_outcomes


def reported(artefact: RouterArtefact, outcomes: list[Outcome]) -> EvaluationReport:
    rows = Rows(artefact, outcomes, [extract_outcome(one, Kind.STATE) for one in outcomes])
    return evaluation_report(rows, None, data_files=["rows.jsonl"])


def test_one_row_tells_of_no_target_and_says_so_in_json_and_in_text(artefact: RouterArtefact) -> None:
    report = reported(artefact, make_outcomes(1, with_state=True, seed=3))
    found = msgspec.json.decode(msgspec.json.encode(report))["targets"]
    assert {one["status"] for one in found.values()} == {"not identifiable"}
    assert all(one["reason"].startswith("the number of groups is 1") for one in found.values())
    text = " ".join(evaluation_table(report).split())
    assert f"Not identifiable ({', '.join(found)}): the number of groups is 1" in text
    assert text.count("Not identifiable") == 1, "a reason is said once"


def test_groups_of_the_rows_are_what_counts(artefact: RouterArtefact) -> None:
    rows = make_outcomes(300, with_state=True, seed=4)
    alike = [replace(one, group=f"group-{i % 10}") for i, one in enumerate(rows)]
    assert {one.status.value for one in reported(artefact, rows).targets.values()} <= {"met", "missed"}
    assert {one.status.value for one in reported(artefact, alike).targets.values()} == {"not identifiable"}


def test_without_a_lead_of_the_large_model_the_report_has_no_part_of_a_gap(artefact: RouterArtefact) -> None:
    rows = [replace(one, strong_score=one.weak_score) for one in make_outcomes(300, with_state=True, seed=5)]
    report = reported(artefact, rows)
    for name in ("auto", "auto-quality", "auto-cost"):
        one = report.targets[name]
        assert (one.status.value, one.served.pgr.value, one.fixed.pgr.value) == ("not identifiable", None, None)
    assert report.targets["quality 0.9"].status.value == "met"
    assert np.isfinite(report.targets["auto"].served.over_random.value or 0)
