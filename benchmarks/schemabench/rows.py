"""Rows of a file of JSON Schemas with instances: MaskBench's (`id`, `dataset`, `features`) or the test suite's."""

import gzip
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One schema. dataset and keywords say what it counts under; tests: (instance, whether it is valid)."""

    name: str
    dataset: str
    keywords: tuple[str, ...]
    schema: Any
    tests: tuple[tuple[Any, bool], ...]


def read_rows(path: Path, limit: int | None = None) -> list[Row]:
    """The rows of a file of JSON lines, plain or gzipped, or `limit` of them drawn with a fixed seed."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        rows = [_row(json.loads(line)) for line in lines if line.strip()]
    return sample(rows, limit)


def sample(rows: list[Row], limit: int | None) -> list[Row]:
    """`limit` of the rows, drawn with a fixed seed; all of them for None."""
    return rows if limit is None or limit >= len(rows) else random.Random(5).sample(rows, limit)


def _row(line: dict[str, Any]) -> Row:
    tests = tuple((test["data"], bool(test["valid"])) for test in line.get("tests", ()))
    if "keyword" in line:  # a group of the test suite
        return Row(f"{line['keyword']}/{line['group']}", "suite", (line["keyword"],), line["schema"], tests)
    return Row(line["id"], line.get("dataset", "-"), tuple(line.get("features", ())), line["schema"], tests)
