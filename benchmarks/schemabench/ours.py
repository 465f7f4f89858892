"""Pointsman as a contender: whole constraints, as a request compiles them."""

from typing import TYPE_CHECKING, Any, Literal

from benchmarks.schemabench.contender import OutOfTime, Refused
from grammars import CompiledConstraint, CompileTimeout, ConstraintRefused, GrammarCompiler, JsonSchema, Matcher
from grammars.constraint import Order
from grammars.planner import plan

if TYPE_CHECKING:
    import torch


def holds_any_order() -> bool:
    """Whether the order of properties can be left open."""
    try:
        plan(JsonSchema({"type": "object"}, order="any"))
    except ConstraintRefused:
        return False
    return True


class OurAnswer:
    """A matcher."""

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher

    def fill(self, row: "torch.Tensor") -> None:
        """Raises MatcherFailed."""
        self.matcher.fill_mask(row)

    def advance(self, token: int) -> bool:
        """See Answer."""
        return self.matcher.advance(token)

    def may_end(self) -> bool:
        """See Answer."""
        return self.matcher.is_complete


class OurCompiled:
    """A compiled constraint."""

    def __init__(self, compiled: CompiledConstraint) -> None:
        self.backend = compiled.backend
        self._compiled = compiled

    def answer(self) -> OurAnswer:
        """See Compiled."""
        return OurAnswer(self._compiled.matcher())


class Ours:
    """The compiler of a server, its cache included."""

    def __init__(
        self, tokenizer: Any, whitespace: Literal["compact", "single"], deadline_s: float, order: Order
    ) -> None:
        self._compiler = GrammarCompiler(tokenizer, whitespace=whitespace, deadline_s=deadline_s)
        self._order = order
        self.n_words = self._compiler.n_words
        self._compiler.compile(JsonSchema({"type": "null"}))  # builds the token trie, which is no schema's cost

    def compile(self, schema: Any) -> OurCompiled:
        """Raises Refused and OutOfTime; anything else is a defect of ours."""
        try:
            return OurCompiled(self._compiler.compile(JsonSchema(schema, order=self._order)))
        except ConstraintRefused as refusal:
            raise Refused(refusal.reason, refusal.keyword, refusal.pointer) from refusal
        except CompileTimeout as timeout:
            raise OutOfTime(str(timeout)) from timeout
