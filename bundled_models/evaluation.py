"""How good the bundled pair is: exact match in our own engine, free, under the grammar, and copying, by kind."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from bundled_models.cases import HANDWRITTEN, MAX_TOKENS, OPEN_TOOLS, Case, generated, written
from bundled_models.generator import UNSEEN
from bundled_models.share import Share
from engine import Engine, SamplingParams
from grammars import Constraint, Copied, JsonSchema, Tool, ToolCalls

Mode = Literal["free", "grammar", "copy"]
MODES: tuple[Mode, ...] = ("free", "grammar", "copy")
BATCH = 64


def constraint_of(case: Case, mode: Mode = "grammar") -> Constraint | None:
    """What the gateway would enforce: the offered tools in `auto` mode, or the schema.

    With `copy` also that free strings stand in the conversation.
    """
    if mode == "free":
        return None
    inner = _grammar_of(case)
    if mode == "grammar" or inner is None:
        return inner
    return Copied(inner, "\n".join(str(m["content"]) for m in case.messages if m["role"] != "assistant"))


def _grammar_of(case: Case) -> JsonSchema | ToolCalls | None:
    if case.schema is not None:
        return JsonSchema(case.schema)
    if not case.tools:
        return None
    functions = [tool["function"] for tool in case.tools]
    return ToolCalls(tuple(Tool(f["name"], f.get("description", ""), f.get("parameters")) for f in functions))


class Answer(msgspec.Struct, frozen=True):
    """What a model wrote for a case."""

    case: Case
    text: str
    right: bool
    finish_reason: str
    prompt_tokens: int
    tokens: int


def answers(
    engine: Engine, cases: Sequence[Case], mode: Mode, progress: Callable[[int], None] = lambda _: None
) -> list[Answer]:
    """Greedy answers to the cases, `BATCH` at a time; `progress` is told how many are done."""
    params = SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS)
    done: list[Answer] = []
    for start in range(0, len(cases), BATCH):
        part = cases[start : start + BATCH]
        constraints = [constraint_of(case, mode) for case in part]
        results = engine.generate([case.prompt for case in part], params, constraint=constraints)
        for case, result in zip(part, results, strict=True):
            right = case.is_right(result.text)
            done.append(
                Answer(
                    case,
                    result.text,
                    right,
                    str(result.finish_reason),
                    result.timeline.prompt_tokens,
                    len(result.token_ids),
                )
            )
        progress(len(done))
    return done


def shares(found: Sequence[Answer]) -> dict[str, Share]:
    """Shares of right answers: all, by kind, by difficulty, by the number of tools offered."""
    groups: dict[str, list[bool]] = {"all": [a.right for a in found]}
    for answer in found:
        case = answer.case
        groups.setdefault(f"kind {case.kind}", []).append(answer.right)
        groups.setdefault(f"difficulty {case.difficulty}", []).append(answer.right)
        if case.tools:
            groups.setdefault(f"tools {len(case.tools)}", []).append(answer.right)
    return {name: Share.of(outcomes) for name, outcomes in sorted(groups.items())}


class Report(msgspec.Struct, frozen=True):
    """The result of one model on one set of cases in one mode."""

    model: str
    cases: str
    mode: Mode
    seconds: float
    shares: dict[str, Share]


def case_sets(count: int, seed: int) -> dict[str, list[Case]]:
    """The sets of the model card.

    catalogue: known tools, unseen phrasings and values. unseen tools, unseen records: definitions that no training
    prompt showed, from the library's `held_*` files and invented. Then two hand-written sets.
    """
    unseen = generated(3 * count, seed, sources=UNSEEN)
    return {
        "catalogue": generated(count, seed, sources={"catalogue": 1.0}),
        "unseen tools": [case for case in unseen if case.tools][:count],
        "unseen records": [case for case in unseen if case.schema is not None][: count // 2],
        "hand-written": written(HANDWRITTEN),
        "open tools": written(OPEN_TOOLS),
    }


def evaluate(folder: Path, count: int, seed: int, say: Callable[[str], None]) -> list[Report]:
    """Every set in every mode for the checkpoint in `folder`; `say` gets a line a result."""
    reports = []
    with Engine.from_pretrained(folder) as engine:
        for name, cases in case_sets(count, seed).items():
            for mode in MODES:
                started = time.perf_counter()
                found = answers(engine, cases, mode)
                report = Report(folder.name, name, mode, time.perf_counter() - started, shares(found))
                say(f"{folder.name:6} {name:13} {mode:8} {report.shares['all']}  ({report.seconds:.0f} s)")
                for group, share in report.shares.items():
                    if group != "all":
                        say(f"{'':30}{group:20} {share}")
                reports.append(report)
    return reports


def as_json(reports: Sequence[Report]) -> bytes:
    """The reports as indented JSON."""
    data: Any = [msgspec.to_builtins(r) for r in reports]
    return msgspec.json.format(msgspec.json.encode(data), indent=2)
