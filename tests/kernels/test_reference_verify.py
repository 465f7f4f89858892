"""What the definitions of verification promise: coupled drafts change nothing, ratio drafts keep the distribution, and
an accepted branch leaves the keys and values of a chain."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels import reference
from kernels.noise import noise_key
from kernels.quantized_pages import FORMATS, page_rows
from kernels.reference_verify import accept_coupled, accept_ratio, move_kv
from tests.kernels.samples import normal
from tests.kernels.trees import MAX_NODES, VOCAB, Drafts, bushes, depths, forests

N_DRAWS = 12_000


def test_the_longest_agreeing_beginning_of_each_chain_is_accepted() -> None:
    tokens = torch.tensor([0, 5, 6, 7, 0, 0, 5, 6, 0, 9])
    sampled = torch.tensor([5, 6, 1, 7, 4, 1, 6, 2, 9, 3])
    parents = torch.tensor([-1, 0, 1, 2, -1, -1, 0, 1, -1, 0])
    accepted, path = accept_coupled(tokens, parents, sampled, torch.tensor([0, 4, 5, 8, 10]), 4)
    assert accepted.tolist() == [2, 0, 0, 1]
    assert path.tolist() == [[1, 2, -1], [-1, -1, -1], [-1, -1, -1], [1, -1, -1]]


def test_of_two_branches_that_begin_alike_the_longer_agreement_wins() -> None:
    tokens, sampled = torch.tensor([0, 5, 5, 6]), torch.tensor([5, 6, 6, 1])
    accepted, path = accept_coupled(tokens, torch.tensor([-1, 0, 0, 2]), sampled, torch.tensor([0, 4]), 4)
    assert accepted.tolist() == [2]
    assert path.tolist() == [[2, 3, -1]]


@given(forests, st.integers(0, 999))
def test_a_coupled_draft_gives_the_tokens_of_one_draw_at_a_time(forest: list[tuple[int, ...]], seed: int) -> None:
    """A target whose draw depends on the number of tokens before it only, as a fixed noise and model would have it."""
    drafts = Drafts.build(forest, seed)
    wanted = torch.randint(0, 3, (MAX_NODES,), generator=torch.Generator().manual_seed(seed)).tolist()
    sampled = torch.tensor([wanted[depth] for parents in forest for depth in depths(parents)], dtype=torch.int64)
    accepted, path = accept_coupled(drafts.tokens, drafts.parents, sampled, drafts.starts, MAX_NODES)
    for row, parents in enumerate(forest):
        first, nodes = int(drafts.starts[row]), path[row, : int(accepted[row])].tolist()
        assert [drafts.tokens[first + node] for node in nodes] == wanted[: len(nodes)]
        assert [parents[node] for node in nodes] == [0, *nodes][: len(nodes)]
        assert path[row, len(nodes) :].eq(-1).all()


def critical(degrees: int) -> float:
    """What chi-square exceeds once in a thousand (Wilson and Hilferty, 1931)."""
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + 3.09 * math.sqrt(spread)) ** 3


def draw_rows(distribution: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.multinomial(distribution, 1, generator=generator)[:, 0]


@pytest.mark.parametrize("form", ["chain", "certain chain", "two branches", "without replacement", "certain branches"])
def test_ratio_drafts_keep_the_distribution(form: str) -> None:
    """Two tokens over a vocabulary of 8, by chi-square: the first must be distributed as the target at the root, the
    second as the target behind the first. Token 7 never comes."""
    generator = torch.Generator().manual_seed(5)
    target = normal(1 + VOCAB, VOCAB, seed=3)
    target[:, 7] = -math.inf
    target = target.softmax(-1)  # row 0 at the root, row 1 + t behind token t
    q = normal(1, VOCAB, seed=4).softmax(-1)
    n, is_certain = N_DRAWS, form.startswith("certain")
    likely = target[0].topk(2).indices
    first = likely[0].expand(n) if is_certain else draw_rows(q.expand(n, -1), generator)
    draft = [q[0]]
    if form.endswith("chain"):
        parents, nodes = [-1, 0, 1], [first, draw_rows(q.expand(n, -1), generator)]
        draft_of = [-1, -1 if is_certain else 0, 0]
    else:
        others = q.expand(n, -1)
        if form == "without replacement":
            others = q.repeat(n, 1).scatter_(1, first[:, None], 0.0)
            others /= others.sum(-1, keepdim=True)
            draft += list(others)
        second = likely[1].expand(n) if is_certain else draw_rows(others, generator)
        behind = [draw_rows(q.expand(n, -1), generator) for _ in range(2)]
        parents, nodes = [-1, 0, 0, 1, 2], [first, second, *behind]
        draft_of = [-1, *([-1, -1] if is_certain else [0, 0]), 0, 0]
    rows = torch.tensor(draft_of).expand(n, -1).clone()
    if form == "without replacement":
        rows[:, 2] = torch.arange(n) + 1
    tokens = torch.stack([torch.zeros_like(first), *nodes], 1)
    flat_target = target[torch.cat([torch.zeros(n, 1, dtype=torch.int64), 1 + tokens[:, 1:]], 1)]
    keys = torch.tensor([[noise_key(seed, depth) for depth in depths(tuple(parents))] for seed in range(n)])
    accepted, path, after = accept_ratio(
        tokens.flatten(), torch.tensor(parents).repeat(n), flat_target.flatten(0, 1), torch.stack(draft),
        rows.flatten().int(), keys.flatten(), torch.arange(n + 1) * len(parents), len(parents),
    )  # fmt: skip
    is_first_drafted = accepted > 0
    assert 0.05 * n < is_first_drafted.sum() < 0.95 * n
    emitted = torch.where(is_first_drafted, tokens.gather(1, path[:, :1].clamp(min=0))[:, 0], after)
    then = torch.where(accepted > 1, tokens.gather(1, path[:, 1:2].clamp(min=0))[:, 0], after)
    counts = torch.zeros(1 + VOCAB, VOCAB)
    counts[0] = emitted.bincount(minlength=VOCAB)
    for token, following in zip(emitted[is_first_drafted].tolist(), then[is_first_drafted].tolist(), strict=True):
        counts[1 + token, following] += 1
    assert counts[:, 7].sum() == 0
    statistic, degrees = 0.0, 0
    for seen, wanted in zip(counts[:, :7], target[:, :7], strict=True):
        if seen.sum() >= 100:
            expected = wanted * seen.sum()
            statistic += float(((seen - expected).square() / expected).sum())
            degrees += 6
    assert degrees > 6
    assert statistic < critical(degrees)


@given(forests, st.integers(0, 999))
def test_a_draft_drawn_from_the_target_is_accepted_whole(forest: list[tuple[int, ...]], seed: int) -> None:
    drafts = Drafts.build([tuple(range(-1, len(parents) - 1)) for parents in forest], seed)
    accepted, path, following = accept_ratio(
        drafts.tokens, drafts.parents, drafts.target, drafts.target,
        torch.arange(-1, len(drafts.tokens) - 1).int(), drafts.keys, drafts.starts, MAX_NODES,
    )  # fmt: skip
    assert accepted.tolist() == [max(0, len(parents) - 1) for parents in forest]
    assert path.tolist() == [[*range(1, n + 1), *[-1] * (MAX_NODES - 1 - n)] for n in accepted.tolist()]
    assert [token >= 0 for token in following.tolist()] == [bool(parents) for parents in forest]


def test_a_child_that_is_all_of_the_target_is_accepted_even_where_rounding_says_no() -> None:
    target = torch.zeros(2, VOCAB)
    target[0, 3] = 0.5  # as if half of it had been lost
    target[1, 1] = 1.0
    tokens, parents, certain = torch.tensor([0, 3]), torch.tensor([-1, 0]), torch.tensor([-1, -1])
    for seed in range(20):
        keys = torch.tensor([noise_key(seed, 0), noise_key(seed, 1)])
        found = accept_ratio(
            tokens, parents, target, torch.empty(0, VOCAB), certain, keys, torch.tensor([0, 2]), MAX_NODES
        )
        assert [each.flatten()[0].item() for each in found] == [1, 1, 1]


def test_nothing_to_draw_from_is_no_token() -> None:
    found = accept_ratio(
        torch.tensor([0]), torch.tensor([-1]), torch.zeros(1, VOCAB), torch.empty(0, VOCAB), torch.tensor([-1]),
        torch.tensor([7]), torch.tensor([0, 1, 1]), 2,
    )  # fmt: skip
    assert found[0].tolist() == [0, 0]
    assert found[2].tolist() == [-1, -1]


@given(
    parents=bushes, seed=st.integers(0, 99), dtype=st.sampled_from([torch.float32, torch.bfloat16, *FORMATS]),
)  # fmt: skip
def test_an_accepted_branch_leaves_the_pages_of_a_chain(
    parents: tuple[int, ...], seed: int, dtype: torch.dtype
) -> None:
    n, block_size, heads, d = len(parents), 4, 2, 8
    wide = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32
    qkv = normal(n, 3 * heads, d, seed=seed).to(wide)
    tables = reference.rotary_tables(5 + torch.tensor(depths(parents)), torch.tensor([1.0, 0.3, 0.1, 0.03]), 1.0)
    slots = torch.randperm(24, generator=torch.Generator().manual_seed(seed))[:n]
    nodes = [seed % n]
    while parents[nodes[0]] > 0:
        nodes.insert(0, parents[nodes[0]])
    nodes = [node for node in nodes if node]
    pages, chain = (torch.zeros(6, 2, heads, page_rows(block_size, d, dtype), d, dtype=dtype) for _ in range(2))
    reference.rope_and_cache(qkv, *tables, pages, slots, None, None, 1e-6)
    path = torch.tensor([[*nodes, *[-1] * (MAX_NODES - len(nodes))]])
    move_kv(pages, slots, path, torch.tensor([0, n]), torch.tensor([len(nodes)]))
    written = [0, *nodes]
    cos, sin = (table[written] for table in tables)
    reference.rope_and_cache(qkv[written], cos, sin, chain, slots[: len(written)], None, None, 1e-6)
    for slot in slots[: len(written)].tolist():
        page, offset = divmod(slot, block_size)
        assert torch.equal(*(each[page, :, :, offset].view(torch.uint8) for each in (pages, chain)))
        if dtype in FORMATS:
            scales = [reference.scales_of(each, block_size)[page, :, :, offset] for each in (pages, chain)]
            assert torch.equal(*scales)
