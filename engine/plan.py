"""The contract between scheduler and runner: what to compute in one step, and what came out."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Row:
    """`n` consecutive tokens of one request in a step.

    tokens: the n token ids at positions start … start+n-1; block_table: page ids that cover positions 0 … start+n-1, or
    more; n_logits: how many of the last positions need logits (0: a prefill chunk that does not reach the end; 1:
    decode or the end of a prompt; 1 + len(tail): verification). other_tables: the block tables of the KV groups after
    the first; a page behind its group's window is NULL_BLOCK. A token below 0 is not known yet: -1 - i is draw i of the
    step before this one.

    Of a verification the last n_logits - 1 tokens are its tail, the nodes of a draft. parents: of each its parent in
    the tail, -1 for the token before the tail; empty for a chain. Node i of a tree lies at place start + n - len(tail)
    + i of the cache like that of a chain, while its position is its depth behind the token before the tail.
    is_draft: the tokens are guesses themselves, which a draft model computes to guess on. wants_state: the pooled state
    of the prompt that the row ends is read, whose last turn begins at token `turn_start` of the prompt.
    """

    request_id: str
    start: int
    tokens: tuple[int, ...]
    block_table: tuple[int, ...]
    n_logits: int
    wants_state: bool = False
    other_tables: tuple[tuple[int, ...], ...] = ()
    parents: tuple[int, ...] = ()
    is_draft: bool = False
    turn_start: int = 0

    @property
    def n(self) -> int:
        """Number of tokens computed for this row."""
        return len(self.tokens)

    @property
    def block_tables(self) -> tuple[tuple[int, ...], ...]:
        """One block table for each KV group."""
        return (self.block_table, *self.other_tables)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One forward pass of one model: rows in the order they lie in the flat batch.

    resumed: prepared requests that go on in this step. Their prompt is computed and their logits were kept, so they
    have no row; their next token is sampled beside those of the rows. copies: pages to copy before anything is written,
    all at once, as (source, target): a target may be the source of another copy.
    """

    step_id: int
    rows: tuple[Row, ...]
    resumed: tuple[str, ...] = ()
    copies: tuple[tuple[int, int], ...] = ()

    @property
    def n_tokens(self) -> int:
        """Tokens in the flat batch."""
        return sum(row.n for row in self.rows)


@dataclass(frozen=True, slots=True)
class Accepted:
    """New tokens of one request: first `n_tail` of its tail that were verified, then the sampled token, then forced
    ones. path: where the tail is a tree, which of its nodes were verified, from the root on.
    """

    tokens: tuple[int, ...]
    n_tail: int = 0
    path: tuple[int, ...] = ()


@dataclass(slots=True)
class StepResult:
    """What a step produced, by request id; a chunk that needs no logits is not in it."""

    step_id: int
    accepted: dict[str, Accepted] = field(default_factory=dict)
