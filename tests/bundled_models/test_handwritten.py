"""The hand-written test sentences: right answers that the text determines, in words that the catalogue does not use."""

import json
import re
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bundled_models.catalogue import FOLDER, Entry, Parameter, Phrasing, load
from bundled_models.values import WORDS

FILES = {"h": FOLDER.parent / "handwritten.jsonl", "d": FOLDER.parent / "demo_sentences.jsonl"}
FIELDS = ["id", "kind", "difficulty", "tools", "schema", "text", "expected"]
ENTRIES = {e.name: e for e in (*load().tools, *load().schemas)}
TOOLS = {e.name for e in load().tools}
SCHEMAS = {e.name for e in load().schemas}


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


LINES = {letter: read(path) for letter, path in FILES.items()}
ALL = [line for lines in LINES.values() for line in lines]
every_line = pytest.mark.parametrize("line", ALL, ids=[line["id"] for line in ALL])


def said_objects(line: dict[str, Any]) -> list[tuple[Entry, dict[str, Any]]]:
    """The expected objects with the entry that each belongs to."""
    if line["kind"] == "none":
        return []
    if line["kind"] == "extract":
        return [(ENTRIES[line["schema"]], line["expected"])]
    return [(ENTRIES[call["name"]], call["arguments"]) for call in line["expected"]]


def stands_in(said: str, text: str) -> bool:
    """True if `said` is a run of whole words of `text`."""
    return re.search(rf"(?<!\w){re.escape(said)}(?!\w)", text) is not None


def spoken_forms(value: Any, parameter: Parameter) -> list[str]:
    """The ways in which a text may say the value; empty for booleans and arrays."""
    if parameter.enum:
        return [value, *parameter.enum[value]]
    if isinstance(value, bool | list):
        return []
    if isinstance(value, int) and 1 <= value <= len(WORDS):
        return [str(value), WORDS[value - 1]]
    return [value if isinstance(value, str) else json.dumps(value)]


# ---- the right answers ----------------------------------------------------------------------------------------------


@every_line
def test_form(line: dict[str, Any]) -> None:
    assert list(line) == FIELDS
    assert line["difficulty"] in ("easy", "medium", "hard")
    assert line["text"] == line["text"].strip()
    assert "\n" not in line["text"]
    assert len(set(line["tools"])) == len(line["tools"])
    assert set(line["tools"]) <= TOOLS
    if line["kind"] == "extract":
        assert line["schema"] in SCHEMAS
        assert not line["tools"]
        assert isinstance(line["expected"], dict)
        return
    assert line["schema"] is None
    assert 1 <= len(line["tools"]) <= 6
    if line["kind"] == "none":
        assert line["expected"] is None
        return
    assert len(line["expected"]) in {"call": (1,), "calls": (2, 3)}[line["kind"]]
    for call in line["expected"]:
        assert list(call) == ["name", "arguments"]
        assert call["name"] in line["tools"]


@every_line
def test_arguments(line: dict[str, Any]) -> None:
    for entry, values in said_objects(line):
        known = {p.name: p for p in entry.parameters}
        assert list(values) == [name for name in known if name in values], "order of the declaration, no strange names"
        assert {p.name for p in entry.parameters if p.required} <= set(values)
        for name, value in values.items():
            check_value(value, known[name], line["text"])


def check_value(value: Any, parameter: Parameter, text: str) -> None:
    kinds = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,)}
    assert type(value) in kinds[parameter.type]
    if parameter.enum:
        assert value in parameter.enum
        assert any(stands_in(form.lower(), text.lower()) for form in spoken_forms(value, parameter)), value
    elif parameter.type == "array":
        assert value
        assert all(isinstance(item, str) and stands_in(item, text) for item in value)
        assert all(text.index(one) < text.index(two) for one, two in pairwise(value))
    elif parameter.type == "string":
        assert stands_in(value, text), value
    elif parameter.type != "boolean":
        low, high = parameter.range or (value, value)
        assert low <= value <= high
        assert any(
            stands_in(form, text) or stands_in(form.capitalize(), text) for form in spoken_forms(value, parameter)
        )


@every_line
def test_difficulty(line: dict[str, Any]) -> None:
    given = sum(len(values) for _, values in said_objects(line))
    if line["kind"] == "calls":
        assert line["difficulty"] == "hard"
    elif line["kind"] == "call":
        assert given < 4 or line["difficulty"] == "hard"
        domains = {ENTRIES[name].domain for name in line["tools"]}
        assert line["difficulty"] != "easy" or (given <= 2 and len(domains) == len(line["tools"]))


# ---- the mix --------------------------------------------------------------------------------------------------------


def test_ids() -> None:
    assert [line["id"] for line in LINES["h"]] == [f"h{n:03}" for n in range(1, 201)]
    assert [line["id"] for line in LINES["d"]] == [f"d{n:02}" for n in range(1, 13)]
    assert len({line["text"].lower() for line in ALL}) == len(ALL)


def test_mix() -> None:
    kinds = Counter(line["kind"] for line in LINES["h"])
    assert kinds == {"call": 120, "calls": 20, "none": 20, "extract": 40}
    called = Counter(line["expected"][0]["name"] for line in LINES["h"] if line["kind"] == "call")
    assert set(called) == TOOLS
    assert min(called.values()) >= 2
    extracted = Counter(line["schema"] for line in LINES["h"] if line["kind"] == "extract")
    assert set(extracted) == SCHEMAS
    assert min(extracted.values()) >= 3
    assert min(Counter(line["difficulty"] for line in LINES["h"]).values()) >= 40


def test_demo_mix() -> None:
    assert Counter(line["kind"] for line in LINES["d"]) == {"call": 8, "extract": 4}
    assert {line["difficulty"] for line in LINES["d"]} == {"medium"}
    assert all(len(line["tools"]) == 3 for line in LINES["d"] if line["kind"] == "call")


# ---- the wording ----------------------------------------------------------------------------------------------------


def literal_words(phrasing: Phrasing) -> int:
    """How many fixed words the phrasing has outside its brackets."""
    return sum(len(re.findall(r"\w+", re.sub(r"\{\w+\}", " ", p.text))) for p in phrasing.pieces if not p.optional)


def pattern(phrasing: Phrasing, slots: dict[str, str] | None = None) -> re.Pattern[str]:
    """What the phrasing can say: brackets optional, slots as given (default: anything), the closing mark free."""
    parts = []
    for piece in phrasing.pieces:
        runs = re.split(r"\{(\w+)\}", piece.text)
        said = "".join(
            (slots.get(run, r"(?!)") if slots is not None else r".+?") if index % 2 else re.escape(run)
            for index, run in enumerate(runs)
        )
        parts.append(f"(?:{said})?" if piece.optional else said)
    return re.compile(rf"\s*{''.join(parts)}\s*[.?!]*", re.IGNORECASE | re.DOTALL)


@cache
def wordy() -> list[re.Pattern[str]]:
    """All phrasings with words enough of their own that any values may fill the slots."""
    phrasings = (p for e in ENTRIES.values() for split in e.phrasings.values() for p in split)
    return [pattern(p) for p in dict.fromkeys(phrasings) if literal_words(p) >= 2]


def values_as_slots(values: dict[str, Any], entry: Entry) -> dict[str, str]:
    slots = {}
    for parameter in entry.parameters:
        value = values.get(parameter.name)
        if isinstance(value, list):
            slots[parameter.name] = r"\W+(?:and\W+)?".join(map(re.escape, value))
        elif value is not None and not isinstance(value, bool):
            forms = "|".join(map(re.escape, spoken_forms(value, parameter)))
            slots[parameter.name] = rf"['\"]?(?:{forms})['\"]?"
    return slots


@every_line
def test_no_catalogue_wording(line: dict[str, Any]) -> None:
    same = [p.pattern for p in wordy() if p.fullmatch(line["text"])]
    for entry, values in said_objects(line):
        slots = values_as_slots(values, entry)
        phrasings = {p for split in entry.phrasings.values() for p in split}
        same += [p.source for p in phrasings if pattern(p, slots).fullmatch(line["text"])]
    assert not same


def test_the_wording_check_finds_catalogue_sentences() -> None:
    entry = ENTRIES["get_forecast"]
    terse = next(p for split in entry.phrasings.values() for p in split if literal_words(p) >= 2)
    said = re.sub(r"\{\w+\}", "Paris", "".join(p.text for p in terse.pieces if not p.optional))
    assert any(p.fullmatch(said.upper() + "?") for p in wordy())
