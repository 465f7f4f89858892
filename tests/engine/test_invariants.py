"""docs/invariants.md names a test for each invariant, and each test that it names exists."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (\d+) \| (.+) \| (.+) \|$", re.MULTILINE)
PROMISED = set(range(1, 34))


def rows() -> dict[int, list[str]]:
    """The tests of each numbered row, as file::name."""
    table = (ROOT / "docs" / "invariants.md").read_text(encoding="utf-8")
    found = {int(number): tests for number, _, tests in ROW.findall(table)}
    assert len(found) == len(ROW.findall(table)), "a number stands there twice"
    return {number: re.findall(r"`([^`]+)`", tests) for number, tests in found.items()}


def test_every_invariant_names_a_test() -> None:
    assert rows().keys() >= PROMISED
    assert all(rows().values())


def test_every_test_that_is_named_exists() -> None:
    for name in sorted({name for tests in rows().values() for name in tests}):
        file, _, function = name.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert function in defined, f"docs/invariants.md names {name}, which is not there"
