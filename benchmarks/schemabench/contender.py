"""What is measured: something that compiles a schema and judges the tokens of an answer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch

Name = Literal["declared", "any", "xgrammar", "xgrammar-open", "llguidance", "llguidance-compact", "outlines"]
SEPARATORS = {"compact": (",", ":"), "single": (", ", ": ")}


class Refused(Exception):
    """The contender does not hold the schema. keyword and pointer are None for those that name none."""

    def __init__(self, reason: str, keyword: str | None = None, pointer: str | None = None) -> None:
        self.reason, self.keyword, self.pointer = reason, keyword, pointer
        super().__init__(reason)


class OutOfTime(Exception):
    """The contender gave up at a limit of its own."""


class Answer(Protocol):
    """One answer under one schema."""

    def fill(self, row: "torch.Tensor") -> None:
        """Write the mask of this position into `row`, int32 [n_words]."""

    def advance(self, token: int) -> bool:
        """Take a token; False when it is illegal."""

    def may_end(self) -> bool:
        """Whether an end token is legal now."""


class Compiled(Protocol):
    """A schema that a contender holds."""

    def answer(self) -> Answer:
        """A fresh answer."""


class Contender(Protocol):
    """One engine in one setting. n_words: int32 words of its mask rows."""

    n_words: int

    def compile(self, schema: Any) -> Compiled:
        """Raises Refused or OutOfTime."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A contender before its process is started.

    separators: of the instances that it is shown. cpu_s: whole seconds of processor time that one schema may use. rows:
    judge only so many rows, drawn at random (None: all).
    """

    name: Name
    title: str
    separators: tuple[str, str]
    cpu_s: int
    rows: int | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it is Pointsman, rather than an engine alone."""
        return self.name in ("declared", "any")


def start(setting: Setting, tokenizer: Any, whitespace: Literal["compact", "single"], deadline_s: float) -> Contender:
    """The engine itself, warm. whitespace, deadline_s: of Pointsman."""
    if setting.name in ("declared", "any"):
        from benchmarks.schemabench.ours import Ours

        return Ours(tokenizer, whitespace, deadline_s, setting.name)
    from benchmarks.schemabench import peers

    match setting.name:
        case "outlines":
            return peers.Outlines(tokenizer)
        case "llguidance" | "llguidance-compact":
            return peers.LLGuidance(tokenizer)
        case _:
            return peers.XGrammar(tokenizer, strict_mode=setting.name == "xgrammar")
