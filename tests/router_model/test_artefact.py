import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from router_model.artefact import ARRAYS_FILE, MANIFEST_FILE, ArtefactError, ModelMismatch, RouterArtefact
from router_model.bundle import TARGETS, bundle, data_hash
from router_model.features import extract_outcome
from router_model.options import Action
from router_model.outcomes import Outcome
from router_model.training import Trained, train
from tests.router_model.worlds import QUICK, make_outcomes


@pytest.mark.parametrize("with_state", [True, False])
def test_a_loaded_router_predicts_as_the_saved_one(tmp_path: Path, with_state: bool) -> None:
    outcomes = make_outcomes(120, with_state=with_state)
    artefact = bundle(train(outcomes, QUICK), outcomes)
    artefact.save(tmp_path / "new" / "router")
    loaded = RouterArtefact.load(tmp_path / "new" / "router")
    features = [
        extract_outcome(one, artefact.manifest.kind) for one in make_outcomes(40, with_state=with_state, seed=1)
    ]
    expected, seen = artefact.model.predict(features), loaded.model.predict(features)
    for name in ("p_small", "p_large", "ood", "score", "small_tokens"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(expected, name))
    for name in ("thresholds", "lower", "quality_lower"):
        np.testing.assert_array_equal(getattr(loaded.curve, name), getattr(artefact.curve, name))
    assert loaded.hash == artefact.hash
    assert loaded.manifest.targets == artefact.manifest.targets


def test_equal_training_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        outcomes = make_outcomes(120, with_state=True)
        bundle(train(outcomes, QUICK), outcomes).save(tmp_path / name)
    RouterArtefact.load(tmp_path / "one").save(tmp_path / "three")
    for file in (ARRAYS_FILE, MANIFEST_FILE):
        assert len({(tmp_path / name / file).read_bytes() for name in ("one", "two", "three")}) == 1


def test_a_router_of_another_pair_is_refused(tmp_path: Path, artefact: RouterArtefact) -> None:
    artefact.save(tmp_path)
    assert RouterArtefact.load(tmp_path, small_model="small-1", large_model="large-1").manifest.small_model == "small-1"
    with pytest.raises(ModelMismatch, match="small model small-1, but small-2 is served"):
        RouterArtefact.load(tmp_path, small_model="small-2", large_model="large-1")
    with pytest.raises(ModelMismatch, match="large model"):
        RouterArtefact.load(tmp_path, small_model="small-1", large_model="large-2")


def test_a_missing_damaged_or_foreign_artefact_is_refused_with_what_to_do(
    tmp_path: Path, artefact: RouterArtefact
) -> None:
    with pytest.raises(ArtefactError, match="router train"):
        RouterArtefact.load(tmp_path / "none")
    artefact.save(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST_FILE).read_text())
    for key, value, says in (
        ("format_version", 99, "format 99"),
        ("feature_schema", 99, "feature schema 99"),
        ("feature_names", ["log_chars"], "feature schema"),
        ("n_rows", "many", "cannot be read"),
    ):
        (tmp_path / MANIFEST_FILE).write_text(json.dumps({**manifest, key: value}))
        with pytest.raises(ArtefactError, match=says):
            RouterArtefact.load(tmp_path)
    artefact.save(tmp_path)
    data = bytearray((tmp_path / ARRAYS_FILE).read_bytes())
    data[-1] ^= 1
    (tmp_path / ARRAYS_FILE).write_bytes(bytes(data))
    with pytest.raises(ArtefactError, match="copy both"):
        RouterArtefact.load(tmp_path)


def test_the_data_hash_sees_every_field() -> None:
    base = make_outcomes(1, with_state=True)[0]
    fields = {"id": base.id, "group": base.group, "text": base.text, "facts": base.facts, "state": base.state}
    scores = {"weak_score": 0.0, "strong_score": 1.0}

    def hashed(**changes: object) -> str:
        return data_hash([Outcome(**{**fields, **scores, **changes})])  # type: ignore[arg-type]

    other = make_outcomes(1, with_state=True, seed=8)[0]
    changed = [
        hashed(id="x"),
        hashed(group="x"),
        hashed(text="x"),
        hashed(weak_score=0.5),
        hashed(strong_score=0.5),
        hashed(weak_score=float("nan")),
        hashed(state=other.state),
        hashed(state=None),
        *(hashed(**{name: 3}) for name in ("small_tokens", "large_tokens")),
        *(hashed(**{name: "x"}) for name in ("subject", "source", "route", "weak_response", "session")),
        *(hashed(**{name: 0.25}) for name in ("weight", "propensity", "cost_usd", "cost_if_large_usd", "threshold")),
        *(hashed(**{name: -0.5}) for name in ("small_logprob_mean", "small_logprob_min")),
        hashed(small_valid=True),
        hashed(features=b"x"),
        hashed(action=Action.LARGE),
        hashed(decided_at=datetime(2026, 1, 1, tzinfo=UTC)),
    ]
    assert len({hashed(), *changed}) == 1 + len(changed)


def test_the_files_hold_no_text_of_the_training_data(tmp_path: Path, artefact: RouterArtefact) -> None:
    artefact.save(tmp_path)
    for file in (ARRAYS_FILE, MANIFEST_FILE):
        data = (tmp_path / file).read_bytes()
        assert b"check the" not in data
        assert b"row-0-" not in data


def test_what_the_targets_promise_is_what_the_evidence_says(artefact: RouterArtefact) -> None:
    scores, seen = artefact.evidence.scores, artefact.evidence.held_out
    small, large = scores.mean(axis=0)
    for name, point in artefact.manifest.targets.items():
        goes = seen.score >= point.threshold
        if name not in artefact.manifest.share_targets:
            goes |= seen.ood > 1
        assert goes.mean() == pytest.approx(point.share)
        quality = np.where(goes, scores[:, 1], scores[:, 0]).mean()
        assert (quality - small) / (large - small) == pytest.approx(point.pgr)
        assert point.lower >= dict(TARGETS)[name]
    assert artefact.manifest.n_both == artefact.manifest.n_rows == len(scores)


def test_rows_with_one_score_train_metrics_but_are_no_evidence(trained: Trained, outcomes: list[Outcome]) -> None:
    half = [replace(one, strong_score=float("nan")) if i % 2 else one for i, one in enumerate(outcomes)]
    made = bundle(trained, half)
    assert (made.manifest.n_rows, made.manifest.n_both) == (len(half), len(half) // 2)
    pairs = [one for one in half if one.has_both]
    assert made.manifest.metrics.large_quality == pytest.approx(np.mean([one.strong_score for one in pairs]))
