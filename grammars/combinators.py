"""Sequences and alternatives as plans. Everything is first a union of chains, in which nothing is nested any more:

    Sequence(a, Alternatives(b, Sequence(c, d)))   =   a b  |  a c d

A chain begins with a prelude (free text and fixed texts, an automaton of ours), and one Lark grammar or one constraint
of any other kind follows. Within the grammar, each part but the last must end in one place only: llguidance's lexer is
greedy, so that `a*` followed by `ab` would never end. Neighbouring expressions become one, which needs no such rule.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol

from grammars.constraint import (
    Alternatives,
    Choice,
    Constraint,
    FreeText,
    Grammar,
    JsonObject,
    JsonSchema,
    Regex,
)
from grammars.constraint import Sequence as SequenceOf
from grammars.errors import ConstraintRefused
from grammars.limits import Limits
from grammars.plan import AnyPlan, Plan, PreludePlan, Separation, UnionPlan
from grammars.pointer import child

MAX_CHAINS: Final = 32
MAX_PARTS: Final = 64
MAX_UNTIL_CHARS: Final = 256
MAX_DEPTH: Final = 16


@dataclass(frozen=True, slots=True)
class Part:
    """A constraint that is no combinator, and its pointer within the client's own."""

    constraint: Constraint
    pointer: str


class PlanPart(Protocol):
    """Plans a constraint that is no combinator, given its pointer. is_nested: within a grammar, where no rule on top of
    it can be kept."""

    def __call__(self, constraint: Constraint, pointer: str, *, is_nested: bool = False) -> AnyPlan: ...


def plan_combined(
    constraint: SequenceOf | Alternatives | FreeText, pointer: str, plan_part: PlanPart, limits: Limits
) -> AnyPlan:
    """The plan of a combinator. plan_part: plans a constraint that is none, given its pointer.

    Raises ConstraintRefused for what is malformed, too large, or cannot be held exactly where it stands.
    """
    found = list(_chains(constraint, pointer, 0))
    if len(found) > MAX_CHAINS:
        raise ConstraintRefused(
            _name(constraint), pointer, f"makes {len(found)} alternatives once written out: at most {MAX_CHAINS}"
        )
    branches = [_plan_chain(chain, pointer, plan_part, limits) for chain in found]
    return branches[0] if len(branches) == 1 else UnionPlan(tuple(branches))


def _name(constraint: Constraint) -> str:
    return str(constraint.__struct_config__.tag)


def _chains(constraint: Constraint, pointer: str, depth: int) -> Iterator[tuple[Part, ...]]:
    """The chains of a constraint. Stops early once there are too many of them."""
    if depth > MAX_DEPTH:
        raise ConstraintRefused(_name(constraint), pointer, f"nests more than {MAX_DEPTH} deep: flatten it")
    if not isinstance(constraint, SequenceOf | Alternatives):
        yield (Part(constraint, pointer),)
        return
    if not constraint.parts:
        raise ConstraintRefused(_name(constraint), pointer, "has no parts: give at least one")
    if len(constraint.parts) > MAX_PARTS:
        raise ConstraintRefused(_name(constraint), pointer, f"has more than {MAX_PARTS} parts: join some")
    inside = [
        list(_chains(part, child(pointer, i, *_member(part)), depth + 1)) for i, part in enumerate(constraint.parts)
    ]
    if isinstance(constraint, Alternatives):
        for chains in inside:
            yield from chains
        return
    products: list[tuple[Part, ...]] = [()]
    for chains in inside:
        if len(products) * len(chains) > MAX_CHAINS:
            raise ConstraintRefused(
                "sequence", pointer, f"makes more than {MAX_CHAINS} alternatives once written out: offer fewer"
            )
        products = [(*before, *after) for before in products for after in chains]
    yield from products


def _member(part: Constraint) -> tuple[str, ...]:
    """The member of a part, as a request writes it, that holds the constraint."""
    match part:
        case SequenceOf():
            return ("sequence",)
        case Alternatives():
            return ("alternatives",)
        case JsonSchema():
            return ("json",)
        case JsonObject():
            return ("json_object",)
    return (_name(part),)


def _plan_chain(chain: Sequence[Part], pointer: str, plan_part: PlanPart, limits: Limits) -> AnyPlan:
    for i, part in enumerate(chain):
        if isinstance(part.constraint, FreeText):
            _check_free(part, is_last=i == len(chain) - 1)
    n = _prelude_length(chain)
    prelude = [part.constraint for part in chain[:n] if isinstance(part.constraint, FreeText | Choice)]
    rest = chain[n:]
    if not rest:
        return PreludePlan(tuple(prelude), None, pointer)
    tail = _plan_tail(rest, plan_part, limits)
    return PreludePlan(tuple(prelude), tail, pointer) if prelude else tail


def _check_free(part: Part, *, is_last: bool) -> None:
    free = part.constraint
    if not isinstance(free, FreeText):
        return
    if free.until is None:
        if not is_last:
            raise ConstraintRefused("free_text", part.pointer, "needs `until`, as more follows it: say where it ends")
    elif not 1 <= len(free.until) <= MAX_UNTIL_CHARS:
        raise ConstraintRefused("until", child(part.pointer, "until"), f"must have 1 to {MAX_UNTIL_CHARS} characters")
    elif any(0xD800 <= ord(char) <= 0xDFFF or char == "\0" for char in free.until):
        raise ConstraintRefused("until", child(part.pointer, "until"), "holds half a character or a NUL: remove it")
    if free.max_tokens is not None and free.max_tokens < 0:
        raise ConstraintRefused("max_tokens", child(part.pointer, "max_tokens"), "is below 0: give at least 0")


def _prelude_length(chain: Sequence[Part]) -> int:
    """How many leading parts are free text, or fixed texts of which none begins another; 0 without free text."""
    n = 0
    for part in chain:
        constraint = part.constraint
        if not isinstance(constraint, FreeText) and not (isinstance(constraint, Choice) and _is_delimited(constraint)):
            break
        n += 1
    return n if any(isinstance(part.constraint, FreeText) for part in chain[:n]) else 0


def _is_delimited(choice: Choice) -> bool:
    """Whether no choice begins another, or is empty."""
    texts = sorted(set(choice.choices))
    if not texts or "" in texts or any("\0" in text for text in texts):
        return False
    return not any(after.startswith(before) for before, after in pairwise(texts))


def _plan_tail(parts: Sequence[Part], plan_part: PlanPart, limits: Limits) -> AnyPlan:
    if len(parts) == 1 and not isinstance(parts[0].constraint, FreeText):
        return plan_part(parts[0].constraint, parts[0].pointer)
    rules: list[str] = []
    names: list[str] = []
    plans: list[Plan] = []
    separations: list[Separation] = []
    runs = _runs(parts)
    for i, run in enumerate(runs):
        is_last = i == len(runs) - 1
        if _is_regular(run[0]):
            names.append(f"R{i}")
            rules += _terminals(f"R{i}", run, plan_part)
            if not is_last:
                lark = [f"start: SEVERAL\nSEVERAL: R{i} & (R{i} /(?s:.)+/)", *_terminals(f"R{i}", run, plan_part)]
                separations.append(Separation("\n".join(lark), run[-1].pointer))
            continue
        part = run[0]
        plan = _only_plan(plan_part(part.constraint, part.pointer, is_nested=True), part)
        _check_nested(plan, part, is_last=is_last)
        names.append(f"part_{i}")
        rules.append(_renamed(plan.source, f"part_{i}", is_own=not isinstance(part.constraint, Grammar)))
        plans.append(plan)
    source = f"start: {' '.join(names)}\n" + "\n".join(rules)
    if len(source) > 4 * limits.schema_chars:
        raise ConstraintRefused("sequence", "", "is too large once its parts are joined: shorten them")
    return Plan(
        "llguidance",
        source,
        "sequence",
        tuple(dict.fromkeys(warning for plan in plans for warning in plan.warnings)),
        tuple(use for plan in plans for use in plan.uses),
        (),
        tuple(separations),
    )


def _only_plan(plan: AnyPlan, part: Part) -> Plan:
    if not isinstance(plan, Plan):
        raise ConstraintRefused(
            plan.keyword,
            part.pointer,
            "calls behind text are held only as the whole answer, or as its end after free text and fixed texts: put "
            "them there",
        )
    return plan


def _is_regular(part: Part) -> bool:
    return isinstance(part.constraint, FreeText | Regex | Choice)


def _runs(parts: Sequence[Part]) -> list[list[Part]]:
    """The parts, with neighbouring expressions together."""
    runs: list[list[Part]] = []
    for part in parts:
        if runs and _is_regular(part) and _is_regular(runs[-1][-1]):
            runs[-1].append(part)
        else:
            runs.append([part])
    return runs


def _terminals(name: str, run: Sequence[Part], plan_part: PlanPart) -> list[str]:
    """Lark terminals of neighbouring expressions, the first of them called `name`."""
    names, rules = [], []
    for i, part in enumerate(run):
        own = f"{name}_{i}"
        names.append(own)
        constraint = part.constraint
        if isinstance(constraint, FreeText):
            if constraint.max_tokens is not None:
                raise ConstraintRefused(
                    "max_tokens",
                    child(part.pointer, "max_tokens"),
                    "is counted only in free text at the beginning, or after other free text and fixed texts there: "
                    "move it there, or leave it out",
                )
            rules.append(f"{own}: {_until(constraint.until)}")
            continue
        plan = _only_plan(plan_part(constraint, part.pointer, is_nested=True), part)
        if plan.backend != "llguidance":
            raise ConstraintRefused(
                plan.keyword, part.pointer, "holds `\\b`, which stands alone or right after free text: write it without"
            )
        rules.append(f"{own}: {plan.source.removeprefix('start: ')}")
    return [f"{name}: {' '.join(names)}", *rules]


def _until(until: str | None) -> str:
    """Lark for text in which `until` occurs once, at its end; for any text where it is None."""
    if until is None:
        return "/(?s:.*)/"
    end = "".join(f"\\x{{{ord(char):X}}}" for char in until)
    return f"/(?s:.*){end}/ & ~/(?s:.*){end}(?s:.+)/"


def _check_nested(plan: Plan, part: Part, *, is_last: bool) -> None:
    """Raise ConstraintRefused for a part that cannot stand beside others in one Lark grammar."""
    constraint = part.constraint
    if plan.backend != "llguidance" or plan.overlays:
        what = "an EBNF grammar" if plan.backend == "xgrammar" else "what is copied or indented"
        raise ConstraintRefused(
            plan.keyword,
            part.pointer,
            f"{what} is held only as the whole answer, or as its end after free text and fixed texts: put it there",
        )
    if isinstance(constraint, Grammar) and re.search(r"%\s*ignore", constraint.text):
        raise ConstraintRefused(
            "grammar", part.pointer, "`%ignore` would reach into the other parts: write it as rules"
        )
    if not is_last and not plan.is_delimited:
        raise ConstraintRefused(
            plan.keyword,
            part.pointer,
            "could end in several places (a number, a grammar, text without a call): make it the last part",
        )


_NAMES: Final = re.compile(
    r'//[^\n]*|"(?:\\.|[^"\\\n])*"i?|(?<![\w/])/(?![/*])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n])+/[imslux]*|->\s*\w+|[A-Za-z_]\w*'
)


def _renamed(lark: str, name: str, *, is_own: bool) -> str:
    """The rules of a grammar under names that no other part has; its start is called `name`.

    is_own: written by the planner, whose names differ from ours anyhow.
    """
    if is_own:
        return f"{name}: " + lark.removeprefix("start: ")

    def rename(found: "re.Match[str]") -> str:
        word = found.group()
        if not re.fullmatch(r"[A-Za-z_]\w*", word):
            return word
        if word == "start":
            return name
        # Lark tells rules from terminals by the case of the first letter.
        prefix = name.upper() if word.lstrip("_")[:1].isupper() else name
        return f"{prefix}_{word}"

    return _NAMES.sub(rename, lark)
