"""A grammar's backend that fails while a draft is made or verified: whose request ends, and whose does not."""

import itertools
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.core import EngineCore
from engine.guarded_matcher import GuardedMatcher
from engine.messages import Failed, Submit
from engine.speculation.config import SpeculationConfig
from engine.speculation.proposer import Source
from engine.trial_walk import TrialWalk
from grammars.errors import MatcherFailed
from tests.engine.answers import SCHEMA, SHARED, assert_same
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import MODEL, Seen, build_core, drive, engine_config, instance_of, is_idle, run, submit
from tests.engine.saboteur import Saboteur

DRAFTER = "drafter"
SOURCES = {
    "draft model": SpeculationConfig((Source.FORCED, Source.DRAFT_MODEL), is_adaptive=False),
    "prediction": SpeculationConfig((Source.PREDICTION,), is_adaptive=False),
}
METHODS = ["advance", "fill_mask", "forced_bytes", "rollback", "trial", "any"]
VICTIM = submit("victim", SHARED[5:], max_tokens=40, temperature=1.0, seed=3, constraint=SCHEMA)
OTHERS = [
    submit("free", SHARED, max_tokens=12, temperature=1.0, seed=1, ignore_eos=True),
    submit("bound", SHARED[3:], max_tokens=40, temperature=1.0, seed=2, constraint=SCHEMA),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    build_checkpoint(folder, seed=1)
    return folder


def core_of(folder: Path, speculation: SpeculationConfig, **options: Any) -> EngineCore:
    """A model that drafts for itself, by another name."""
    speculation = replace(speculation, drafters={MODEL: DRAFTER})
    return build_core(
        engine_config(folder), engine_config(folder), names=(MODEL, DRAFTER), speculation=speculation, **options
    )


@pytest.fixture(scope="module")
def plain(folder: Path) -> dict[str, Seen]:
    core = build_core(engine_config(folder), forced_tokens=False)
    return {each.id: run(core, each)[0] for each in (VICTIM, *OTHERS)}


def predicting(each: Submit, plain: dict[str, Seen]) -> Submit:
    """With most of the right answer expected, and something else in its middle."""
    right = plain[each.id].finished.token_ids
    middle = len(right) // 2
    return msgspec.structs.replace(each, prediction=[*right[:middle], 7, 8, *right[middle + 1 :]])


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("method", METHODS)
def test_a_backend_that_raises_amid_a_draft_ends_its_own_request_and_no_other(
    folder: Path, plain: dict[str, Seen], kind: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """27, while the grammar is led along drafts, and while they are verified; at every tenth call, or each of the
    first."""
    build, n_failed = GuardedMatcher.__init__, 0
    for at in (0, 1, 2, 4, 7, 11, 18, 29, 47):
        calls, sabotaged = itertools.count(), list[Any]()

        def sabotage(
            self: GuardedMatcher,
            matcher: Any,
            *args: Any,
            calls: "itertools.count[int]" = calls,
            sabotaged: list[Any] = sabotaged,
            at: int = at,
        ) -> None:
            sabotaged.append(matcher)
            only = None if method == "any" else frozenset([method])
            build(self, Saboteur(matcher, calls, at, only) if len(sabotaged) == 1 else matcher, *args)

        monkeypatch.setattr(GuardedMatcher, "__init__", sabotage)
        core = core_of(folder, SOURCES[kind], forced_tokens=False)
        asked = [predicting(each, plain) for each in (VICTIM, *OTHERS)]
        seen = drive(core, [(0, asked[0]), (2, asked[1]), (3, asked[2])])
        for each in OTHERS:
            assert_same(seen[each.id], plain[each.id])
        [*_, end] = seen["victim"].events
        if next(calls) > at:
            n_failed += 1
            assert isinstance(end, Failed)
            assert end.code == "grammar_fault"
            assert "sabotage" in end.message
        else:
            assert_same(seen["victim"], plain["victim"])
        assert is_idle(core)
    is_used = method != "trial" if kind == "draft model" else method in ("advance", "fill_mask", "trial", "any")
    assert (n_failed > 0) == is_used


class Limited:
    """A matcher that now and then has no answer, as one that is out of its limits."""

    def __init__(self, inner: Any, draw: random.Random, share: float) -> None:
        self._inner, self._draw, self._share = inner, draw, share

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name not in ("advance", "fill_mask", "forced_bytes"):
            return value

        def call(*args: Any) -> Any:
            if self._draw.random() < self._share:
                raise MatcherFailed("too many states")
            return value(*args)

        return call


@pytest.mark.parametrize("seed", range(4))
def test_a_backend_that_cannot_say_what_follows_a_guess_only_ends_the_draft(
    folder: Path, plain: dict[str, Seen], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, draw, walks = TrialWalk.__init__, random.Random(seed), list[Limited]()

    def limited(self: TrialWalk, matcher: Any, *args: Any) -> None:
        walks.append(Limited(matcher, draw, 0.3))
        begin(self, walks[-1], *args)

    monkeypatch.setattr(TrialWalk, "__init__", limited)
    core = core_of(folder, replace(SOURCES["draft model"], width=3))
    for each, seen in zip((VICTIM, *OTHERS), run(core, VICTIM, *OTHERS), strict=True):
        assert_same(seen, plain[each.id])
    assert walks
    assert instance_of(core).counters.tokens_accepted > 0
    assert is_idle(core)
