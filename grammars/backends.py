"""The grammar engines by name, each made and warmed when it is first asked for."""

import re
from threading import RLock
from typing import Any

from grammars.assembly import assemble
from grammars.constraint import Constraint, Whitespace
from grammars.errors import ConstraintRefused, MatcherFailed
from grammars.limits import Limits
from grammars.matcher import BackendState
from grammars.plan import AnyPlan
from grammars.planner import plan
from grammars.vocabulary import Vocabulary


class Backends:
    """The engines of one vocabulary. Thread-safe. Imports happen on first use: a process pays for what it needs."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._made: dict[str, Any] = {}
        self._lock = RLock()

    def get(self, name: str) -> Any:
        """The backend called `name`; making it can take seconds, which are no constraint's cost."""
        with self._lock:
            if name not in self._made:
                backend = self._new(name)
                backend.warm_up()
                self._made[name] = backend
            return self._made[name]

    def __contains__(self, name: str) -> bool:
        return name in self._made

    def start(self, planned: AnyPlan) -> BackendState:
        """The start state of what was planned. Raises ConstraintRefused with the client's keyword and pointer."""
        try:
            return assemble(planned, self.get, self._vocabulary)
        except (ConstraintRefused, MatcherFailed) as error:
            raise attributed(planned, error) from error

    def _new(self, name: str) -> Any:
        match name:
            case "xgrammar":
                from grammars.watched import WatchedBackend
                from grammars.xgrammar_backend import XGrammarBackend

                return WatchedBackend(XGrammarBackend(self._vocabulary))
            case "outlines":
                from grammars.outlines_backend import OutlinesBackend

                return OutlinesBackend(self._vocabulary, self.get("llguidance").spellings)
        from grammars.llguidance_backend import LLGuidanceBackend

        return LLGuidanceBackend(self._vocabulary)


def plan_within(constraint: Constraint, whitespace: Whitespace, limits: Limits, n_tokens: int) -> AnyPlan:
    """`planner.plan`, where running out of Python's stack is a refusal as well."""
    try:
        return plan(constraint, whitespace, limits, n_tokens)
    except RecursionError as error:
        raise ConstraintRefused("$ref", "", "nests too deep once references are followed: flatten it") from error


def attributed(planned: AnyPlan, error: ConstraintRefused | MatcherFailed) -> ConstraintRefused:
    """A backend's refusal with the client's keyword and pointer, as well as they can be known."""
    if isinstance(error, ConstraintRefused) and (error.pointer or error.keyword not in ("grammar", "regex")):
        return error  # not a backend's own words
    reason = error.reason if isinstance(error, ConstraintRefused) else str(error)
    for keyword, pointer in planned.uses:
        if len(keyword) > 2 and re.search(rf"(?<![\w$]){re.escape(keyword)}(?!\w)", reason):
            return ConstraintRefused(keyword, pointer, f"no backend holds it exactly ({reason})")
    for keyword in ("oneOf", "patternProperties", "allOf", "pattern", "$ref", "anyOf", "type", "enum"):
        for used, pointer in planned.uses:
            if used == keyword:
                return ConstraintRefused(keyword, pointer, f"no backend holds this schema exactly ({reason})")
    return ConstraintRefused(planned.keyword, "", f"no backend holds it ({reason})")
