"""Tool-call formats: one file each, behind the protocol `Dialect`. `registry.py` names them all."""

from grammars.dialects.detection import detect, probe_conversation, shows_calls
from grammars.dialects.dialect import ArgumentsDelta, Call, CallEvent, CallStarted, Dialect, StreamParser, TextDelta
from grammars.dialects.history import as_text, with_call_ids, with_results_in_order, with_single_calls
from grammars.dialects.registry import DIALECTS, MARKERS, get_dialect

__all__ = [
    "DIALECTS",
    "MARKERS",
    "ArgumentsDelta",
    "Call",
    "CallEvent",
    "CallStarted",
    "Dialect",
    "StreamParser",
    "TextDelta",
    "as_text",
    "detect",
    "get_dialect",
    "probe_conversation",
    "shows_calls",
    "with_call_ids",
    "with_results_in_order",
    "with_single_calls",
]
