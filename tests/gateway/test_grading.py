"""The operator's own grader as a real process, and what becomes of answers that it fails on."""

import asyncio
import json
import shlex
import sys
import time
from pathlib import Path

import pytest

from gateway.cli import build_parser
from gateway.routing.grading import CommandGrader, GradedAnswer, GraderError, make_grader
from router_model.grading import GraderName


def command(tmp_path: Path, body: str) -> str:
    program = tmp_path / "grader with a space.py"
    program.write_text(body)
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(program))} --strict"


def answer(text: str = "Paris", **fields: object) -> GradedAnswer:
    request = {"messages": [{"role": "user", "content": "Capital of France?"}]}
    return GradedAnswer(**{"request": request, "model": "small", "text": text, "ended": True, "valid": None} | fields)  # type: ignore[arg-type]


READS_ALL = """
import json, sys
said = json.load(sys.stdin)
assert sys.argv[1:] == ["--strict"]
assert said["request"]["messages"][0]["content"] == "Capital of France?"
print("thinking about", said["answer"])
print({"Paris": 1, "Lyon": 0.25}[said["answer"]] if said.get("expected", "?") == "?" else 0.5)
print()
"""


async def test_the_last_line_is_the_score(tmp_path: Path) -> None:
    grader = CommandGrader(command(tmp_path, READS_ALL), timeout_s=20)
    assert await grader.grade(answer("Paris")) == 1.0
    assert await grader.grade(answer("Lyon")) == 0.25
    assert await grader.grade(answer("Lyon", expected="Paris")) == 0.5
    assert await grader.grade(answer("Lyon", expected=None)) == 0.5  # null is an expectation: that no call was due
    assert grader.failures == 0


@pytest.mark.parametrize(
    "body",
    [
        "raise SystemExit(3)",
        "print(1); raise SystemExit(1)",
        "print('good')",
        "print(1.5)",
        "print('nan')",
        "",
        "print('x' * 100_000)",
        "import os; os.kill(os.getpid(), 9)",
    ],
)
async def test_a_grader_that_fails_leaves_the_answer_ungraded(tmp_path: Path, body: str) -> None:
    grader = CommandGrader(command(tmp_path, body), timeout_s=20)
    assert await grader.grade(answer()) is None
    assert grader.failures == 1


async def test_a_grader_that_reads_nothing_still_counts(tmp_path: Path) -> None:
    grader = CommandGrader(command(tmp_path, "print(0.75)"), timeout_s=20)
    assert await grader.grade(answer("long " * 200_000)) == 0.75


async def test_a_grader_that_takes_too_long_is_killed_with_all_it_started(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    body = f"""
import subprocess, sys, time
child = "import time, pathlib\\nwhile True: pathlib.Path({str(mark)!r}).write_text(str(time.time())); time.sleep(0.02)"
subprocess.Popen([sys.executable, "-c", child])
time.sleep(60)
"""
    grader = CommandGrader(command(tmp_path, body), timeout_s=2.0)
    began = time.monotonic()
    assert await grader.grade(answer()) is None
    assert time.monotonic() - began < 10
    assert mark.exists(), "the child must have run, or this test shows nothing"
    await asyncio.sleep(0.2)
    last = mark.read_text()
    await asyncio.sleep(0.3)
    assert mark.read_text() == last


async def test_no_shell_reads_the_command(tmp_path: Path) -> None:
    target = tmp_path / "made"
    grader = CommandGrader(f"echo 1 ; touch {target}", timeout_s=20)
    assert await grader.grade(answer()) is None  # it echoed all of it, which is no number
    assert not target.exists()


async def test_our_settings_are_not_in_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTSMAN_ACCOUNTS_KEY_PEPPER", "secret")
    monkeypatch.setenv("GRADER_MODEL", "judge")
    body = "import os; print(float(os.environ.get('GRADER_MODEL') == 'judge' and 'secret' not in os.environ.values()))"
    assert await CommandGrader(command(tmp_path, body), timeout_s=20).grade(answer()) == 1.0


async def test_no_more_run_at_once_than_allowed(tmp_path: Path) -> None:
    body = f"""
import os, pathlib, time
folder = pathlib.Path({str(tmp_path / "running")!r})
folder.mkdir(exist_ok=True)
own = folder / str(os.getpid())
own.touch()
time.sleep(0.3)
print(float(len(list(folder.iterdir())) <= 2))
own.unlink()
"""
    grader = CommandGrader(command(tmp_path, body), timeout_s=30, at_once=2)
    assert await asyncio.gather(*(grader.grade(answer()) for _ in range(6))) == [1.0] * 6


@pytest.mark.parametrize("bad", ["", "   ", "grade 'unclosed"])
def test_a_command_that_cannot_be_read_is_refused_at_once(bad: str) -> None:
    with pytest.raises(GraderError):
        CommandGrader(bad, timeout_s=1)


async def test_a_program_that_is_not_there_leaves_answers_ungraded() -> None:
    grader = CommandGrader("no-such-program-anywhere", timeout_s=1)
    assert await grader.grade(answer()) is None
    assert grader.failures == 1


def test_every_grader_can_be_chosen_on_the_command_line() -> None:
    command = ["router", "generate-outcomes", "--data", "requests.jsonl", "--out", "outcomes.jsonl", "--grader"]
    for name in GraderName:
        assert build_parser().parse_args([*command, name.value]).grader == name


async def test_graders_are_made_by_name() -> None:
    assert await make_grader(GraderName.SCHEMA_VALID, command=None, timeout_s=1).grade(answer()) == 1.0
    exact = make_grader(GraderName.EXACT_MATCH, command=None, timeout_s=1)
    assert await exact.grade(answer(expected="Paris")) == 1.0
    assert await exact.grade(answer(expected=json.loads("null"))) == 1.0
    assert await exact.grade(answer()) is None  # nothing to compare with
    with pytest.raises(GraderError, match="grader_command"):
        make_grader(GraderName.COMMAND, command=None, timeout_s=1)
