"""`pointsman router promote`, `rollback`, `artefacts` and `calibrate` on files, with no server: as one would decide."""

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.loaded_model import fingerprint
from gateway.cli import main
from router_model.artefact import RouterArtefact
from router_model.commands import train
from router_model.outcomes import OutcomeRow, write_outcomes
from router_model.registry import Registry
from tests.gateway.router_worlds import Routers, foreign_router, train_routers, world
from tests.gateway.server import Checkpoints
from tests.router_model.encoders import build_encoder


@pytest.fixture(scope="module")
def routers(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Routers:
    return train_routers(tmp_path_factory.mktemp("routers"), checkpoints)


@pytest.fixture(autouse=True)
def settings(checkpoints: Checkpoints, routers: Routers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a server of the test's pair with the blind router and an empty registry."""
    monkeypatch.setenv("POINTSMAN_SMALL", str(checkpoints.small))
    monkeypatch.setenv("POINTSMAN_LARGE", str(checkpoints.large))
    monkeypatch.setenv("POINTSMAN_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("POINTSMAN_ROUTER", str(routers.blind))


def test_the_commands_go_by_the_router_that_the_server_uses(
    routers: Routers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(tmp_path / "routers")
    foreign = registry.add(foreign_router(routers, ""))
    registry.promote(foreign)
    assert main(["router", "artefacts"]) == 0
    said = capsys.readouterr().out
    assert f"  {foreign[:12]}" in said
    assert f"* {blind_line(routers)}" in said
    assert "(of the settings)" in said
    assert "the small model (none recorded)" in said
    data = tmp_path / "held out.jsonl"
    write_outcomes(data, world(200, 12))
    assert main(["router", "calibrate", "--data", str(data)]) == 0
    assert f"recalibrated from {routers.hash('blind')[:12]}" in capsys.readouterr().out
    assert main(["router", "promote", str(routers.seeing), "--data", str(data)]) == 0
    assert f"against {routers.hash('blind')[:12]}" in capsys.readouterr().out
    assert main(["router", "artefacts"]) == 0
    assert f"* {routers.hash('seeing')[:12]}" in capsys.readouterr().out
    assert main(["router", "rollback"]) == 0
    assert "in force: what the settings say" in capsys.readouterr().out
    monkeypatch.setenv("POINTSMAN_SMALL", str(tmp_path / "nowhere"))
    assert main(["router", "artefacts"]) == 2
    assert "there is no model in" in capsys.readouterr().err


def blind_line(routers: Routers) -> str:
    return f"{routers.hash('blind')[:12]}  state"


def test_the_command_compares_on_a_file(routers: Routers, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "held out.jsonl"
    write_outcomes(data, world(200, 9))
    assert main(["router", "promote", str(routers.seeing), "--data", str(data)]) == 0
    assert "APGR +" in capsys.readouterr().out
    assert main(["router", "promote", str(routers.blind), "--data", str(data)]) == 2
    assert "not measurably better" in capsys.readouterr().err
    assert main(["router", "rollback"]) == 0
    assert main(["router", "rollback"]) == 2
    assert main(["router", "promote", "abc"]) == 2
    assert main(["router", "calibrate", "--data", str(data)]) == 0
    assert "recalibrated from" in capsys.readouterr().out


def test_what_a_router_was_trained_on_promotes_none(
    routers: Routers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, n in (("seeing", 400), ("blind", 200)):
        own = getattr(routers, name).parent / "outcomes.jsonl"
        assert main(["router", "promote", str(routers.seeing), "--data", str(own)]) == 2
        assert f"0 graded requests have the scores of both models, beside {n} that one" in capsys.readouterr().err
    write_outcomes(tmp_path / "others.jsonl", world(200, 13))
    mixed = [str(routers.seeing.parent / "outcomes.jsonl"), str(tmp_path / "others.jsonl")]
    assert main(["router", "promote", str(routers.seeing), "--data", *mixed]) == 0
    said = capsys.readouterr().out
    assert "400 requests are left out: one of the routers was trained on them" in said
    assert "on 200 requests" in said


def test_of_a_router_from_before_it_is_said_that_nothing_can_be_checked(
    routers: Routers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = dataclasses.replace(RouterArtefact.load(routers.seeing), learned=None)
    older.save(tmp_path / "older")
    own = routers.seeing.parent / "outcomes.jsonl"
    assert main(["router", "promote", str(tmp_path / "older"), "--data", str(own)]) == 0
    said = capsys.readouterr().out
    assert f"{older.hash[:12]} does not say what it was trained on" in said
    assert "left out" not in said


def test_rows_of_a_file_that_were_decided_before_the_routers_were_made_are_left_out(
    routers: Routers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Without a zone, as a file of others may have it, and with one.
    before, after = datetime(2020, 1, 1), datetime.now(UTC) + timedelta(days=1)
    found = [
        msgspec.structs.replace(row, decided_at=before if i % 2 else after) for i, row in enumerate(world(300, 14))
    ]
    data = tmp_path / "log.jsonl"
    write_outcomes(data, found)
    assert main(["router", "promote", str(routers.seeing), "--data", str(data)]) == 0
    said = capsys.readouterr().out
    assert "150 of 300 rows are left out: they were decided before" in said
    assert "on 150 requests" in said


def test_a_damaged_copy_in_the_registry_is_put_right_by_the_folder_that_it_came_from(
    routers: Routers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeing = routers.hash("seeing")
    assert main(["router", "promote", str(routers.seeing), "--force"]) == 0
    (tmp_path / "routers" / seeing / "router.safetensors").write_bytes(b"")
    assert main(["router", "artefacts"]) == 0
    said = capsys.readouterr().out
    assert f"  {seeing[:12]}  cannot be used" in said
    assert f"* {blind_line(routers)}" in said
    assert main(["router", "promote", str(routers.seeing), "--force"]) == 0
    assert main(["router", "artefacts"]) == 0
    assert f"* {seeing[:12]}" in capsys.readouterr().out


def test_a_router_that_reads_embeddings_is_promoted_and_calibrated_from_files(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = build_encoder(tmp_path / "encoder")

    def worded(n: int, seed: int, *, is_mixed: bool) -> list[OutcomeRow]:
        rng = np.random.default_rng(seed)
        rows = []
        for i in range(n):
            is_hard = bool(rng.random() < 0.5)
            words = " ".join(rng.choice(["finance", "calendar"] if is_hard else ["weather", "day"], 16))
            is_wrong = bool(rng.random() < 0.5) if is_mixed else is_hard
            rows.append(
                OutcomeRow(id=f"{seed}-{i}", prompt=f"check {words}", weak_score=float(not is_wrong), strong_score=1.0)
            )
        return rows

    small, large = fingerprint(checkpoints.small), fingerprint(checkpoints.large)
    folders = {}
    for name, is_mixed in (("blind", True), ("seeing", False)):
        write_outcomes(tmp_path / f"{name}.jsonl", worded(150, 20 + is_mixed, is_mixed=is_mixed))
        folders[name] = str(tmp_path / name)
        files = [tmp_path / f"{name}.jsonl"]
        out = folders[name]
        train(files, out, small_model=small, large_model=large, embedding_model=encoder, show=lambda _: None)
    data = str(tmp_path / "held out.jsonl")
    write_outcomes(data, worded(1_000, 22, is_mixed=False))
    monkeypatch.setenv("POINTSMAN_ROUTER", folders["blind"])

    assert main(["router", "promote", folders["seeing"], "--data", data]) == 2
    assert "set routing.embedding_model" in capsys.readouterr().err
    named = ["--embedding-model", str(encoder)]
    assert main(["router", "promote", folders["seeing"], "--data", data, *named]) == 0
    monkeypatch.setenv("POINTSMAN_ROUTING_EMBEDDING_MODEL", str(encoder))
    assert main(["router", "calibrate", "--data", data]) == 0
    assert main(["router", "promote", folders["blind"], "--data", data]) == 2
    assert "not measurably better" in capsys.readouterr().err
