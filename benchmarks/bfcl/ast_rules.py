"""BFCL's rules for the calls of an answer: which are right, and the first mistake of those that are not."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from benchmarks.bfcl.ast_values import OMITTED, argument_mistake
from benchmarks.bfcl.rows import ExpectedCall, Function, Row


class Mistake(StrEnum):
    """Why an answer is wrong. A call is checked in the order of WRONG_FUNCTION to MISSING_ARGUMENT."""

    TEXT = "text instead of call"
    WRONG_COUNT = "wrong count"
    WRONG_FUNCTION = "wrong function"
    MISSING_REQUIRED = "missing required"
    UNEXPECTED_ARGUMENT = "unexpected argument"
    TYPE = "type error"
    VALUE = "value error"
    MISSING_ARGUMENT = "missing argument"  # optional to the tool, but without it the call is another one
    CALL_ON_IRRELEVANCE = "call on irrelevance"
    UNREADABLE = "unreadable call"
    SERVER = "server error"
    REFUSED_SCHEMA = "refused schema"


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the answer. name: as in the data; arguments: None where they are no JSON object."""

    name: str
    arguments: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake, and what it is about."""

    mistake: Mistake
    text: str


def judge(row: Row, calls: list[Call]) -> Finding | None:
    """The mistake in an answer of these calls (none: it was text); None when it is right.

    Where nothing is to be called, calls with unreadable arguments count as none, as on the leaderboard. Else the answer
    has as many calls as are expected, in any order: each expected call in turn takes the first call that is right for
    it, and nothing is tried again. The mistake is then that of the call which came nearest.
    """
    readable = all(call.arguments is not None for call in calls)
    if row.category == "irrelevance":
        names = ", ".join(call.name for call in calls)
        return Finding(Mistake.CALL_ON_IRRELEVANCE, f"called {names}") if calls and readable else None
    if not calls:
        return Finding(Mistake.TEXT, f"expected {len(row.expected)} calls")
    if not readable:
        names = ", ".join(call.name for call in calls if call.arguments is None)
        return Finding(Mistake.UNREADABLE, f"the arguments of {names} are no JSON object")
    if len(calls) != len(row.expected):
        return Finding(Mistake.WRONG_COUNT, f"{len(calls)} calls instead of {len(row.expected)}")
    left = list(calls)
    for expected in row.expected:
        findings = list[Finding]()
        for index, call in enumerate(left):
            finding = _compare(row.function(expected.name), expected, call)
            if finding is None:
                del left[index]
                break
            findings.append(finding)
        else:
            return max(findings, key=lambda finding: list(Mistake).index(finding.mistake))
    return None


def _compare(function: Function, expected: ExpectedCall, call: Call) -> Finding | None:
    """The first mistake in a call, in the order of `Mistake`; None if it is the expected one."""
    given = call.arguments or {}
    if call.name != expected.name:
        return Finding(Mistake.WRONG_FUNCTION, f"called {call.name} instead of {expected.name}")
    for name in function.required:
        if name not in given:
            return Finding(Mistake.MISSING_REQUIRED, f"{call.name} without {name}")
    for name, value in given.items():
        if name not in function.properties or name not in expected.accepted:
            return Finding(Mistake.UNEXPECTED_ARGUMENT, f"{call.name} with {name}")
        if mistake := argument_mistake(function.properties[name], value, expected.accepted[name]):
            return Finding(Mistake(mistake), f"{call.name}: {name} is {value!r}, not of {expected.accepted[name]!r}")
    for name, accepted in expected.accepted.items():
        if name not in given and OMITTED not in accepted:
            return Finding(Mistake.MISSING_ARGUMENT, f"{call.name} without {name}")
    return None
