"""A case of the fuzz: a constraint made of nothing but a kind, a seed and a number, so that it can be made again."""

import gzip
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.schemabench.ours import holds_any_order
from grammars import Constraint, Grammar, JsonSchema, Regex, Tool, ToolCalls
from grammars.constraint import Order
from tests.grammars.fuzz.expressions import mutated_pattern, random_pattern
from tests.grammars.fuzz.schemas import mutated, random_schema
from tests.grammars.fuzz.sentences import Rules, as_ebnf, as_lark, mutated_text, random_rules, recognises

KINDS: Final = ("schema", "mutant", "tools", "regex", "mutant-regex", "ebnf", "lark", "mutant-grammar")
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
    raise ValueError(f"{case.kind!r} is none of {', '.join(KINDS)}")


def _tools(rng: random.Random) -> ToolCalls:
    """One to three tools, whose arguments are mostly objects."""
    schemas = [random_schema(rng) for _ in range(rng.randint(1, 3))]
    objects = [{**schema, "type": "object"} if isinstance(schema, dict) else schema for schema in schemas]
    tools = tuple(Tool(f"f{i}", "", schema) for i, schema in enumerate(objects) if isinstance(schema, dict))
    mode: Literal["auto", "required"] = rng.choice(("auto", "required"))
    answer = JsonSchema({"type": "object"}) if mode == "auto" and rng.random() < 0.4 else None
    return ToolCalls(tools, mode, rng.random() < 0.5, rng.choice(("xlam", "xlam_v1")), answer)


def _order(rng: random.Random) -> Order:
    return "any" if rng.random() < 0.5 and holds_any_order() else "declared"


def _recogniser(rules: Rules) -> Callable[[str], bool]:
    return lambda text: recognises(rules, text)
