"""Tool-call formats: one file each, behind the protocol `Dialect`."""

from grammars.dialects.dialect import ArgumentsDelta, Call, CallEvent, CallStarted, Dialect, StreamParser, TextDelta
from grammars.dialects.xlam import Xlam
from grammars.dialects.xlam_v1 import XlamV1
from grammars.errors import ConstraintRefused


def get_dialect(name: str) -> Dialect:
    """The dialect called `name`. Raises ConstraintRefused for an unknown one."""
    match name:
        case "xlam":
            return Xlam()
        case "xlam_v1":
            return XlamV1()
    raise ConstraintRefused("tools", "/tools", f"there is no dialect {name!r}: use `xlam` or `xlam_v1`")


__all__ = [
    "ArgumentsDelta",
    "Call",
    "CallEvent",
    "CallStarted",
    "Dialect",
    "StreamParser",
    "TextDelta",
    "Xlam",
    "XlamV1",
    "get_dialect",
]
