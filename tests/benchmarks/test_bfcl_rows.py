"""Rows, and what is sent for them: every file that can't be used says why, every tool becomes one that may be sent."""

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.bfcl.client import Asking
from benchmarks.bfcl.definitions import schema_of
from benchmarks.bfcl.rows import CATEGORIES, RowError, read_rows
from benchmarks.bfcl.tool_names import ToolNames


def line(**changes: Any) -> dict[str, Any]:
    return {
        "id": "a",
        "category": "simple",
        "question": [[{"role": "user", "content": "Water the ferns for 5 minutes."}]],
        "function": [{"name": "garden.water", "description": "Waters.", "parameters": PARAMETERS}],
        "possible_answer": [{"garden.water": {"plant": ["ferns", "fern"], "minutes": [5]}}],
    } | changes


PARAMETERS = {
    "type": "dict",
    "properties": {
        "plant": {"type": "string", "description": "Which one."},
        "minutes": {"type": "float", "optional": True, "default": 2.0},
    },
    "required": ["plant"],
}


def write(path: Path, *lines: dict[str, Any]) -> Path:
    text = "".join(json.dumps(each) + "\n" for each in lines)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def test_the_category_is_what_the_row_says_and_files_may_be_gzipped(tmp_path: Path) -> None:
    write(tmp_path / "first.jsonl", line(), line(id="b", category="irrelevance", possible_answer=None))
    write(tmp_path / "held.jsonl.gz", line(id="c", category="parallel"))
    (tmp_path / "README.md").write_text("not a row")
    rows = read_rows(tmp_path, ("irrelevance", "simple", "parallel"))
    assert [(row.id, row.category) for row in rows] == [("b", "irrelevance"), ("a", "simple"), ("c", "parallel")]
    assert rows[1].expected[0].accepted["minutes"] == [5]
    assert rows[0].expected == ()


def test_one_file_may_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", line())
    write(tmp_path / "other.jsonl", line(id="b"))
    assert [row.id for row in read_rows(path, ("simple",))] == ["a"]


def test_a_limit_draws_the_same_rows_of_each_category_every_time(tmp_path: Path) -> None:
    simple = [line(id=f"s{i}") for i in range(40)]
    write(tmp_path / "rows.jsonl", *simple, *(line(id=f"m{i}", category="multiple") for i in range(3)))
    rows = read_rows(tmp_path, ("simple", "multiple"), limit=5)
    assert [row.category for row in rows] == ["simple"] * 5 + ["multiple"] * 3
    assert rows == read_rows(tmp_path, ("simple", "multiple"), limit=5)
    assert {row.id for row in rows[:5]} <= {each["id"] for each in simple}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"category": "java"}, r"rows.jsonl, line 2: category 'java' is not one of simple, multiple"),
        ({"id": 5}, r"rows.jsonl, line 2: .*`\$.id`"),
        ({"question": [[], []]}, r"2 turns; only questions of one turn"),
        ({"function": []}, r"tools \[\]; at least one"),
        ({"possible_answer": None}, r"simple expects exactly one call, possible_answer has 0"),
        ({"possible_answer": [{"garden.water": {}}] * 2}, r"simple expects exactly one call, possible_answer has 2"),
        ({"possible_answer": [{"garden.mow": {}}]}, r"calls garden.mow, which is not among the tools"),
        ({"possible_answer": [{"garden.water": {"plant": "ferns"}}]}, r"Expected `array`"),
        ({"category": "irrelevance"}, r"irrelevance expects no call, but possible_answer has 1"),
        ({"id": "a"}, r"the id 'a' was already in rows.jsonl, line 1"),
    ],
)
def test_a_bad_row_is_named_with_what_is_wrong(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write(tmp_path / "rows.jsonl", line(), line(**{"id": "b"} | changes))
    with pytest.raises(RowError, match=message):
        read_rows(tmp_path, ("simple",))


def test_files_that_hold_nothing_are_named(tmp_path: Path) -> None:
    with pytest.raises(RowError, match=r"has no \*.jsonl"):
        read_rows(tmp_path)
    path = write(tmp_path / "rows.jsonl", line())
    with pytest.raises(RowError, match=r"no row of parallel; name the others with --categories"):
        read_rows(tmp_path, ("simple", "parallel"))
    path.write_text("{not json")
    with pytest.raises(RowError, match=r"rows.jsonl, line 1: Expecting property name"):
        read_rows(tmp_path)
    (tmp_path / "torn.jsonl.gz").write_bytes(gzip.compress(b"{}" * 99)[:20])
    path.unlink()
    with pytest.raises(RowError, match=r"torn.jsonl.gz cannot be read"):
        read_rows(tmp_path)


# ---- tools ---------------------------------------------------------------------------------------------------------


def test_the_dialect_becomes_json_schema() -> None:
    described = {
        "type": "dict",
        "properties": {
            "place": {"type": "tuple", "items": {"type": "float"}, "description": "Latitude, longitude."},
            "filters": {
                "type": "array",
                "items": {"type": "dict", "properties": {"low": {"type": "float"}}, "required": ["low"]},
            },
            "unit": {"type": "string", "enum": ["m", "km"], "default": "m", "optional": True},
            "data": {"type": "any", "description": "Anything."},
            "extra": {"type": "dict", "description": "Open."},
            "type": {"type": "integer", "minimum": 1},
        },
        "required": ["place"],
        "optional": ["unit"],
    }
    assert schema_of(described) == {
        "type": "object",
        "properties": {
            "place": {"type": "array", "items": {"type": "number"}, "description": "Latitude, longitude."},
            "filters": {
                "type": "array",
                "items": {"type": "object", "properties": {"low": {"type": "number"}}, "required": ["low"]},
            },
            "unit": {"type": "string", "enum": ["m", "km"], "default": "m"},
            "data": {"description": "Anything."},
            "extra": {"type": "object", "description": "Open."},
            "type": {"type": "integer", "minimum": 1},
        },
        "required": ["place"],
    }


def test_closed_objects_admit_only_the_properties_that_they_name() -> None:
    closed = schema_of(PARAMETERS | {"properties": {"a": {"type": "dict"}, "b": PARAMETERS}}, is_closed=True)
    assert closed["additionalProperties"] is False
    assert closed["properties"]["b"]["additionalProperties"] is False
    assert "additionalProperties" not in closed["properties"]["a"]


@pytest.mark.parametrize("described", [{"type": "long"}, {"type": ["string"]}, "text"])
def test_a_type_that_the_dialect_does_not_have_is_refused_with_its_row(tmp_path: Path, described: Any) -> None:
    parameters = {"type": "dict", "properties": {"plant": described}}
    write(tmp_path / "rows.jsonl", line(function=[{"name": "garden.water", "parameters": parameters}]))
    (row,) = read_rows(tmp_path, ("simple",))
    with pytest.raises(RowError, match=r"row a: "):
        Asking("m").body(row)


def test_options_reach_the_request(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", line())
    (row,) = read_rows(tmp_path, ("simple",))
    body = Asking("m", "required", temperature=None, max_tokens=7, is_closed=True, copied=True).body(row)
    assert body["messages"] == [{"role": "user", "content": "Water the ferns for 5 minutes."}]
    assert (body["tool_choice"], body["max_tokens"], "temperature" in body) == ("required", 7, False)
    assert body["extra_body"] == {"structured_outputs": {"copy_strings": True}}
    (tool,) = body["tools"]
    assert tool["function"]["name"] == "garden_water"
    assert tool["function"]["parameters"]["additionalProperties"] is False
    assert Asking("m").body(row)["tool_choice"] == "auto"
    assert "extra_body" not in Asking("m").body(row)


@given(st.lists(st.text(st.sampled_from("ab._- é"), max_size=70), min_size=1, max_size=6, unique=True))
def test_names_follow_openais_rule_are_all_different_and_lead_back(names: list[str]) -> None:
    mapped = ToolNames(names)
    sent = [mapped.sent(name) for name in names]
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in sent)
    assert len(set(sent)) == len(names)
    assert [mapped.original(name) for name in sent] == names
    assert all(mapped.sent(name) == name for name in names if re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name))


def test_a_name_with_an_underscore_keeps_it_beside_one_with_a_dot() -> None:
    names = ToolNames(["a.b", "a_b"])
    assert (names.sent("a_b"), names.sent("a.b")) == ("a_b", "a_b_2")


def test_a_name_that_was_not_offered_is_none_of_the_datas() -> None:
    assert ToolNames(["a.b"]).original("a.b") not in ("a.b", "a_b")


def test_every_tool_of_the_data_is_a_valid_schema() -> None:
    folder = Path(os.environ.get("POINTSMAN_DATA", "missing")) / "bfcl"
    if not folder.is_dir():
        pytest.skip("no evaluation data: set POINTSMAN_DATA")
    rows = read_rows(folder)
    assert {row.category for row in rows} == set(CATEGORIES)
    for row in rows:
        for tool in Asking("m", is_closed=True).body(row)["tools"]:
            jsonschema.Draft202012Validator.check_schema(tool["function"]["parameters"])
