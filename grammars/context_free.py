"""A context-free grammar over characters, and whether it makes a text: for judging answers, never for masks.

Nothing is lexed: each character is a lexeme of its own for llguidance's Earley parser, so that no greedy lexer decides
what a text may be. `x ::= a x | b` is parsed as `a* b`, which is the same language in linear time.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

_MAX_ITEMS: Final = 400
"""Items of one Earley set. Above it a text takes quadratic time; what needs more is not judged."""

_MAX_ROUNDS: Final = 30


@dataclass(frozen=True, slots=True)
class Chars:
    """One character in (or not in) some ranges of code points, both ends included."""

    ranges: tuple[tuple[int, int], ...]
    is_negated: bool = False


@dataclass(frozen=True, slots=True)
class Ref:
    """A text of another rule."""

    name: str


@dataclass(frozen=True, slots=True)
class Row:
    """The items one after the other; none is the empty text."""

    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of the options."""

    options: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`least` to `most` texts of the item; None is any number."""

    item: "Node"
    least: int
    most: int | None


Node = Chars | Ref | Row | Either | Repeat


def literal(text: str) -> Row:
    """Exactly this text."""
    return Row(tuple(Chars(((ord(char), ord(char)),)) for char in text))


def makes(rules: Mapping[str, Node], start: str, text: str) -> bool | None:
    """Whether the grammar makes `text`; None where that takes more than linear time, or cannot be told."""
    import llguidance

    numbers = {name: f"r{i}" for i, name in enumerate(rules)}
    lark = [f"start: {numbers[start]}"]
    lark += [f"{numbers[name]}: {_written(_looped(name, node), numbers)}" for name, node in rules.items()]
    tokenizer = llguidance.LLTokenizer("byte")  # token i is byte i
    matcher = llguidance.LLMatcher(
        tokenizer,
        llguidance.LLMatcher.grammar_from_lark('%llguidance {"no_forcing": true}\n' + "\n".join(lark)),
        log_level=0,
        limits=llguidance.LLParserLimits(max_items_in_row=_MAX_ITEMS),
    )
    data = list(text.encode())
    n = 0 if matcher.is_error() else matcher.try_consume_tokens(data)
    if matcher.is_error():
        return None
    return bool(n == len(data) and matcher.is_accepting())


def endless(rules: Mapping[str, Node], start: str) -> str | None:
    """A rule within reach of `start` that makes no text at all, so that an answer in it could never end; None if there
    is none. Raises OverflowError where that takes many rounds, which only a contrived grammar does.
    """
    order = _used_first(rules, start)
    ending: set[str] = set()
    for _ in range(_MAX_ROUNDS):
        before = len(ending)
        ending.update(name for name in order if name not in ending and _ends(rules[name], ending))
        if len(ending) in (before, len(order)):
            return next((name for name in reversed(order) if name not in ending), None)
    raise OverflowError("the rules depend on each other in too many turns")


def _used_first(rules: Mapping[str, Node], start: str) -> list[str]:
    """The rules within reach, each after those that it names, as far as they do not name it back."""
    order: list[str] = []
    seen = {start}
    stack = [(start, _referred(rules[start]))]
    while stack:
        name, inside = stack[-1]
        following = next((other for other in inside if other not in seen), None)
        if following is None:
            order.append(name)
            stack.pop()
        else:
            seen.add(following)
            stack.append((following, _referred(rules[following])))
    return order


def _ends(node: Node, ending: set[str]) -> bool:
    """Whether the node makes a text of rules that are known to."""
    match node:
        case Chars():
            return True
        case Ref():
            return node.name in ending
        case Row():
            return all(_ends(item, ending) for item in node.items)
        case Either():
            return any(_ends(option, ending) for option in node.options)
    return node.least == 0 or _ends(node.item, ending)


def _referred(node: Node) -> Iterator[str]:
    """The rules that the node names."""
    match node:
        case Ref():
            yield node.name
        case Row():
            for item in node.items:
                yield from _referred(item)
        case Either():
            for option in node.options:
                yield from _referred(option)
        case Repeat():
            if node.most != 0:
                yield from _referred(node.item)


def _looped(name: str, node: Node) -> Node:
    """The rule without direct recursion at its right end."""
    again: list[Node] = []
    ends: list[Node] = []
    for option in node.options if isinstance(node, Either) else (node,):
        row = option.items if isinstance(option, Row) else (option,)
        if row and row[-1] == Ref(name):
            again.append(Row(row[:-1]))
        else:
            ends.append(option)
    if not again or not ends:
        return node
    return Row((Repeat(Either(tuple(again)), 0, None), Either(tuple(ends))))


def _written(node: Node, names: Mapping[str, str]) -> str:
    match node:
        case Chars():
            ranges = "".join(f"\\x{{{low:X}}}-\\x{{{high:X}}}" for low, high in node.ranges)
            return f"/[{'^' if node.is_negated else ''}{ranges}]/"
        case Ref():
            return names[node.name]
        case Row():
            return f"({' '.join(_written(item, names) for item in node.items)})" if node.items else '""'
        case Either():
            return f"({' | '.join(_written(option, names) for option in node.options)})"
    if node.most is not None:
        return f"({_written(node.item, names)}){{{node.least},{node.most}}}"
    item = f"({_written(node.item, names)})"
    return f"{item}*" if node.least == 0 else f"{item}+" if node.least == 1 else f"({item}{{{node.least}}} {item}*)"
