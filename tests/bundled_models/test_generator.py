"""Generated examples: reproducible, answerable from their prompts, and never shared between the splits."""

import json
from typing import Any

import jsonschema
import pytest

from bundled_models.catalogue import Split
from bundled_models.generator import STAGES, Example, Generator
from bundled_models.values import belongs

SPLITS: tuple[Split, ...] = ("train", "router", "held")


def examples(split: Split, groups: int = 60) -> list[Example]:
    generator = Generator(3, split)
    return [e for _ in range(groups) for e in generator.group(4)]


def test_equal_seeds_give_equal_examples() -> None:
    assert examples("held", 20) == examples("held", 20)


@pytest.mark.parametrize("split", SPLITS)
def test_calls_are_valid_under_the_offered_definitions(split: Split) -> None:
    for example in examples(split):
        if example.kind == "extract":
            assert example.schema is not None
            jsonschema.validate(json.loads(example.answer), example.schema)
        if example.kind in ("call", "calls"):
            offered = {t["function"]["name"]: t["function"]["parameters"] for t in example.tools}
            calls = json.loads(example.answer)
            assert (len(calls) > 1) == (example.kind == "calls")
            for call in calls:
                jsonschema.validate(call["arguments"], offered[call["name"]])
                order = list(offered[call["name"]]["properties"])
                assert sorted(call["arguments"], key=order.index) == list(call["arguments"])


@pytest.mark.parametrize("split", SPLITS)
def test_free_strings_stand_in_the_sentence_as_they_are_said(split: Split) -> None:
    for example in examples(split):
        if example.kind not in ("call", "extract"):
            continue
        said, answer = example.messages[-1]["content"], json.loads(example.answer)
        given = answer if example.schema else answer[0]["arguments"]
        schema: dict[str, Any] = example.schema or next(
            t["function"]["parameters"] for t in example.tools if t["function"]["name"] == answer[0]["name"]
        )
        for name, value in given.items():
            if isinstance(value, str) and "enum" not in schema["properties"][name]:
                assert value in said


def test_values_of_the_splits_are_disjoint() -> None:
    for value in ("Oslo", "2026-05-01", "Kretia", "run 12", "x"):
        assert [belongs(value, s) for s in SPLITS].count(True) == 1


def test_emails_of_one_split_never_appear_in_another() -> None:
    found: dict[Split, set[str]] = {}
    for split in SPLITS:
        words = {w.strip(".,;:?!()") for e in examples(split, 400) for w in e.messages[-1]["content"].split()}
        found[split] = {w for w in words if "@" in w[1:]}
    assert all(found.values())
    assert not found["train"] & found["held"]
    assert not found["router"] & (found["train"] | found["held"])


def test_a_group_shares_its_preamble() -> None:
    generator = Generator(8)
    for _ in range(40):
        assert len({e.preamble for e in generator.group(5)}) == 1


def test_stages_limit_tools_calls_and_kinds() -> None:
    generator = Generator(1, stage=STAGES[0])
    found = [e for _ in range(60) for e in generator.group(4)]
    assert max(e.offered for e in found) <= 2
    assert {e.kind for e in found} <= {"call", "extract", "chat"}
