"""How drafts are made and verified, as plain data that travels to the child process. No torch."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from engine.speculation.proposer import MAX_NODES, Source

__all__ = ["DEFAULT_SOURCES", "SpeculationConfig", "Verification"]

Verification = Literal["coupled", "ratio"]
DEFAULT_SOURCES = (Source.FORCED, Source.PREDICTION, Source.NGRAM, Source.DRAFT_MODEL)


@dataclass(frozen=True, slots=True)
class SpeculationConfig:
    """sources: who may propose drafts (none: no speculation). drafters: by the name of a model, that of the one which
    drafts for it; a model that is missing here has no draft model. max_draft: most tokens of a draft that follow one
    another. width: of a draft tree, the choices at a place where the draft model is unsure (1: chains only).

    verification: `coupled` compares drafts with what the target draws with the same noise, so that the output is the
    same with and without them at any temperature; `ratio` is rejection sampling, which accepts a little more above
    temperature 0 and keeps the distribution, but not the very tokens that a seed gives without drafts. is_adaptive: a
    controller chooses what to draft, down to nothing, from what was accepted and what steps cost; else every draft is
    as long and as wide as it may be.
    """

    sources: tuple[Source, ...] = DEFAULT_SOURCES
    drafters: dict[str, str] = field(default_factory=dict)
    max_draft: int = 16
    width: int = 2
    verification: Verification = "coupled"
    is_adaptive: bool = True

    def __post_init__(self) -> None:
        """Raise ValueError with what was wrong and what is allowed."""
        if not 1 <= self.max_draft <= MAX_NODES:
            raise ValueError(f"max_draft is {self.max_draft}: use 1 to {MAX_NODES}, or no sources for no drafts")
        if not 1 <= self.width <= 8:
            raise ValueError(f"width is {self.width}: use 1 (chains) to 8")
        if self.verification not in get_args(Verification):
            raise ValueError(f"verification is {self.verification!r}: use {' or '.join(get_args(Verification))}")
        if len(set(self.sources)) != len(self.sources):
            raise ValueError(f"sources names one twice: {', '.join(self.sources)}")
        unusable = [target for target, drafter in self.drafters.items() if target == drafter]
        if unusable:
            raise ValueError(f"drafters lets {unusable[0]!r} draft for itself: name a smaller model")
