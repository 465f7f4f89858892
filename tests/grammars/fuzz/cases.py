"""A case of the fuzz: a constraint made of nothing but a kind, a seed and a number, so that it can be made again."""

import gzip
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from msgspec.structs import replace

from benchmarks.schemabench.ours import holds_any_order
from grammars import (
    Alternatives,
    Choice,
    Constraint,
    Copied,
    FreeText,
    Grammar,
    JsonObject,
    JsonSchema,
    Layout,
    Regex,
    Sequence,
    Tool,
    ToolCalls,
)
from grammars.constraint import Order
from tests.grammars.fuzz.expressions import mutated_pattern, random_pattern
from tests.grammars.fuzz.schemas import mutated, random_schema, ruled_schema
from tests.grammars.fuzz.sentences import Rules, as_ebnf, as_lark, mutated_text, random_rules, recognises

KINDS: Final = (
    "schema", "mutant", "rules", "tools", "regex", "mutant-regex", "ebnf", "lark", "mutant-grammar", "combined",
    "layout", "copied",
)  # fmt: skip
NEEDS_DATA: Final = frozenset({"mutant", "mutant-regex"})


@dataclass(frozen=True, slots=True)
class Case:
    """What to make again: `python -m tests.grammars.fuzz --seed SEED --only KIND:INDEX`."""

    kind: str
    seed: int
    index: int

    @property
    def rng(self) -> random.Random:
        """The case's own dice; the walks use them, too, after the constraint is made."""
        return random.Random(f"{self.seed}:{self.kind}:{self.index}")


@dataclass(frozen=True)
class Corpus:
    """Real schemas to change: of schemabench and of the specification's test suite. Empty without a data folder."""

    folder: Path | None

    @cached_property
    def schemas(self) -> list[Any]:
        """Those of at most 6,000 characters, so that a case takes milliseconds."""
        if self.folder is None:
            return []
        found: list[Any] = []
        for path in (
            self.folder / "schemabench/dev.jsonl.gz",
            self.folder / "json-schema-test-suite/draft2020-12.jsonl",
        ):
            with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
                found += [json.loads(line)["schema"] for line in lines if len(line) < 60_000]
        return [schema for schema in found if len(json.dumps(schema)) <= 6_000]

    @cached_property
    def patterns(self) -> list[str]:
        """Every value of a `pattern` and every name of a `patternProperties`."""
        found: dict[str, None] = {}
        stack: list[Any] = list(self.schemas)
        while stack:
            value = stack.pop()
            if isinstance(value, dict):
                patterns = [value.get("pattern"), *(value.get("patternProperties") or ())]
                found |= dict.fromkeys(pattern for pattern in patterns if isinstance(pattern, str))
                stack += value.values()
            elif isinstance(value, list):
                stack += value
        return list(found)


def make(case: Case, corpus: Corpus) -> tuple[Constraint, Callable[[str], bool] | None, random.Random]:
    """(constraint, what says whether a text is a sentence where nothing else can, the dice as they lie now)."""
    rng = case.rng
    match case.kind:
        case "schema":
            return JsonSchema(random_schema(rng), rng.random() < 0.05, _order(rng)), None, rng
        case "mutant":
            return JsonSchema(mutated(rng, rng.choice(corpus.schemas), corpus.schemas), False, _order(rng)), None, rng
        case "rules":
            return JsonSchema(ruled_schema(rng), False, _order(rng)), None, rng
        case "tools":
            return _tools(rng), None, rng
        case "regex":
            return Regex(random_pattern(rng, 3)), None, rng
        case "mutant-regex":
            return Regex(mutated_pattern(rng, rng.choice(corpus.patterns), corpus.patterns)), None, rng
        case "ebnf":
            rules = random_rules(rng)
            return Grammar(as_ebnf(rules)), _recogniser(rules), rng
        case "lark":
            rules = random_rules(rng)
            return Grammar(as_lark(rules), "lark"), _recogniser(rules), rng
        case "mutant-grammar":
            rules = random_rules(rng)
            if rng.random() < 0.5:
                return Grammar(mutated_text(rng, as_ebnf(rules))), None, rng
            return Grammar(mutated_text(rng, as_lark(rules)), "lark"), None, rng
        case "combined":
            return _combined(rng, 2), None, rng
        case "layout":
            return _laid_out(rng), None, rng
        case "copied":
            inner = _tools(rng) if rng.random() < 0.3 else JsonSchema(_with_free_strings(rng), False, _order(rng))
            return Copied(inner, rng.choice(_SOURCES)), None, rng
    raise ValueError(f"{case.kind!r} is none of {', '.join(KINDS)}")


def _tools(rng: random.Random) -> ToolCalls:
    """One to three tools, whose arguments are mostly objects."""
    schemas = [random_schema(rng) for _ in range(rng.randint(1, 3))]
    objects = [{**schema, "type": "object"} if isinstance(schema, dict) else schema for schema in schemas]
    tools = tuple(Tool(f"f{i}", "", schema) for i, schema in enumerate(objects) if isinstance(schema, dict))
    mode: Literal["auto", "required"] = rng.choice(("auto", "required"))
    answer = JsonSchema({"type": "object"}) if mode == "auto" and rng.random() < 0.4 else None
    return ToolCalls(tools, mode, rng.random() < 0.5, rng.choice(("xlam", "xlam_v1")), answer)


def _combined(rng: random.Random, depth: int) -> Constraint:
    """A sequence or alternatives of one to four parts, nested at most `depth` deep."""
    parts = tuple(_part(rng, depth) for _ in range(rng.choice((1, 2, 2, 3, 4))))
    return Sequence(parts) if rng.random() < 0.65 else Alternatives(parts)


def _part(rng: random.Random, depth: int) -> Constraint:
    chance = rng.random()
    if depth and chance < 0.2:
        return _combined(rng, depth - 1)
    if chance < 0.42:
        until = rng.choice(("!", "</t>", "aba", "é", "\n\n", '"', "}", "ab", None))
        return FreeText(until, rng.choice((None, None, 0, 1, 3, 8)))
    if chance < 0.58:
        return Choice(tuple(rng.sample(_CHOICES, rng.randint(1, 3))))
    if chance < 0.7:
        return Regex(random_pattern(rng, 1))
    if chance < 0.78:
        return JsonObject(_layout(rng) if rng.random() < 0.3 else None)
    if chance < 0.85:
        rules = random_rules(rng)
        return Grammar(as_ebnf(rules)) if rng.random() < 0.5 else Grammar(as_lark(rules), "lark")
    if chance < 0.9:
        return _tools(rng)
    return JsonSchema(random_schema(rng), False, _order(rng), _layout(rng) if rng.random() < 0.2 else None)


_CHOICES: Final = ("a", "ab", "b", "<t>", "", "é", "x!", "{", '"a"', "1", "日本", "no")
_SOURCES: Final = ("Åre is cold", "a", "ab ab aba", '"quoted" \\ back', "日本 🎉", "", "x\ny\tz", "\x00\x1f")


def _layout(rng: random.Random) -> Layout:
    return Layout(rng.choice(("compact", "single", "indented", "indented")), rng.choice((1, 2, 2, 4, 8)))


def _laid_out(rng: random.Random) -> Constraint:
    chance = rng.random()
    if chance < 0.1:
        return JsonObject(_layout(rng))
    if chance < 0.3:
        return replace(_tools(rng), layout=_layout(rng), order=_order(rng))
    return JsonSchema(random_schema(rng), False, _order(rng), _layout(rng))


def _with_free_strings(rng: random.Random) -> Any:
    """An object whose members are free strings, lists of them, or anything."""
    members = {name: rng.choice((_FREE, {"type": "array", "items": _FREE}, random_schema(rng))) for name in "abc"}
    chosen = rng.sample(sorted(members), rng.randint(1, 3))
    schema = {"type": "object", "properties": {name: members[name] for name in chosen}, "required": chosen[:1]}
    return schema | ({"additionalProperties": False} if rng.random() < 0.6 else {})


_FREE: Final[dict[str, Any]] = {"type": "string"}


def _order(rng: random.Random) -> Order:
    return "any" if rng.random() < 0.5 and holds_any_order() else "declared"


def _recogniser(rules: Rules) -> Callable[[str], bool]:
    return lambda text: recognises(rules, text)
