import base64
import gzip
import json
import math
import os
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router_model.facts import RequestFacts
from router_model.options import Action
from router_model.outcomes import Choice, Outcome, OutcomeError, OutcomeRow, StateBlob, read_outcomes, write_outcomes
from router_model.prefill import PrefillState


def test_our_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(3, 2, 5)).astype(np.float32)
    facts = RequestFacts(n_tools=3, prompt_tokens=91, has_response_format=True)
    row = OutcomeRow(
        id="a",
        group="g",
        prompt="wie geht's? 🙂",
        weak_score=0.5,
        strong_score=1.0,
        facts=facts,
        state=StateBlob.of(values, "float32"),
        entropy=1.5,
        margin=0.25,
        small_tokens=7,
        large_tokens=9,
    )
    for name in ("rows.jsonl", "rows.jsonl.gz"):
        assert write_outcomes(tmp_path / name, [row, row]) == 2
        first, second = read_outcomes([tmp_path / name])
        assert first.state is not None
        np.testing.assert_array_equal(first.state.values, values)
        assert (first.state.entropy, first.state.margin) == (1.5, 0.25)
        assert (first.text, first.group, first.weak_score, first.strong_score) == ("wie geht's? 🙂", "g", 0.5, 1.0)
        assert (first.facts, first.small_tokens, first.large_tokens) == (facts, 7, 9)
        assert second.id == "a"


def test_a_compressed_file_does_not_depend_on_the_clock(tmp_path: Path) -> None:
    row = OutcomeRow(id="a", prompt="p", weak_score=0, strong_score=1)
    write_outcomes(tmp_path / "one.jsonl.gz", [row])
    write_outcomes(tmp_path / "two.jsonl.gz", [row])
    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()


def test_half_precision_states_stay_finite_and_close() -> None:
    values = np.array([[[1e9, 0.1]], [[-1e9, 3.0]]], np.float32).reshape(1, 2, 2)
    blob = StateBlob.of(values)
    state = PrefillState.from_bytes(blob.data, blob.shape, 0.0, 0.0, dtype=blob.dtype)
    assert np.isfinite(state.values).all()
    np.testing.assert_allclose(state.values[0, :, 1], [0.1, 3.0], rtol=1e-3)


def test_public_rows_count_as_right_or_wrong_even_where_a_score_is_given(tmp_path: Path) -> None:
    path = tmp_path / "public.jsonl"
    line = {"id": "x", "prompt": "p", "weak_correct": 0, "strong_correct": 1, "weak_score": 0.4, "strong_score": 0.9}
    path.write_text(json.dumps({**line, "scores": {"other": 1}, "subject": "law"}) + "\n\n")
    (outcome,) = read_outcomes([path])
    assert (outcome.weak_score, outcome.strong_score, outcome.subject, outcome.group) == (0, 1, "law", "x")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "truncated"),
        ('{"id": "b", "prompt": "p"}', "weak_score"),
        ('{"id": "b", "prompt": "p", "weak_score": 0.5}', "strong_score"),
        ('{"id": "b", "prompt": "p", "weak_score": 2, "strong_score": 1}', "use 0 to 1"),
        ('{"id": "b", "prompt": 3, "weak_score": 0, "strong_score": 1}', "prompt"),
        ('{"prompt": "p", "weak_score": 0, "strong_score": 1}', "id"),
        (
            json.dumps(
                {
                    "id": "b",
                    "prompt": "p",
                    "weak_score": 0,
                    "strong_score": 1,
                    "entropy": 0,
                    "margin": 0,
                    "state": {"data": base64.b64encode(b"1234").decode(), "shape": [1, 2, 8]},
                }
            ),
            "shape",
        ),
        (
            '{"id": "b", "prompt": "p", "weak_score": 0, "strong_score": 1, "state": {"data": "", "shape": [1, 2, 4]}}',
            "entropy",
        ),
    ],
)
def test_a_malformed_row_is_named_by_file_and_line(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"id": "a", "prompt": "p", "weak_score": 0, "strong_score": 1}\n' + line + "\n")
    with pytest.raises(OutcomeError, match=r"bad\.jsonl, line 2: ") as error:
        read_outcomes([path])
    assert says in str(error.value)


def test_rows_in_other_tools_ways_of_writing_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = (
        '{"id": 7, "prompt": "p", "subject": null, "weak_correct": true, "strong_correct": false}',
        '{"id": 1.5, "prompt": "p", "group": null, "weight": null, "weak_score": 0.37, "strong_correct": 1}',
    )
    path.write_bytes(b"\xef\xbb\xbf" + "\n".join(lines).encode())
    first, second = read_outcomes([path])
    assert (first.id, first.group, first.subject, first.weak_score, first.strong_score) == ("7", "7", "", 1.0, 0.0)
    assert (second.id, second.group, second.weight, second.weak_score, second.strong_score) == (
        *("1.5", "1.5", 1.0),
        *(0.37, 1.0),
    )


def test_a_score_under_the_name_of_a_right_answer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "a", "prompt": "p", "weak_correct": 0.37, "strong_correct": 1}\n')
    with pytest.raises(OutcomeError, match=r"line 1: `weak_correct` is 0.37: use 0 or 1; .* `weak_score`"):
        read_outcomes([path])


def test_a_file_that_is_missing_or_no_gzip_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl.gz"
    broken.write_bytes(gzip.compress(b'{"id": "a"}' * 100)[:30])
    for path in (tmp_path / "none.jsonl", broken):
        with pytest.raises(OutcomeError, match=path.name):
            read_outcomes([path])


@pytest.mark.parametrize("shape", [(2, 8), (1, 3, 4), (0, 2, 4)])
def test_a_state_of_another_form_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="n_layers, 2, hidden"):
        PrefillState(np.zeros(shape, np.float32), 0.0, 0.0)


def test_a_state_that_is_not_finite_is_refused() -> None:
    values = np.zeros((1, 2, 4), np.float32)
    values[0, 1, 2] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        PrefillState(values, 0.0, 0.0)
    with pytest.raises(ValueError, match="not finite"):
        PrefillState(np.zeros((1, 2, 4), np.float32), float("inf"), 0.0)


def test_a_row_of_the_own_log_needs_only_the_served_models_score_and_no_prompt(tmp_path: Path) -> None:
    when = datetime(2026, 11, 28, 21, 0, tzinfo=UTC)
    row = OutcomeRow(
        id="d1",
        features=b"\x00\x01packed",
        action=Action.SMALL,
        weak_score=0.5,
        propensity=0.05,
        weight=20.0,
        source="feedback",
        route="code",
        session="s1",
        threshold=0.2,
        cost_usd=1e-5,
        cost_if_large_usd=7e-5,
        small_logprob_mean=-0.3,
        small_logprob_min=-2.0,
        small_valid=True,
        weak_response="an answer",
        decided_at=when,
    )
    write_outcomes(tmp_path / "log.jsonl", [row])
    (one,) = read_outcomes([tmp_path / "log.jsonl"])
    assert one.weak_score == 0.5
    assert math.isnan(one.strong_score)
    assert not one.has_both
    assert (one.text, one.group, one.features, one.action) == ("", "s1", b"\x00\x01packed", Action.SMALL)
    for name in ("propensity", "weight", "source", "route", "session", "threshold", "cost_usd", "cost_if_large_usd"):
        assert getattr(one, name) == getattr(row, name)
    for name in ("small_logprob_mean", "small_logprob_min", "small_valid", "weak_response", "decided_at"):
        assert getattr(one, name) == getattr(row, name)


def test_what_a_row_and_an_outcome_both_have_is_handed_over() -> None:
    read = {"weak_score", "strong_score", "state"}  # the others are taken as they are
    shared = {field.name for field in fields(Outcome)} & set(OutcomeRow.__struct_fields__) - read
    given: dict[str, Any] = {name: object() for name in shared}
    given |= {"action": Action.LARGE, "weight": 0.5, "propensity": 0.5, "facts": RequestFacts(turns=3)}
    given["choice"] = Choice(action=Action.SMALL, propensity=0.5, reward=1.0)
    outcome = OutcomeRow(**given, prompt="p", weak_score=0.0, strong_score=1.0).outcome()
    assert len(shared) > 20
    assert {name: getattr(outcome, name) for name in shared} == given


def test_a_shadow_pair_of_the_log_keeps_both_scores() -> None:
    row = OutcomeRow(id="d", prompt="p", action=Action.LARGE, weak_score=0.0, strong_score=1.0, propensity=0.95)
    assert row.outcome().has_both


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"action": Action.SMALL, "strong_score": 1.0}, "weak_score"),
        ({"action": Action.LARGE, "weak_score": 1.0}, "strong_score"),
        ({"weak_score": 1.0, "strong_score": 1.0, "weight": -1.0}, "weight"),
        ({"weak_score": 1.0, "strong_score": 1.0, "facts": RequestFacts(n_tools=-1)}, "facts.n_tools"),
        ({"weak_score": 1.0, "strong_score": 1.0, "weight": math.inf}, "weight"),
        ({"weak_score": 1.0, "strong_score": 1.0, "propensity": 0.0}, "propensity"),
        ({"weak_score": 1.0, "strong_score": 1.0, "prompt": None}, "packed `features`"),
        *(
            (
                {
                    "weak_score": 1.0,
                    "strong_score": 1.0,
                    "choice": Choice(**{"action": Action.SMALL, "propensity": 0.5, "reward": 1.0} | wrong),  # type: ignore[arg-type]
                },
                "choice",
            )
            for wrong in ({"propensity": 0.0}, {"graded_prob": 0.0}, {"graded_prob": 1.5}, {"reward": 2.0})
        ),
    ],
)
def test_a_row_of_the_own_log_that_cannot_be_used_says_why(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        OutcomeRow(**{"id": "d", "prompt": "p", **changes}).outcome()  # type: ignore[arg-type]


@pytest.mark.skipif("POINTSMAN_DATA" not in os.environ, reason="needs the evaluation data")
def test_public_rows_load() -> None:
    files = sorted((Path(os.environ["POINTSMAN_DATA"]) / "routing").glob("*.jsonl.gz"))
    outcomes = read_outcomes(files)
    assert len(outcomes) > 9_000
    assert all(one.has_both and one.source for one in outcomes)
