"""From a plan to the start state of its answers: backends compile their texts, overlays and combinators wrap them."""

from collections.abc import Callable
from typing import Any

from grammars.errors import ConstraintRefused, MatcherFailed
from grammars.matcher import BackendState
from grammars.plan import AnyPlan, Plan, PreludePlan, Separation, UnionPlan
from grammars.vocabulary import Vocabulary


def assemble(plan: AnyPlan, backend: Callable[[str], Any], vocabulary: Vocabulary) -> BackendState:
    """The start state. backend: the backend of a name, ready to compile.

    Raises ConstraintRefused and MatcherFailed for what a backend does not hold, or what no answer satisfies.
    """
    match plan:
        case Plan():
            state = _single(plan, backend, vocabulary)
        case PreludePlan():
            state = _prelude(plan, backend, vocabulary)
        case UnionPlan():
            state = _union(plan, backend, vocabulary)
    if plan.overlays:
        spellings = backend("llguidance").spellings
        for overlay in plan.overlays:
            state = overlay.wrap(state, vocabulary, spellings)
    return state


def _single(plan: Plan, backend: Callable[[str], Any], vocabulary: Vocabulary) -> BackendState:
    for separation in plan.separations:
        _require_separation(separation, backend, vocabulary)
    state: BackendState = backend(plan.backend).compile(plan.source)
    return state


def _prelude(plan: PreludePlan, backend: Callable[[str], Any], vocabulary: Vocabulary) -> BackendState:
    from grammars.prelude import Prelude, PreludeState

    tail = None if plan.tail is None else assemble(plan.tail, backend, vocabulary)
    if tail is not None and not _begins(tail, vocabulary):
        raise MatcherFailed("no answer can satisfy what follows the free text")
    try:
        return PreludeState(Prelude(plan.parts, tail, backend("llguidance").spellings, may_end=plan.may_end))
    except ConstraintRefused as error:
        raise ConstraintRefused(error.keyword, plan.pointer + error.pointer, error.reason) from error


def _union(plan: UnionPlan, backend: Callable[[str], Any], vocabulary: Vocabulary) -> BackendState:
    from grammars.union import UnionState

    branches = [assemble(branch, backend, vocabulary) for branch in plan.branches]
    return UnionState([branch for branch in branches if _begins(branch, vocabulary)])


def _require_separation(separation: Separation, backend: Callable[[str], Any], vocabulary: Vocabulary) -> None:
    """Refuse a part of a sequence that could end in two places, which llguidance's lexer would settle greedily."""
    if _begins(backend("llguidance").compile(separation.lark), vocabulary):
        raise ConstraintRefused(
            "sequence",
            separation.pointer,
            "could end in several places: add a fixed text after it that it cannot hold, or make it the last part",
        )


def _begins(state: BackendState, vocabulary: Vocabulary) -> bool:
    """Whether the state has a sentence: the empty one, or one that begins with some token."""
    import torch

    if state.is_accepting:
        return True
    row = torch.zeros(vocabulary.n_words, dtype=torch.int32)
    try:
        state.fork().fill(row)
    except MatcherFailed as error:
        if str(error).startswith("no answer can satisfy it"):
            return False
        raise
    row &= vocabulary.text_row
    return bool(row.any())
