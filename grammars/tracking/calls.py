"""The rules of tool calls: a list of objects, in each of which the name decides what the arguments are."""

from collections.abc import Mapping

from grammars.tracking.rules import OPAQUE, ArrayRule, Node, ObjectRule, Rules, StringRule
from grammars.tracking.spelling import canonical


def add_calls(
    rules: Rules, at: tuple[str, ...], arguments: Mapping[str, int], answer: int | None, *, text: bool
) -> None:
    """Make calls the root of `rules`.

    at: members that lead to the list. arguments: nodes by tool. answer: the node of an answer that calls nothing, of
    another type than the list; text: such an answer is no JSON, and begins with another byte.
    """
    name = rules.add()
    rules.nodes[name] = Node(string=StringRule(is_free=False))
    by_tag = {
        canonical(tool): ObjectRule({"name": name, "arguments": node}, additional=None)
        for tool, node in arguments.items()
    }
    call = rules.add()
    unnamed = ObjectRule({"name": name, "arguments": OPAQUE}, additional=None, tag="name", by_tag=by_tag)
    rules.nodes[call] = Node(object=unnamed)
    node = rules.add()
    rules.nodes[node] = Node(array=ArrayRule(items=call, bound=2))
    for step in reversed(at):
        inner, node = node, rules.add()
        rules.nodes[node] = Node(object=ObjectRule({step: inner}, additional=None))
    calls = rules.nodes[node]
    if answer is not None:
        other = rules.nodes[answer]
        rules.nodes[node] = Node(
            calls.object or other.object, calls.array or other.array, other.string, other.plain_number
        )
    rules.root = node
    rules.json_begins = (b"{" if at else b"[") if text else b""
