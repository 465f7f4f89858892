"""A slice of the fuzz in the normal tests, all of it in `make test-full`, and proof that it sees what it looks for."""

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from grammars import Constraint, Grammar, GrammarCompiler, JsonSchema, Regex
from tests.grammars.fuzz.cases import KINDS, NEEDS_DATA, Case, Corpus, make
from tests.grammars.fuzz.judge import Judge, Outcome, second_opinion
from tests.grammars.fuzz.schemas import smaller
from tests.grammars.fuzz.sentences import Chain, Either, Name, Times, Word, as_ebnf, as_lark, recognises

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("n", "seconds"), [(8_000, 20), pytest.param(100_000, 3_000, marks=pytest.mark.full)], ids=["slice", "whole"]
)
def test_every_constraint_is_applied_or_refused_in_bounded_time_and_memory(n: int, seconds: int) -> None:
    command = [sys.executable, "-m", "tests.grammars.fuzz", "--n", str(n), "--seed", "11", "--seconds", str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in NEEDS_DATA])
def test_a_case_is_made_again_from_its_seed_and_number(kind: str) -> None:
    first, second = (make(Case(kind, 3, 5), Corpus(None))[0] for _ in range(2))
    assert first == second
    assert first != make(Case(kind, 4, 5), Corpus(None))[0]


class Wrong:
    """A compiler that holds another constraint than the one it was given."""

    def __init__(self, inner: GrammarCompiler, held: Constraint) -> None:
        self._inner, self._held = inner, held

    def compile(self, _: Constraint) -> Any:
        """Whatever `held` compiles to."""
        return self._inner.compile(self._held)


@pytest.fixture(scope="module")
def judge() -> Judge:
    """One judge, whose compiler the tests replace."""
    return Judge(Corpus(None), walks=20)


def _kinds(outcome: Outcome) -> set[str]:
    return {finding.kind for finding in outcome.findings}


@pytest.mark.parametrize(
    ("asked", "held", "kind"),
    [
        (JsonSchema({"type": "integer"}), JsonSchema({"type": ["integer", "null"]}), "loose"),
        (JsonSchema({"enum": ["a", "b"]}), JsonSchema({"enum": ["a", "c"]}), "loose"),
        (Regex("a+"), Regex("a*"), "loose"),
        (JsonSchema({"type": "string"}), Regex("a"), "loose"),
    ],
    ids=["a type", "a value", "an expression", "no JSON"],
)
def test_an_answer_that_breaks_the_constraint_is_found(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, asked: Constraint, held: Constraint, kind: str
) -> None:
    assert judge.judge(asked, random.Random(1)).findings == []
    monkeypatch.setattr(judge, "_compiler", Wrong(judge._compiler, held))
    assert kind in _kinds(judge.judge(asked, random.Random(1)))


def test_any_other_exception_is_a_crash(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def compile(self, _: Constraint) -> Any:
            raise IndexError("list index out of range")

    monkeypatch.setattr(judge, "_compiler", Broken())
    assert _kinds(judge.judge(JsonSchema(True), random.Random(1))) == {"crash"}


def test_the_second_validator_has_its_own_opinion() -> None:
    outcome = Outcome("compiled")
    second_opinion({"properties": {"a": {"maximum": 3}}}, '{"a": 4}', outcome)
    assert _kinds(outcome) == {"disputed"}


def test_the_recogniser_knows_left_recursion_and_empty_words() -> None:
    # start: start "b" | r1; r1: "a"{0,2}
    rules = (Either((Chain((Name(0), Word("b"))), Name(1))), Times(Word("a"), 0, 2))
    assert [text for text in ("", "a", "aab", "bb", "aaa", "ba") if recognises(rules, text)] == ["", "a", "aab", "bb"]
    assert as_ebnf(rules) == 'root ::= (root "b" | r1)\nr1 ::= ("a"){0,2}'
    assert as_lark(rules) == 'start: (start "b" | r1)\nr1: ("a"){0,2}'


def test_smaller_schemas_lack_one_part_each() -> None:
    schema = {"type": "object", "properties": {"a": {"minimum": 1}}}
    found = list(smaller(schema))
    assert {"type": "object"} in found
    assert {"type": "object", "properties": {"a": {}}} in found
    assert schema not in found


def test_a_grammar_without_a_recogniser_is_not_called_loose(judge: Judge) -> None:
    outcome = judge.judge(Grammar('root ::= "a" | "b"'), random.Random(2))
    assert outcome.findings == []
    assert outcome.counts["finished"] == 20
