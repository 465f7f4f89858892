"""BFCL's rules for one argument: is it of the declared type, is it an accepted value?

Source: the leaderboard's `bfcl_eval/eval_checker/ast_eval/ast_checker.py`, Python categories. Scores are to be compared
with published ones, so its oddities are kept where they decide about an answer:

- Inside an array types are exact: `1` is no float there, although it is one as an argument.
- Values are compared as Python does, so that `true` equals 1 and 1.0 inside objects and arrays.
- Where an array may be left out, `[]` is accepted, and so is `""` (or `-`) for a string.
- Only the first level is normalised: strings in arrays in arrays, and in arrays in objects, are compared exactly.
"""

import re
from collections.abc import Callable
from typing import Any, Final, Literal

OMITTED: Final = ""
"""Among the accepted values: the argument may be left out."""
_KINDS: Final[dict[str, type]] = {
    "string": str, "any": str, "integer": int, "float": float, "number": float, "boolean": bool,
    "array": list, "tuple": list, "dict": dict, "object": dict,
}  # fmt: skip
_IGNORED: Final = re.compile(r"[ ,./\-_*^]")

ArgumentMistake = Literal["type error", "value error"]


def argument_mistake(declared: dict[str, Any], value: Any, accepted: list[Any]) -> ArgumentMistake | None:
    """What is wrong with the value of an argument; None if it is right.

    declared: the parameter in BFCL's dialect. accepted: the values that are right, of which OMITTED is one where it may
    be left out. An accepted value of another type than the declared one stands for a variable: a value of that type is
    right if it is exactly among them.
    """
    kind = _KINDS.get(str(declared.get("type")), str)
    if kind is float and type(value) is int:
        value = _float(value)
    accepted_kind = _first_kind(accepted)
    is_variable = accepted_kind not in (None, kind)
    if type(value) is kind:
        if not _items_fit(declared, value, accepted):
            return "type error"
    elif accepted_kind is None or type(value) is not accepted_kind:
        return "type error"
    is_among = _exactly if is_variable else _comparison(declared, kind)
    return None if is_among(value, accepted) else "value error"


def plain(value: Any) -> Any:
    """A string without spaces and `, . / - _ * ^`, in lower case, with `"` for `'`; anything else as it is."""
    return _IGNORED.sub("", value).lower().replace("'", '"') if isinstance(value, str) else value


def _comparison(declared: dict[str, Any], kind: type) -> Callable[[Any, list[Any]], bool]:
    if kind is str:
        return _same_string
    if kind is dict:
        return _same_object
    if kind is list:
        return _same_objects if _item_kind(declared) is dict else _same_array
    return _exactly


def _exactly(value: Any, accepted: list[Any]) -> bool:
    return value in accepted


def _same_string(value: str, accepted: list[Any]) -> bool:
    return plain(value) in [plain(each) for each in accepted if isinstance(each, str)]


def _same_array(value: list[Any], accepted: list[Any]) -> bool:
    """`OMITTED` is the array without items here."""
    arrays = [[plain(item) for item in each] for each in accepted if isinstance(each, list | str)]
    return [plain(item) for item in value] in arrays


def _same_object(value: dict[str, Any], accepted: list[Any]) -> bool:
    return any(_has_members(value, each) for each in accepted if isinstance(each, dict))


def _has_members(value: dict[str, Any], members: dict[str, Any]) -> bool:
    """members: by name what is accepted, with OMITTED where the member may be missing."""
    choices = {name: each if isinstance(each, list) else [each] for name, each in members.items()}
    if any(name not in value and OMITTED not in choice for name, choice in choices.items()):
        return False
    return all(
        name in choices and plain(member) in [plain(each) for each in choices[name]] for name, member in value.items()
    )


def _same_objects(value: list[Any], accepted: list[Any]) -> bool:
    """Arrays of objects, compared in order; `OMITTED` is the array without items here."""
    return any(
        len(value) == len(each) and all(_is_same_item(mine, theirs) for mine, theirs in zip(value, each, strict=True))
        for each in accepted
        if isinstance(each, list | str)
    )


def _is_same_item(value: Any, accepted: Any) -> bool:
    return isinstance(value, dict) and _same_object(value, [accepted])


def _items_fit(declared: dict[str, Any], value: Any, accepted: list[Any]) -> bool:
    """Whether each item of an array, one level deep, is of the declared type or that of an accepted array's items."""
    kind = _item_kind(declared)
    if kind is None:
        return True
    return any(
        not isinstance(each, list) or all(type(item) in (kind, _first_kind(each)) for item in value)
        for each in accepted
    )


def _item_kind(declared: dict[str, Any]) -> type | None:
    items = declared.get("items") if declared.get("type") in ("array", "tuple") else None
    return _KINDS.get(str(items.get("type"))) if isinstance(items, dict) else None


def _first_kind(values: list[Any]) -> type | None:
    """The type of the first value that is not OMITTED: the data's answers to an argument are of one type."""
    return next((type(value) for value in values if value != OMITTED), None)


def _float(value: int) -> float | int:
    """The float, or the number itself where it is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return value
