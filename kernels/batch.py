"""Which rows lie in a flat batch, and where their keys and values are: what attention needs besides q and the pages."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RaggedBatch:
    """Rows of one step, one after another in a flat batch of sum(query_lens) tokens.

    Row r computes its last query_lens[r] positions out of context_lens[r], whose keys and values lie in the pages
    block_tables[r], block_size tokens each, in order. A negative page is gone: it lies behind the window of every layer
    that is attended to with this batch.

    trees: empty where all rows are chains, else by row one word for each node of the draft tree that its last tokens
    are, none for a chain. Bit j of a node's word says that it sees node j of the row: its ancestors and itself, so a
    node's depth is the number of its bits less one, and its position is its depth behind the first node's. At most 64
    nodes; parents come before children (SpecInfer; Miao et al., 2023).
    """

    query_lens: tuple[int, ...]
    context_lens: tuple[int, ...]
    block_tables: tuple[tuple[int, ...], ...]
    block_size: int
    trees: tuple[tuple[int, ...], ...] = ()

    @property
    def n_tokens(self) -> int:
        """Tokens in the flat batch."""
        return sum(self.query_lens)

    def n_pages(self, row: int) -> int:
        """Pages that hold the keys of a row; its block table may be longer."""
        return -(-self.context_lens[row] // self.block_size)

    def branches(self, row: int) -> list[tuple[int, ...]]:
        """By node of the row's tree, where its ancestors and itself lie: numbers of nodes, ascending; none for a
        chain."""
        tree = self.trees[row] if self.trees else ()
        return [tuple(node for node in range(len(tree)) if word >> node & 1) for word in tree]
