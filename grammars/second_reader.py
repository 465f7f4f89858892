"""A second opinion on answers under a client's grammar: read by code of our own, without the engine that masked it.

EBNF   masked by xgrammar           read by `ebnf.py`, parsed character by character
Lark   lexed, masked by llguidance  read by `lark_reader.py`, parsed character by character, without a lexer
"""

from grammars.constraint import Grammar
from grammars.context_free import Node, endless, makes
from grammars.ebnf import Unreadable, read_ebnf
from grammars.lark_reader import read_lark


def judge(grammar: Grammar, text: str) -> bool | None:
    """Whether the grammar makes `text`; None where it cannot be told, see `why_unread`, or only in quadratic time."""
    try:
        rules, start = _read(grammar)
        return makes(rules, start, text)
    except (Unreadable, RecursionError):
        return None


def why_unread(grammar: Grammar) -> str | None:
    """What in the grammar has no second reader; None where there is one."""
    try:
        _read(grammar)
    except Unreadable as error:
        return str(error)
    except RecursionError:
        return "it nests too deep"
    return None


def endless_rule(grammar: Grammar) -> str | None:
    """The name of a rule that an answer could enter and never leave; None if there is none, or no second reader."""
    try:
        return endless(*_read(grammar))
    except (Unreadable, OverflowError, RecursionError):
        return None


def _read(grammar: Grammar) -> tuple[dict[str, Node], str]:
    if grammar.syntax == "ebnf":
        rules = read_ebnf(grammar.text)
        if "root" not in rules:
            raise Unreadable("no rule called root")
        return rules, "root"
    return read_lark(grammar.text), "start"
