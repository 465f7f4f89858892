"""The `pointsman` command: help that a person can act on, errors in one sentence, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli import build_parser, main

COMMANDS = [
    ["serve"],
    ["demo"],
    ["migrate"],
    ["keys", "create"],
    ["keys", "list"],
    ["keys", "revoke"],
    ["report", "routing"],
    ["router", "train"],
    ["router", "evaluate"],
    ["router", "generate-outcomes"],
    ["router", "export-log"],
    ["router", "artefacts"],
    ["router", "promote"],
    ["router", "rollback"],
    ["router", "calibrate"],
]


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POINTSMAN_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def failure(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("pointsman: ")
    assert said.count("\n") == 1, "one sentence, no traceback"
    return said


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_and_option_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([*command, "--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    options = [i for i, line in enumerate(lines) if line.startswith("  -")]
    assert options
    for i in options:
        own = lines[i].strip().split("  ")
        assert len(own) > 1 or lines[i + 1].startswith("      "), f"no help for {own[0]}"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["keys"], ["serve", "--port", "x"], ["router", "train"]])
def test_a_wrong_command_line_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_keys_are_created_listed_and_revoked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "the demo service"]) == 0
    secret = capsys.readouterr().out.strip()
    assert secret.startswith("sk-")
    assert main(["keys", "list"]) == 0
    listed = capsys.readouterr().out
    assert "the demo service" in listed
    assert "active" in listed
    assert secret not in listed
    assert main(["keys", "revoke", secret[:11]]) == 0
    assert main(["keys", "list"]) == 0
    assert "revoked" in capsys.readouterr().out
    assert main(["keys", "create", "operator", "--router-admin"]) == 0
    assert main(["keys", "list"]) == 0
    assert [line.endswith("operator  (router admin)") for line in capsys.readouterr().out.splitlines()[1:]] == [
        False,
        True,
    ]


def test_failures_are_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no key has the id" in failure(["keys", "revoke", "sk-nothing"], capsys)
    assert "--small takes a checkpoint folder" in failure(["serve", "--small", str(tmp_path)], capsys)
    assert "port" in failure(["serve", "--port", "70000"], capsys)
    assert "settings file" in failure(["migrate", "--config", str(tmp_path / "none.toml")], capsys)
    missing = str(tmp_path / "none.jsonl")
    assert "none.jsonl" in failure(["router", "train", "--data", missing, "--out", str(tmp_path / "r")], capsys)
    assert "no router" in failure(["router", "evaluate", "--artefact", str(tmp_path), "--data", missing], capsys)


def test_migrate_says_where_the_database_is(capsys: pytest.CaptureFixture[str], data_dir: Path) -> None:
    assert main(["migrate"]) == 0
    first = capsys.readouterr().out
    assert "revision" in first
    assert main(["migrate"]) == 0
    assert capsys.readouterr().out == first
    assert (data_dir / "pointsman.sqlite3").is_file()


def test_a_report_over_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "routing", "--since", "7d"]) == 0
    assert "No requests" in capsys.readouterr().out
    assert main(["report", "routing", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"]["requests"] == 0
    with pytest.raises(SystemExit):
        main(["report", "routing", "--since", "yesterday"])
    assert "24h" in capsys.readouterr().err


def test_router_commands_train_and_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"id": str(i), "prompt": f"question {i} " * (1 + i % 7), "weak_correct": i % 7 < 3, "strong_correct": 1}
        for i in range(140)
    ]
    data = tmp_path / "outcomes.jsonl"
    data.write_text(
        "".join(json.dumps(row | {"weak_correct": int(row["weak_correct"] is True)}) + "\n" for row in rows)
    )
    assert main(["router", "train", "--data", str(data), "--out", str(tmp_path / "router")]) == 0
    report = tmp_path / "report.json"
    arguments = [
        "router",
        "evaluate",
        "--artefact",
        str(tmp_path / "router"),
        "--data",
        str(data),
        "--json",
        str(report),
    ]
    assert main(arguments) == 0
    assert json.loads(report.read_text())["n_rows"] == 140
    assert capsys.readouterr().out


def test_help_comes_without_loading_the_engine() -> None:
    code = "import sys; from gateway.cli import build_parser; build_parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_server_that_cannot_start_says_why_in_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    taken = tmp_path / "taken"
    taken.write_text("a file, not a folder")
    arguments = ["serve", "--small", str(folder), "--large", str(folder), "--data-dir", str(taken), "--port", "0"]
    ended = subprocess.run([sys.executable, "-m", "gateway", *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert f"cannot write to {taken}" in ended.stderr
    assert "pointsman: the server could not start" in ended.stderr
