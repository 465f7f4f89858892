"""A runner without a model: it writes token ids into the pages a plan names and predicts from what it reads back.

Since the prediction is a function of the pages' contents alone, any mistake in block tables, prefix sharing,
preemption or rejected drafts becomes a wrong token. `continuation` is the same function over a plain list, the oracle.
"""

from collections.abc import Sequence

from engine.kv_groups import NULL_BLOCK
from engine.plan import Row, StepPlan

VOCAB = 5
ALL_SEEN: tuple[int | None, ...] = (None,)


def next_token(tokens: Sequence[int], windows: Sequence[int | None] = ALL_SEEN) -> int:
    """What the fake model says after `tokens`: depends on every token that each window shows, and its place."""
    return _token(len(tokens), [tokens if window is None else tokens[-window:] for window in windows])


def continuation(prompt: Sequence[int], n: int, windows: Sequence[int | None] = ALL_SEEN) -> list[int]:
    """The next `n` tokens after `prompt`."""
    tokens = list(prompt)
    for _ in range(n):
        tokens.append(next_token(tokens, windows))
    return tokens[len(prompt) :]


def _token(n_tokens: int, views: Sequence[Sequence[int]]) -> int:
    value = n_tokens
    for view in views:
        for token in view:
            value = (value * 31 + token + 7) % 1_000_003
    return value % VOCAB


class FakeRunner:
    """Pages of token ids. `run` returns by request id the prediction after each of its last n_logits positions.

    windows: of the KV groups, each of which has the tokens in pages of its own, raised by VOCAB for every group before
    it: as keys of other layers do, they would mislead another group.
    """

    def __init__(self, n_blocks: int, block_size: int, windows: Sequence[int | None] = ALL_SEEN) -> None:
        self.block_size, self.windows = block_size, windows
        self.pages: list[list[int | None]] = [[None] * block_size for _ in range(n_blocks)]

    def run(self, plan: StepPlan) -> dict[str, list[int]]:
        """Write all rows, then read; within a step no two rows may write one place."""
        copied = [list(self.pages[source]) for source, _ in plan.copies]
        for content, (_, target) in zip(copied, plan.copies, strict=True):
            self.pages[target] = content
        written: dict[tuple[int, int], str] = {}
        for row in plan.rows:
            for g, table in enumerate(row.block_tables):
                for offset, token in enumerate(row.tokens):
                    page, slot = divmod(row.start + offset, self.block_size)
                    place = (table[page], slot)
                    assert place not in written, f"{row.request_id} and {written[place]} both write {place}"
                    written[place] = row.request_id
                    self.pages[place[0]][place[1]] = token + g * VOCAB
        return {row.request_id: self._predict(row) for row in plan.rows if row.n_logits}

    def settle(self, row: Row, path: Sequence[int]) -> None:
        """Put the nodes of a row's tail that were verified where their positions are."""
        first = row.start + row.n - row.n_logits + 1
        for g in range(len(row.block_tables)):
            verified = [self._read(g, row.block_tables[g], [first + node])[0] + g * VOCAB for node in path]
            for position, token in enumerate(verified, start=first):
                page, slot = divmod(position, self.block_size)
                self.pages[row.block_tables[g][page]][slot] = token

    def _predict(self, row: Row) -> list[int]:
        """After the token before the tail, and after each node of it, by what is before that."""
        n_tail = row.n_logits - 1
        first = row.start + row.n - n_tail
        paths: list[list[int]] = [[]]
        for node, parent in enumerate(row.parents or range(-1, n_tail - 1)):
            paths.append([*paths[1 + parent], first + node])
        return [self._after(row, [*range(first), *path]) for path in paths]

    def _after(self, row: Row, places: Sequence[int]) -> int:
        """The prediction after the tokens in these places."""
        groups = enumerate(zip(row.block_tables, self.windows, strict=True))
        views = [self._read(g, table, places[-window:] if window else places) for g, (table, window) in groups]
        return _token(len(places), views)

    def _read(self, g: int, table: Sequence[int], places: Sequence[int]) -> list[int]:
        """The tokens in these places of a group."""
        seen = list[int]()
        for position in places:
            page = table[position // self.block_size]
            assert page != NULL_BLOCK, "a row reads a page behind its window"
            token = self.pages[page][position % self.block_size]
            assert token is not None, "a row reads positions that nobody has written"
            seen.append(token - g * VOCAB)
        return seen
