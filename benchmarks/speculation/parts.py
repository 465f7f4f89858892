"""The parts of the benchmark: each loads its engines, measures, and gives its rows."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.bundled import LARGE, SMALL
from benchmarks.checkpoints import Shape, build_checkpoint
from benchmarks.speculation.comparison import Comparison, Contestant, Ratio, compare
from benchmarks.speculation.copier import SHAPE_135M, build_copier
from benchmarks.speculation.machinery import host_work
from benchmarks.speculation.row import Given, Row, Target
from benchmarks.speculation.side import DRAFTER, OFF, Ask, Outcome, Side
from benchmarks.speculation.workloads import CALLS, Edit, asks_of, edits, free, grouped, random_prompts, with_drift
from benchmarks.structured import ENDLESS
from bundled_models.cases import CaseKind
from engine.speculation.config import SpeculationConfig
from engine.speculation.proposer import Source
from engine.tokenizer import Tokenizer
from grammars.constraint import JsonSchema

__all__ = ["PARTS"]

EXTRACT: tuple[CaseKind, ...] = ("extract",)
ALL = SpeculationConfig()
DRAFTING_COPIER = Shape("llama", 2, 448, 7, 1, 640, 32_000)
"""A copier that drafts: two layers is all that copying takes."""
BATCHES = (1, 2, 4, 8, 16, 32)


Part = Callable[[Given], Iterator[Row]]


def pair(given: Given) -> Iterator[Row]:
    """The bundled pair at batch 1."""
    with sides(given, LARGE, SMALL, {"off": OFF, "all": ALL}) as engines:
        for name, kinds in (("calls", CALLS), ("extract", EXTRACT)):
            for temperature in (0.0, 0.8):
                asks = asks_of(engines["off"].tokenizer, kinds, given.n(24), temperature)
                [found] = beside(engines, asks, given.runs, "all").values()
                yield Row(f"{name}, temperature {temperature}", found, aims(found, 1.7, 1.3))


def copied_edits(given: Given) -> Iterator[Row]:
    """Documents written anew with edits, by a copier of 135 M weights; another one, of two layers, drafts for it."""
    with tempfile.TemporaryDirectory() as name:
        target = build_copier(Path(name) / "target")
        drafter = build_copier(Path(name) / "drafter", DRAFTING_COPIER)
        configs = {"n-gram": SpeculationConfig(sources=(Source.NGRAM,)), "draft model": _only(Source.DRAFT_MODEL)}
        with sides(given, target, drafter, {"off": OFF, "all": ALL, **configs}) as engines:
            for between in (25, 8):
                documents = edits(engines["off"].tokenizer, given.n(3, 1), given.n(160, 48), between)
                asks, where = [each.ask for each in documents], f"an edit every {between} tokens"
                yield Row(f"what was copied, {where}", numbers=_copied(engines["off"], documents))
                compared = beside(engines, asks, max(2, given.runs // 2), *configs, "all", n_warm=1)
                for kind, found in compared.items():
                    is_aimed = between == 25 and kind != "draft model"
                    yield Row(f"{kind}, {where}", found, aims(found, 2.5, 1.7) if is_aimed else ())


def free_text(given: Given) -> Iterator[Row]:
    """Text that nothing restricts, at batch 1."""
    with sides(given, LARGE, SMALL, {"off": OFF, "all": ALL}) as engines:
        asks = asks_of(engines["off"].tokenizer, CALLS, given.n(12))
        for temperature in (0.0, 0.8):
            jobs = free(asks, given.n(96, 16), temperature)
            [found] = beside(engines, jobs, given.runs, "all").values()
            yield Row(f"bundled large, temperature {temperature}", found, _not_slower(found))
    with tempfile.TemporaryDirectory() as name:
        folder = build_checkpoint(SHAPE_135M, Path(name), corpus_files=60)
        with sides(given, folder, None, {"off": OFF, "all": ALL}) as engines:
            for temperature in (0.0, 0.8):
                jobs = random_prompts(given.n(3), given.n(64, 8), temperature, SHAPE_135M.vocab_size)
                [found] = beside(engines, jobs, max(2, given.runs // 2), "all").values()
                yield Row(f"random 135M, temperature {temperature}", found, _not_slower(found))


def structured(given: Given) -> Iterator[Row]:
    """Structured output beside free text of the same prompts and lengths, both with drafts. The bundled model was
    trained to write JSON, and does so where it is free, too; what a random one writes cannot be guessed."""
    with sides(given, LARGE, SMALL, {"all": ALL}) as engines:
        side = engines["all"]
        for kind, kinds in (("calls", CALLS), ("extract", EXTRACT)):
            for temperature in (0.0, 0.8):
                found = _over_free(side, asks_of(side.tokenizer, kinds, given.n(24), temperature), given.runs)
                targets = (Target("whole", _median(found.whole), 1.15),)
                yield Row(f"bundled large, {kind}, temperature {temperature}", found, targets)
    with tempfile.TemporaryDirectory() as name:
        folder = build_checkpoint(SHAPE_135M, Path(name), corpus_files=60)
        with sides(given, folder, None, {"all": ALL}) as engines:
            asks = random_prompts(given.n(3), given.n(64, 8), 0.8, SHAPE_135M.vocab_size)
            asks = [replace(ask, constraint=JsonSchema(ENDLESS)) for ask in asks]
            found = _over_free(engines["all"], asks, max(2, given.runs // 2))
            yield Row("random 135M, records", found, (Target("whole", _median(found.whole), 1.15),))


def _workloads(tokenizer: Tokenizer, n: int, n_tokens: int) -> dict[str, list[Ask]]:
    """n requests of each kind; free ones have n_tokens tokens at temperature 0.8."""
    calls, extract = asks_of(tokenizer, CALLS, n), asks_of(tokenizer, EXTRACT, n)
    texts = free(calls, n_tokens, 0.8)
    mixed = [kind[at] for at in range(n // 3 + 1) for kind in (calls, extract, texts) if at < len(kind)][:n]
    return {"calls": calls, "free": texts, "extract": extract, "mixed": mixed}


def _over_free(side: Side, asks: Sequence[Ask], runs: int) -> Comparison:
    """Beside text that nothing restricts, answer by answer as long, at the same temperature."""
    lengths = [len(side.answer([ask]).answers[0]) for ask in asks]
    texts = [free([ask], n, ask.params.temperature)[0] for ask, n in zip(asks, lengths, strict=True)]
    base, other = (contestant(side, [[ask] for ask in each]) for each in (texts, asks))
    names = [ask.name for ask in asks]
    return compare(base, {"structured": other}, names, runs, sampled=frozenset(("structured",)))["structured"]


def law(given: Given) -> Iterator[Row]:
    """The same answers, token by token, in invariant engines, where no rounding depends on what is computed together:
    the rows are no figures of speed."""
    configs = {"adaptive": ALL, "as long and wide as may be": replace(ALL, width=4, is_adaptive=False)}
    with sides(given, LARGE, SMALL, {"off": OFF, **configs}, is_invariant=True) as engines:
        for batch in (1, 8) if not given.is_quick else (2,):
            for name, asks in _workloads(engines["off"].tokenizer, given.n(32), given.n(64, 8)).items():
                for kind, found in beside(engines, asks, 1, *configs, batch=batch, n_warm=0).items():
                    yield Row(f"{kind}: {name}, batch {batch}", found)


def batches(given: Given) -> Iterator[Row]:
    """Several answers at once, none of which may be slower."""
    with sides(given, LARGE, SMALL, {"off": OFF, "all": ALL}) as engines:
        workloads = _workloads(engines["off"].tokenizer, given.n(32), given.n(64, 8))
        for batch in BATCHES if not given.is_quick else (1, 2):
            runs = max(2, min(given.runs * batch // 8, given.runs + 2))
            for name, asks in workloads.items():
                [found] = beside(engines, asks, runs, "all", batch=batch, rounds=batch > 1).values()
                numbers = {
                    "pairs that rounding parts": float(found.n_rounded),
                    "steps saved": found.saved_steps,
                    "rejected drafts per token": found.work.wasted,
                    "target tokens over without": _computed(found),
                }
                yield Row(f"{name}, batch {batch}", found, _not_slower(found), numbers)


def predictions(given: Given) -> Iterator[Row]:
    """Answers that were expected, and those of the small model where the large one answers otherwise."""
    with sides(given, LARGE, SMALL, {"off": OFF, "all": ALL}) as engines:
        off, on = engines["off"], engines["all"]
        asks = asks_of(off.tokenizer, (*CALLS, *EXTRACT), given.n(24))
        texts = free(asks[: given.n(12)], given.n(96, 16))
        for name, plain in (("structured", asks), ("free", texts)):
            right = [off.answer([ask]).answers[0] for ask in plain]
            size = off.tokenizer.vocab_size
            drifted = [with_drift(answer, 0.1, size, seed) for seed, answer in enumerate(right)]
            others = {
                "no prediction": contestant(on, [[ask] for ask in plain]),
                "right": contestant(on, _predicted(plain, right)),
                "a tenth changed": contestant(on, _predicted(plain, drifted)),
            }
            found = compare(contestant(off, [[ask] for ask in plain]), others, [ask.name for ask in plain], given.runs)
            for kind, comparison in found.items():
                yield Row(f"{name}, {kind}", comparison)
        small = [on.answer([ask], DRAFTER).answers[0] for ask in asks]
        large = [off.answer([ask]).answers[0] for ask in asks]
        wrong = [at for at in range(len(asks)) if small[at] != large[at]] or list(range(len(asks)))
        escalated = [asks[at] for at in wrong]
        hinted = _predicted(escalated, [small[at] for at in wrong])
        names = [ask.name for ask in escalated]
        jobs = [[ask] for ask in escalated]
        numbers = {"cases": float(len(asks)), "answers that differ": float(len(wrong))}
        others = {"started over": contestant(on, jobs), "the small answer as prediction": contestant(on, hinted)}
        for kind, comparison in compare(contestant(off, jobs), others, names, given.runs).items():
            yield Row(f"escalation, {kind}", comparison, numbers=numbers)
        [against] = compare(contestant(on, jobs), {"hinted": contestant(on, hinted)}, names, given.runs).values()
        yield Row("escalation, prediction over started over, both with drafts", against)


def proposers(given: Given) -> Iterator[Row]:
    """Each source alone, chains and trees, and both ways to verify."""
    configs = {
        "forced": _only(Source.FORCED),
        "n-gram": _only(Source.NGRAM),
        "draft model": _only(Source.DRAFT_MODEL),
        "draft model, always": replace(_only(Source.DRAFT_MODEL), is_adaptive=False, max_draft=4, width=1),
        "draft model, always, tree": replace(_only(Source.DRAFT_MODEL), is_adaptive=False, max_draft=4),
        "all, width 1": replace(ALL, width=1),
        "all, width 2": ALL,
    }
    with sides(given, LARGE, SMALL, {"off": OFF, **configs}) as engines:
        asks = asks_of(engines["off"].tokenizer, (*CALLS, *EXTRACT), given.n(16))
        for name, found in beside(engines, asks, max(2, given.runs // 2), *configs).items():
            yield Row(f"{name}, temperature 0", found, numbers=_drafting(found))
    always = {
        f"draft model, always, {how}": replace(
            _only(Source.DRAFT_MODEL), is_adaptive=False, max_draft=4, width=1, verification=how
        )
        for how in ("coupled", "ratio")
    }  # fmt: skip
    configs = {"all, coupled": ALL, "all, ratio": replace(ALL, verification="ratio"), **always}
    with sides(given, LARGE, SMALL, {"off": OFF, **configs}) as engines:
        for temperature in (0.8, 1.0):
            asks = asks_of(engines["off"].tokenizer, (*CALLS, *EXTRACT), given.n(16), temperature)
            sampled = frozenset(name for name in configs if "ratio" in name)
            runs = max(2, given.runs // 2)
            for name, found in beside(engines, asks, runs, *configs, sampled=sampled).items():
                yield Row(f"{name}, temperature {temperature}", found, numbers=_drafting(found))


def machinery(given: Given) -> Iterator[Row]:
    """What looking for drafts takes where there is nothing to find."""
    for name, numbers in host_work(LARGE, given.n(150, 8), (1, 8, 32) if not given.is_quick else (1,)).items():
        yield Row(name, numbers=numbers)


PARTS: dict[str, Part] = {
    "law": law,
    "pair": pair,
    "edits": copied_edits,
    "free": free_text,
    "structured": structured,
    "batches": batches,
    "predictions": predictions,
    "proposers": proposers,
    "machinery": machinery,
}


@contextmanager
def sides(
    given: Given,
    target: Path,
    drafter: Path | None,
    configs: Mapping[str, SpeculationConfig],
    *,
    is_invariant: bool = False,
) -> Iterator[dict[str, Side]]:
    """An engine for each configuration, all of the same models."""
    with ExitStack() as stack:
        engines = dict[str, Side]()
        for name, config in configs.items():
            if not given.is_adaptive:
                config = replace(config, is_adaptive=False)
            engines[name] = Side(target, drafter, config, given.threads, is_invariant=is_invariant)
            stack.callback(engines[name].close)
        yield engines


def contestant(side: Side, jobs: Sequence[Sequence[Ask]]) -> Contestant:
    """Answers the jobs of its own list."""

    def answer(job: int) -> Outcome:
        return side.answer(jobs[job])

    return answer


def beside(
    engines: Mapping[str, Side],
    asks: Sequence[Ask],
    runs: int,
    *names: str,
    batch: int = 1,
    sampled: frozenset[str] = frozenset(),
    rounds: bool = False,
    n_warm: int | None = None,
) -> dict[str, Comparison]:
    """The named engines beside the one that is called off, on the same requests, `batch` of them at once."""
    jobs = grouped(asks, batch)
    return compare(
        contestant(engines["off"], jobs),
        {name: contestant(engines[name], jobs) for name in names},
        [", ".join(ask.name for ask in job) for job in jobs],
        runs,
        sampled=sampled,
        rounds=rounds,
        n_warm=n_warm,
    )


def aims(found: Comparison, tokens_per_step: float, faster: float) -> tuple[Target, ...]:
    """Targets of a comparison."""
    return (
        Target("tokens/step", found.work.tokens_per_step, tokens_per_step),
        Target("whole", _median(found.whole), faster),
    )


def _not_slower(found: Comparison) -> tuple[Target, ...]:
    """The upper end of the interval has to reach 1: else it says that drafts made it slower."""
    return (Target("upper end of whole", 0.0 if found.whole is None else found.whole.high, 1.0),)


def _median(ratio: Ratio | None) -> float:
    return 0.0 if ratio is None else ratio.median


def _only(source: Source) -> SpeculationConfig:
    return SpeculationConfig(sources=(source,))


def _copied(side: Side, documents: Sequence[Edit]) -> dict[str, float]:
    """How much of the answers is as it should be, token by token, and how much of that is not the document's."""
    answers = [side.answer([each.ask]).answers[0] for each in documents]
    n, n_right = sum(len(each.right) for each in documents), 0
    for each, answer in zip(documents, answers, strict=True):
        n_right += sum(ours == right for ours, right in zip(answer, each.right, strict=True))
    return {
        "tokens as they should be": n_right / n,
        "tokens that are new": sum(each.n_new for each in documents) / n,
        "tokens": float(n),
    }


def _predicted(asks: Sequence[Ask], answers: Sequence[Sequence[int]]) -> list[list[Ask]]:
    return [[replace(ask, prediction=answer)] for ask, answer in zip(asks, answers, strict=True)]


def _computed(found: Comparison) -> float:
    """Tokens that the target computed, over those without drafts: prompts, answers, and drafts in vain."""
    work, base = found.work, found.base_work
    return (work.prompt_tokens + work.tokens + work.drafted - work.accepted) / (base.prompt_tokens + base.tokens)


def _drafting(found: Comparison) -> dict[str, float]:
    work = found.work
    return {
        "draft us per step": work.draft_us_per_step,
        "draft us per drafted token": work.draft_us_per_token,
        "drafted per step": work.drafted / max(1, work.steps),
    }
