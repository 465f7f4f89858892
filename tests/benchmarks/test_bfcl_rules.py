"""BFCL's rules, case by case as its checker decides them, with rows of our own."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bfcl.ast_rules import Call, Mistake, judge
from benchmarks.bfcl.ast_values import argument_mistake
from benchmarks.bfcl.rows import Category, ExpectedCall, Function, Row, read_rows

TYPE, VALUE = "type error", "value error"
STRING, INTEGER, FLOAT, BOOLEAN = ({"type": name} for name in ("string", "integer", "float", "boolean"))
DICT, ANY = {"type": "dict"}, {"type": "any"}


def array_of(item: str, kind: str = "array") -> dict[str, Any]:
    return {"type": kind, "items": {"type": item}}


VALUES: list[tuple[str, dict[str, Any], Any, list[Any], str | None]] = [
    ("an equal string", STRING, "Oslo", ["Oslo"], None),
    ("letters' case does not count", STRING, "OSLO", ["Oslo"], None),
    ("spaces do not count", STRING, "New  York ", ["NewYork"], None),
    ("commas, dots and slashes do not count", STRING, "May 1, 2031.", ["May/1 2031"], None),
    ("dashes, underscores, stars and carets do not count", STRING, "x^2_a*b-c", ["x2abc"], None),
    ("quotes are all double", STRING, "the 'old' one", ['The "old" one'], None),
    ("colons count", STRING, "10:30", ["1030"], VALUE),
    ("plus signs count", STRING, "a+b", ["ab"], VALUE),
    ("line breaks count", STRING, "a\nb", ["ab"], VALUE),
    ("accents count", STRING, "Malmo", ["Malmö"], VALUE),
    ("any of several strings", STRING, "NYC", ["New York", "NYC"], None),
    ("another string", STRING, "Bergen", ["Oslo"], VALUE),
    ("a number is no string", STRING, 5, ["5"], TYPE),
    ("null is no string", STRING, None, ["Oslo", ""], TYPE),
    ("an empty string where the argument may be left out", STRING, "", ["Oslo", ""], None),
    ("only ignored characters where it may be left out", STRING, " - ", ["Oslo", ""], None),
    ("an empty string where it may not", STRING, "", ["Oslo"], VALUE),
    ("an equal integer", INTEGER, 5, [5], None),
    ("another integer", INTEGER, 6, [5], VALUE),
    ("a float is no integer", INTEGER, 5.0, [5], TYPE),
    ("digits are no integer", INTEGER, "5", [5], TYPE),
    ("true is no integer", INTEGER, True, [1], TYPE),
    ("an integer beside leave to omit", INTEGER, 5, [5, ""], None),
    ("an empty string is no omitted integer", INTEGER, "", [5, ""], TYPE),
    ("an equal float", FLOAT, 2.5, [2.5], None),
    ("an integer for a float", FLOAT, 2, [2.0], None),
    ("an integer for a float whose answers are integers", FLOAT, 2, [2], None),
    ("a float near by", FLOAT, 2.4999, [2.5], VALUE),
    ("an integer that no float holds", FLOAT, 10**400, [2.5], TYPE),
    ("true is no float", FLOAT, True, [1.0], TYPE),
    ("an equal boolean", BOOLEAN, True, [True], None),
    ("the other boolean", BOOLEAN, False, [True], VALUE),
    ("one is not true", BOOLEAN, 1, [True], TYPE),
    ("a word is no boolean", BOOLEAN, "true", [True], TYPE),
    ("a boolean that can only be left out", BOOLEAN, True, [""], VALUE),
    ("an equal array", array_of("integer"), [1, 2], [[1, 2]], None),
    ("another order", array_of("integer"), [2, 1], [[1, 2]], VALUE),
    ("a shorter array", array_of("integer"), [1], [[1, 2]], VALUE),
    ("one of several arrays", array_of("integer"), [2, 1], [[1, 2], [2, 1]], None),
    ("strings in an array are plain, too", array_of("string"), ["New York", "oslo"], [["newyork", "Oslo"]], None),
    ("an item of another type", array_of("integer"), [1, "2"], [[1, 2]], TYPE),
    ("a float in an array of integers", array_of("integer"), [1, 2.0], [[1, 2]], TYPE),
    ("an integer is no float inside an array", array_of("float"), [1, 2.5], [[1.0, 2.5]], TYPE),
    ("unless the answer's items are integers", array_of("float"), [1, 2], [[1, 2]], None),
    ("true in an array of integers", array_of("integer"), [True], [[1]], TYPE),
    ("a string for an array", array_of("string"), "Oslo", [["Oslo"]], TYPE),
    ("an object for an array", array_of("string"), {}, [["Oslo"]], TYPE),
    ("no items where the array may be left out", array_of("string"), [], [["Oslo"], ""], None),
    ("no items where it may not", array_of("string"), [], [["Oslo"]], VALUE),
    ("types of items are not looked at where it may be left out", array_of("integer"), ["x"], [[1], ""], VALUE),
    ("arrays in an array are equal or not", array_of("array"), [[1, 2], [3]], [[[1, 2], [3]]], None),
    ("strings two levels deep are compared exactly", array_of("array"), [["oslo"]], [[["Oslo"]]], VALUE),
    ("types two levels deep are not looked at", array_of("array"), [[1.0]], [[[1]]], None),
    ("a tuple is an array", array_of("float", "tuple"), [59.9, 10.7], [[59.9, 10.7]], None),
    ("a tuple in another order", array_of("float", "tuple"), [10.7, 59.9], [[59.9, 10.7]], VALUE),
    ("a tuple of integers where floats are due", array_of("float", "tuple"), [60, 10], [[60.0, 10.0]], TYPE),
    ("an equal object", DICT, {"low": 1, "high": 2}, [{"low": [1], "high": [2]}], None),
    ("members in another order", DICT, {"high": 2, "low": 1}, [{"low": [1], "high": [2]}], None),
    ("a member among several", DICT, {"unit": "km"}, [{"unit": ["miles", "km"]}], None),
    ("strings in an object are compared as strings", DICT, {"city": "new york"}, [{"city": ["New York"]}], None),
    ("a member too many", DICT, {"low": 1, "top": 2}, [{"low": [1]}], VALUE),
    ("a member too few", DICT, {"low": 1}, [{"low": [1], "high": [2]}], VALUE),
    ("a member that may be missing", DICT, {"low": 1}, [{"low": [1], "high": [2, ""]}], None),
    ("a member with another value", DICT, {"low": 3}, [{"low": [1, 2]}], VALUE),
    ("members are compared as Python does", DICT, {"low": True, "high": 2.0}, [{"low": [1], "high": [2]}], None),
    ("one of several objects", DICT, {"b": 1}, [{"a": [1]}, {"b": [1]}], None),
    ("members are not mixed", DICT, {"a": 1, "b": 2}, [{"a": [1], "b": [1]}, {"a": [2], "b": [2]}], VALUE),
    ("an object in an object is equal or not", DICT, {"a": {"b": 1}}, [{"a": [{"b": 1}]}], None),
    ("strings in an object in an object are compared exactly", DICT, {"a": {"b": "x"}}, [{"a": [{"b": "X"}]}], VALUE),
    ("an array in an object is compared exactly", DICT, {"a": ["x"]}, [{"a": [["X"]]}], VALUE),
    ("no members are no omitted object", DICT, {}, [{"a": [1]}, ""], VALUE),
    ("an array for an object", DICT, [1], [{"a": [1]}], TYPE),
    ("equal objects in an array", array_of("dict"), [{"a": 1}, {"a": 2}], [[{"a": [1]}, {"a": [2]}]], None),
    ("objects in another order", array_of("dict"), [{"a": 2}, {"a": 1}], [[{"a": [1]}, {"a": [2]}]], VALUE),
    ("an object too few", array_of("dict"), [{"a": 1}], [[{"a": [1]}, {"a": [2]}]], VALUE),
    ("strings in objects in an array", array_of("dict"), [{"op": "EQUALS"}], [[{"op": ["equals", "="]}]], None),
    ("a member that may be missing there", array_of("dict"), [{"a": 1}], [[{"a": [1], "b": [2, ""]}]], None),
    ("a number for an object in an array", array_of("dict"), [1], [[{"a": [1]}]], TYPE),
    ("no objects where the array may be left out", array_of("dict"), [], [[{"a": [1]}], ""], None),
    ("any is a string", ANY, "Rows", ["rows"], None),
    ("any is of the answers' type, too", ANY, 5, [5], None),
    ("any other type", ANY, True, [5], TYPE),
    ("a variable for a number", INTEGER, "count", ["count"], None),
    ("a variable is compared exactly", INTEGER, "Count", ["count"], VALUE),
    ("a number where a variable is due", INTEGER, 5, ["count"], VALUE),
    ("a variable for an array", array_of("float"), "readings", ["readings"], None),
    ("a variable for an object", DICT, "options", ["options", ""], None),
    ("a list of names for one name", STRING, ["a", "b"], [["a", "b"]], None),
    ("the first accepted value says what is a variable", INTEGER, "count", [5, "count"], TYPE),
    ("leave to omit says nothing about the type", INTEGER, "count", ["", "count"], None),
    ("without accepted values nothing is right", INTEGER, 5, [], VALUE),
]  # fmt: skip


@pytest.mark.parametrize(
    ("declared", "value", "accepted", "mistake"), [v[1:] for v in VALUES], ids=[v[0] for v in VALUES]
)
def test_a_value_is_compared_by_the_rules(
    declared: dict[str, Any], value: Any, accepted: list[Any], mistake: str | None
) -> None:
    assert argument_mistake(declared, value, accepted) == mistake


# ---- calls ---------------------------------------------------------------------------------------------------------

ORDER = Function(
    "shop.order",
    {"type": "dict", "properties": {"item": STRING, "count": INTEGER, "gift": BOOLEAN}, "required": ["item"]},
)
CANCEL = Function("shop_cancel", {"type": "dict", "properties": {"number": INTEGER}, "required": ["number"]})


def row(category: Category, *expected: ExpectedCall) -> Row:
    return Row("r", category, ({"role": "user", "content": "?"},), (ORDER, CANCEL), expected)


def order(**accepted: list[Any]) -> ExpectedCall:
    return ExpectedCall("shop.order", accepted)


def ordered(**arguments: Any) -> Call:
    return Call("shop.order", arguments)


TEA = order(item=["tea"], count=[2, ""])
PEN = order(item=["pen"], count=[1])
CALLS: list[tuple[str, Row, list[Call], Mistake | None]] = [
    ("the call", row("simple", TEA), [ordered(item="tea", count=2)], None),
    ("an argument that may be left out is", row("simple", TEA), [ordered(item="Tea")], None),
    (
        "one that must be given is not, though the tool could do without",
        row("simple", PEN),
        [ordered(item="pen")],
        Mistake.MISSING_ARGUMENT,
    ),
    ("a required one is missing", row("simple", TEA), [ordered(count=2)], Mistake.MISSING_REQUIRED),
    (
        "required by the tool, whatever is accepted",
        row("simple", order(item=["", "tea"])),
        [ordered()],
        Mistake.MISSING_REQUIRED,
    ),
    (
        "an argument that the tool has not",
        row("simple", TEA),
        [ordered(item="tea", size=1)],
        Mistake.UNEXPECTED_ARGUMENT,
    ),
    (
        "an argument that the answer has not",
        row("simple", TEA),
        [ordered(item="tea", gift=True)],
        Mistake.UNEXPECTED_ARGUMENT,
    ),
    (
        "an accepted argument that the tool has not",
        row("simple", order(item=["tea"], size=[1])),
        [ordered(item="tea", size=1)],
        Mistake.UNEXPECTED_ARGUMENT,
    ),
    ("a wrong type", row("simple", TEA), [ordered(item="tea", count="2")], Mistake.TYPE),
    ("a wrong value", row("simple", TEA), [ordered(item="coffee", count=2)], Mistake.VALUE),
    ("the first mistake counts", row("simple", TEA), [ordered(item="coffee", count="2")], Mistake.VALUE),
    ("another function", row("multiple", TEA), [Call("shop_cancel", {"number": 2})], Mistake.WRONG_FUNCTION),
    ("a dot is no underscore", row("multiple", TEA), [Call("shop_order", {"item": "tea"})], Mistake.WRONG_FUNCTION),
    (
        "the right one among several",
        row("multiple", ExpectedCall("shop_cancel", {"number": [7]})),
        [Call("shop_cancel", {"number": 7})],
        None,
    ),
    ("twice the right call", row("simple", TEA), [ordered(item="tea"), ordered(item="tea")], Mistake.WRONG_COUNT),
    ("text", row("simple", TEA), [], Mistake.TEXT),
    ("text instead of several", row("parallel", TEA, PEN), [], Mistake.TEXT),
    ("arguments that are no object", row("simple", TEA), [Call("shop.order", None)], Mistake.UNREADABLE),
    ("several in order", row("parallel", TEA, PEN), [ordered(item="tea"), ordered(item="pen", count=1)], None),
    ("several in another order", row("parallel", TEA, PEN), [ordered(item="pen", count=1), ordered(item="tea")], None),
    ("one too few", row("parallel", TEA, PEN), [ordered(item="tea")], Mistake.WRONG_COUNT),
    ("one too many", row("parallel", TEA), [ordered(item="tea"), ordered(item="tea")], Mistake.WRONG_COUNT),
    ("each call counts once", row("parallel", TEA, TEA), [ordered(item="tea"), ordered(item="pen")], Mistake.VALUE),
    (
        "the same call twice where it is expected twice",
        row("parallel", TEA, TEA),
        [ordered(item="tea"), ordered(item="tea")],
        None,
    ),
    (
        "equal to Python is not equal to the rules",
        row("parallel", order(item=["tea"], count=[1]), order(item=["tea"], gift=[True])),
        [ordered(item="tea", gift=True), ordered(item="tea", count=1)],
        None,
    ),
    (
        "greedy: the first expected call takes what the second needs",
        row("parallel", order(item=["tea", "pen"]), order(item=["tea"])),
        [ordered(item="tea"), ordered(item="pen")],
        Mistake.VALUE,
    ),
    (
        "greedy in the order of expected calls",
        row("parallel", order(item=["tea"]), order(item=["tea", "pen"])),
        [ordered(item="pen"), ordered(item="tea")],
        None,
    ),
    (
        "the nearest call names the mistake",
        row("parallel_multiple", TEA, ExpectedCall("shop_cancel", {"number": [7]})),
        [ordered(item="tea"), Call("shop_cancel", {"number": 8})],
        Mistake.VALUE,
    ),
    (
        "different functions in any order",
        row("parallel_multiple", TEA, ExpectedCall("shop_cancel", {"number": [7]})),
        [Call("shop_cancel", {"number": 7}), ordered(item="tea")],
        None,
    ),
    ("nothing to call and nothing called", row("irrelevance"), [], None),
    ("nothing to call, but called", row("irrelevance"), [ordered(item="tea")], Mistake.CALL_ON_IRRELEVANCE),
    ("nothing to call, and no readable call", row("irrelevance"), [Call("shop.order", None)], None),
]


@pytest.mark.parametrize(("asked", "calls", "mistake"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
def test_calls_are_compared_by_the_rules(asked: Row, calls: list[Call], mistake: Mistake | None) -> None:
    finding = judge(asked, calls)
    assert (finding and finding.mistake) == mistake


def test_a_finding_says_what_it_is_about() -> None:
    finding = judge(row("simple", TEA), [ordered(item="coffee")])
    assert finding is not None
    assert finding.text == "shop.order: item is 'coffee', not of ['tea']"


# ---- the data ------------------------------------------------------------------------------------------------------


def first_accepted(accepted: Any) -> Any:
    """An argument as a model would write it, from accepted values whose objects hold lists of them."""
    if isinstance(accepted, dict):
        return {name: values[0] for name, values in accepted.items()}
    return [first_accepted(item) for item in accepted] if isinstance(accepted, list) else accepted


def answer(function: Function, expected: ExpectedCall) -> Call:
    """The call with every argument that it may have."""
    given = {
        name: first_accepted(next(value for value in values if value != ""))
        for name, values in expected.accepted.items()
        if "" not in values or (name in function.properties and any(value != "" for value in values))
    }
    return Call(expected.name, given)


def test_the_datas_own_answers_are_right_and_are_wrong_without_their_last_call() -> None:
    folder = Path(os.environ.get("POINTSMAN_DATA", "missing")) / "bfcl"
    if not folder.is_dir():
        pytest.skip("no evaluation data: set POINTSMAN_DATA")
    for asked in read_rows(folder):
        calls = [answer(asked.function(expected.name), expected) for expected in asked.expected]
        as_received = [Call(call.name, json.loads(json.dumps(call.arguments))) for call in calls]
        assert judge(asked, as_received) is None, asked.id
        if calls:
            assert judge(asked, as_received[:-1]) is not None
