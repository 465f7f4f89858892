"""Questions with the tools offered and the calls expected, from files of JSON lines."""

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import msgspec

Category = Literal["simple", "multiple", "parallel", "parallel_multiple", "irrelevance"]
CATEGORIES: Final[tuple[Category, ...]] = get_args(Category)
_ONE_CALL: Final = ("simple", "multiple")


class RowError(Exception):
    """A file or a row that cannot be used; the message names both and says what is wrong."""


class Function(msgspec.Struct, frozen=True):
    """A tool as the data describes it: its `parameters` are in BFCL's Python dialect, not in JSON Schema."""

    name: str
    parameters: dict[str, Any]
    description: str = ""

    @property
    def properties(self) -> dict[str, Any]:
        """Description of each parameter by name."""
        found: dict[str, Any] = self.parameters.get("properties") or {}
        return found

    @property
    def required(self) -> list[str]:
        """Names of the parameters that every call gives."""
        return list(self.parameters.get("required") or ())


@dataclass(frozen=True, slots=True)
class ExpectedCall:
    """A call that the answer should contain: for each argument the accepted values, `""` if it may be left out."""

    name: str
    accepted: dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """One question. messages are OpenAI's; expected is empty where the right answer calls nothing."""

    id: str
    category: Category
    messages: tuple[dict[str, Any], ...]
    functions: tuple[Function, ...]
    expected: tuple[ExpectedCall, ...]

    def function(self, name: str) -> Function:
        """The tool of that name, which was offered."""
        return next(function for function in self.functions if function.name == name)


class _Line(msgspec.Struct):
    """A line as it is written."""

    id: str
    category: str
    question: list[list[dict[str, Any]]]
    function: list[Function]
    possible_answer: list[dict[str, dict[str, list[Any]]]] | None = None


def read_rows(folder: Path, categories: Sequence[Category] = CATEGORIES, limit: int | None = None) -> list[Row]:
    """The rows of these categories in all `*.jsonl` and `*.jsonl.gz` of a folder (or in one such file).

    The category is what each row says, whatever its file is called. limit: so many rows of each category, drawn with a
    fixed seed. Raises RowError for a row that does not follow the format, and where a category has no row.
    """
    paths = [folder] if folder.is_file() else sorted({*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")})
    if not paths:
        raise RowError(f"{folder} has no *.jsonl or *.jsonl.gz; give the folder that holds one file per category.")
    found: dict[Category, list[Row]] = {category: [] for category in categories}
    seen = dict[str, str]()
    for path in paths:
        for where, row in _rows_of(path):
            if row.id in seen:
                raise RowError(f"{where}: the id {row.id!r} was already in {seen[row.id]}; remove one of the two.")
            seen[row.id] = where
            if row.category in found:
                found[row.category].append(row)
    for category, rows in found.items():
        if not rows:
            raise RowError(f"{folder} has no row of {category}; name the others with --categories.")
    return [row for rows in found.values() for row in _drawn(rows, limit)]


def _drawn(rows: list[Row], limit: int | None) -> list[Row]:
    return rows if limit is None or limit >= len(rows) else random.Random(5).sample(rows, limit)


def _rows_of(path: Path) -> Iterator[tuple[str, Row]]:
    """Each row with its place."""
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            for number, text in enumerate(lines, 1):
                where = f"{path.name}, line {number}"
                if text.strip():
                    yield where, _row(text, where)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise RowError(f"{path} cannot be read: {error}") from error


def _row(text: str, where: str) -> Row:
    try:
        json.loads(text)  # msgspec's message for text that is no JSON names a byte only
        line = msgspec.json.decode(text, type=_Line)
    except (json.JSONDecodeError, msgspec.ValidationError) as error:
        raise RowError(f"{where}: {error}") from error
    category = next((known for known in CATEGORIES if known == line.category), None)
    if category is None:
        raise RowError(f"{where}: category {line.category!r} is not one of {', '.join(CATEGORIES)}.")
    if len(line.question) != 1 or not line.question[0]:
        raise RowError(f"{where}: {len(line.question)} turns; only questions of one turn are measured.")
    names = [function.name for function in line.function]
    if not names or len(set(names)) < len(names):
        raise RowError(f"{where}: tools {names}; at least one is needed, and no name twice.")
    expected = tuple(ExpectedCall(name, given) for call in line.possible_answer or () for name, given in call.items())
    _check_expected(category, expected, names, where)
    return Row(line.id, category, tuple(line.question[0]), tuple(line.function), expected)


def _check_expected(category: Category, expected: Sequence[ExpectedCall], names: list[str], where: str) -> None:
    if category == "irrelevance":
        if expected:
            raise RowError(f"{where}: irrelevance expects no call, but possible_answer has {len(expected)}.")
        return
    if not expected or (category in _ONE_CALL and len(expected) > 1):
        wanted = "exactly one call" if category in _ONE_CALL else "at least one call"
        raise RowError(f"{where}: {category} expects {wanted}, possible_answer has {len(expected)}.")
    unknown = sorted({call.name for call in expected} - set(names))
    if unknown:
        raise RowError(f"{where}: possible_answer calls {', '.join(unknown)}, which is not among the tools.")
