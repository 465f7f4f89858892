"""The rules of tool calls: objects in each of which the name decides what the arguments are."""

from collections.abc import Mapping

from grammars.dialects import Dialect
from grammars.tracking.rules import OPAQUE, ArrayRule, Node, ObjectRule, Rules, StringRule
from grammars.tracking.spelling import canonical


def add_calls(
    rules: Rules, dialect: Dialect, arguments: Mapping[str, int], answer: int | None = None, *, text: bool = False
) -> None:
    """Make calls the root of `rules`, or what stands behind each marker.

    arguments: nodes by tool. answer: the node of an answer that calls nothing, of another type than the calls; text:
    such an answer is no JSON, and begins with another byte.
    """
    if dialect.marker:
        _lead_to_calls(rules, dialect, arguments)
        return
    node = _calls(rules, dialect, arguments)
    calls = rules.nodes[node]
    if answer is not None:
        other = rules.nodes[answer]
        rules.nodes[node] = Node(
            calls.object or other.object, calls.array or other.array, other.string, other.plain_number
        )
    rules.root = node
    rules.json_begins = (b"[" if dialect.calls_are == "array" else b"{") if text else b""


def _lead_to_calls(rules: Rules, dialect: Dialect, arguments: Mapping[str, int]) -> None:
    rules.marker = dialect.marker.encode()
    if dialect.arguments_at is not None:
        rules.leads = {b"": _calls(rules, dialect, arguments)}
    else:
        # What a name is written like, with the mark behind it, is the format's own to say.
        rules.leads = {dialect.lead(tool).encode(): node for tool, node in arguments.items()}
    rules.json_begins = b"{" if dialect.calls_at is None else b"["


def _calls(rules: Rules, dialect: Dialect, arguments: Mapping[str, int]) -> int:
    """The node of one JSON text of calls."""
    name = rules.add()
    rules.nodes[name] = Node(string=StringRule(is_free=False))
    member = dialect.arguments_at or "arguments"
    by_tag = {
        canonical(tool): ObjectRule({"name": name, member: node}, additional=None) for tool, node in arguments.items()
    }
    call = rules.add()
    unnamed = ObjectRule({"name": name, member: OPAQUE}, additional=None, tag="name", by_tag=by_tag)
    rules.nodes[call] = Node(object=unnamed)
    if dialect.calls_at is None:
        return call
    node = rules.add()
    rules.nodes[node] = Node(array=ArrayRule(items=call, bound=2))
    for step in reversed(dialect.calls_at):
        inner, node = node, rules.add()
        rules.nodes[node] = Node(object=ObjectRule({step: inner}, additional=None))
    return node
