"""RFC 6901 JSON pointers."""

from typing import Any


def child(pointer: str, *steps: str | int) -> str:
    """`pointer` extended by member names or array positions."""
    return pointer + "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def resolve(document: Any, pointer: str) -> Any:
    """The value at `pointer` (`""` is the whole document). Raises LookupError where nothing lies there."""
    value = document
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value[name]
        elif isinstance(value, list) and name.isdecimal():
            value = value[int(name)]
        else:
            raise LookupError(pointer)
    return value
