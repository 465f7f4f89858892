"""A runner without a model: it writes token ids into the pages a plan names and predicts from what it reads back.

Since the prediction is a function of the pages' contents alone, any mistake in block tables, prefix sharing,
preemption or rejected drafts becomes a wrong token. `continuation` is the same function over a plain list, the oracle.
"""

from collections.abc import Sequence

from engine.plan import Row, StepPlan

VOCAB = 5


def next_token(tokens: Sequence[int]) -> int:
    """What the fake model says after `tokens`: depends on every token and its place."""
    value = len(tokens)
    for token in tokens:
        value = (value * 31 + token + 7) % 1_000_003
    return value % VOCAB


def continuation(prompt: Sequence[int], n: int) -> list[int]:
    """The next `n` tokens after `prompt`."""
    tokens = list(prompt)
    for _ in range(n):
        tokens.append(next_token(tokens))
    return tokens[len(prompt) :]


class FakeRunner:
    """Pages of token ids. `run` returns by request id the prediction after each of its last n_logits positions."""

    def __init__(self, n_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.pages: list[list[int | None]] = [[None] * block_size for _ in range(n_blocks)]

    def run(self, plan: StepPlan) -> dict[str, list[int]]:
        """Write all rows, then read; within a step no two rows may write one place."""
        copied = [list(self.pages[source]) for source, _ in plan.copies]
        for content, (_, target) in zip(copied, plan.copies, strict=True):
            self.pages[target] = content
        written: dict[tuple[int, int], str] = {}
        for row in plan.rows:
            for offset, token in enumerate(row.tokens):
                page, slot = divmod(row.start + offset, self.block_size)
                place = (row.block_table[page], slot)
                assert place not in written, f"{row.request_id} and {written[place]} both write {place}"
                written[place] = row.request_id
                self.pages[place[0]][place[1]] = token
        return {row.request_id: self._predict(row) for row in plan.rows if row.n_logits}

    def _predict(self, row: Row) -> list[int]:
        end = row.start + row.n
        seen = [self.pages[row.block_table[i // self.block_size]][i % self.block_size] for i in range(end)]
        known = [token for token in seen if token is not None]
        assert len(known) == end, "a row reads positions that nobody has written"
        return [next_token(known[: end - row.n_logits + 1 + i]) for i in range(row.n_logits)]
