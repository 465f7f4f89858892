"""The runner: pooled states that do not know how they were computed, copies of blocks, and plans that do not fit."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from engine.attention import token_kv_bytes
from engine.config import CacheConfig
from engine.models.loading import load_decoder
from engine.plan import Row, StepPlan
from engine.runner import ModelRunner
from tests.engine.checkpoints import build_checkpoint
from tests.engine.driver import Driver, Sequence, build_runner

LAYERS = (0, 2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreTrainedModel]:
    folder = tmp_path_factory.mktemp("llama")
    return folder, build_checkpoint(folder)


@pytest.fixture(scope="module")
def runner(checkpoint: tuple[Path, PreTrainedModel]) -> ModelRunner:
    """Shared by all examples: pages that an earlier example has used must not matter to a later one."""
    return build_runner(checkpoint[0], state_layers=LAYERS)


def tokens_of(n: int, seed: int) -> list[int]:
    return torch.randint(4, 512, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.inference_mode()
def reference_state(model: PreTrainedModel, tokens: list[int], first: int = 0) -> torch.Tensor:
    """Hidden state after the chosen layers, of the last token and the mean from token `first` on: [layers, 2,
    hidden]."""
    captured: list[torch.Tensor] = []
    hooks = [
        model.model.layers[layer].register_forward_hook(
            lambda _module, _inputs, output: captured.append(output[0] if isinstance(output, tuple) else output)
        )
        for layer in LAYERS
    ]
    model(torch.tensor([tokens]))
    for hook in hooks:
        hook.remove()
    return torch.stack([torch.stack((h.view(-1, 64)[-1], h.view(-1, 64)[first:].mean(0))) for h in captured])


@settings(max_examples=40)
@given(cuts=st.lists(st.integers(1, 15), min_size=1, max_size=5), seed=st.integers(0, 99), turn=st.floats(0, 1))
def test_the_pooled_state_equals_the_dense_one_however_the_prompt_is_cut(
    checkpoint: tuple[Path, PreTrainedModel], runner: ModelRunner, cuts: list[int], seed: int, turn: float
) -> None:
    """turn: where in the prompt its last turn begins."""
    tokens = tokens_of(sum(cuts), seed)
    turn_start = round(turn * (len(tokens) - 1))
    driver, sequence = Driver(runner), Sequence("a", tokens)
    for i, n in enumerate(cuts):
        other = Sequence(f"b{i}", tokens_of(i + 1, seed=i))  # company, so that rows are sorted
        is_last = i + 1 == len(cuts)
        row = driver.row(sequence, n, int(is_last), wants_state=is_last, turn_start=turn_start)
        output = driver.run([row, driver.row(other, i + 1, 0)])
    assert set(output.states) == {"a"}
    wanted = reference_state(checkpoint[1], tokens, turn_start // runner.block_size * runner.block_size)
    torch.testing.assert_close(output.states["a"], wanted, atol=1e-4, rtol=1e-4)


@settings(max_examples=40)
@given(shared=st.integers(1, 4), own=st.integers(1, 20), seed=st.integers(0, 99))
def test_a_warm_cache_gives_the_state_of_a_cold_one(runner: ModelRunner, shared: int, own: int, seed: int) -> None:
    n_shared = shared * runner.block_size
    tokens, driver = tokens_of(n_shared + own, seed), Driver(runner)
    first = Sequence("first", [*tokens[:n_shared], 9, 9, 9])
    driver.run([driver.row(first, len(first.tokens), 1, wants_state=True)])
    warm = Sequence("warm", tokens, blocks=first.blocks[:shared], computed=n_shared)
    warm_output = driver.run([driver.row(warm, own, 1, wants_state=True)])
    cold = Sequence("cold", tokens)
    cold_output = driver.run([driver.row(cold, len(tokens), 1, wants_state=True)])
    torch.testing.assert_close(warm_output.states["warm"], cold_output.states["cold"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(warm_output.logits, cold_output.logits, atol=1e-5, rtol=1e-5)


@settings(max_examples=40)
@given(
    prompt=st.integers(1, 20),
    drafts=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 12)), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_rejected_drafts_leave_no_trace_in_states_or_logits(
    runner: ModelRunner, prompt: int, drafts: list[tuple[int, int]], seed: int
) -> None:
    """A conversation with drafts, of which a part is accepted, against one that knew the accepted tokens from the
    start. tests/engine/test_verified_trees.py says the same of trees, to the bit."""
    driver, sequence = Driver(runner), Sequence("a", tokens_of(prompt, seed))
    driver.run([driver.row(sequence, prompt, 1)])
    for i, (k, n_accepted) in enumerate(drafts):
        sequence.tokens += tokens_of(1, seed=1000 + i)
        row = driver.draft_row(sequence, tokens_of(k, seed=2000 + i))
        driver.run([row])
        driver.settle((sequence, row, tuple(range(min(n_accepted, k)))))
    sequence.tokens += [7, 8]
    after = driver.run([driver.row(sequence, 2, 1, wants_state=True)])
    clean = Sequence("clean", list(sequence.tokens))
    expected = driver.run([driver.row(clean, len(clean.tokens), 1, wants_state=True)])
    torch.testing.assert_close(after.states["a"], expected.states["clean"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after.logits, expected.logits, atol=1e-5, rtol=1e-5)


def test_a_copied_block_continues_like_its_source(runner: ModelRunner) -> None:
    """A fork in the middle of a block, also of a block whose last tokens are still a draft."""
    driver, tokens = Driver(runner), tokens_of(13, seed=4)
    source = Sequence("source", tokens)
    driver.run([driver.row(source, 10, 1)])
    driver.run([driver.row(source, 3, 3)])
    fork = Sequence("fork", [*tokens[:11], 20, 21], blocks=[source.blocks[0]], computed=11)
    driver.row(fork, 2, 1)  # hands out the block that the copy goes to
    runner.copy_blocks([source.blocks[1]], [fork.blocks[1]])
    fork.computed = 11
    forked = driver.run([driver.row(fork, 2, 1, wants_state=True)])
    clean = Sequence("clean", list(fork.tokens))
    expected = driver.run([driver.row(clean, 13, 1, wants_state=True)])
    torch.testing.assert_close(forked.states["fork"], expected.states["clean"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(forked.logits, expected.logits, atol=1e-5, rtol=1e-5)


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(1, 70), min_size=2, max_size=6), block_size=st.sampled_from([1, 4, 8, 32]))
def test_tokens_of_a_request_do_not_depend_on_its_company_or_block_size(
    checkpoint: tuple[Path, PreTrainedModel], lengths: list[int], block_size: int
) -> None:
    prompts = [tokens_of(n, seed=n) for n in lengths]
    alone = [Driver(build_runner(checkpoint[0], n_blocks=96)).greedy([prompt], 4)[0] for prompt in prompts]
    together = Driver(build_runner(checkpoint[0], block_size=block_size, n_blocks=500)).greedy(prompts, 4, chunk=23)
    assert together == alone


def test_bfloat16_stays_near_float32(checkpoint: tuple[Path, PreTrainedModel], runner: ModelRunner) -> None:
    decoder = load_decoder(checkpoint[0], torch.bfloat16)
    narrow = ModelRunner(decoder.config, decoder, CacheConfig(block_size=8, n_blocks=32), LAYERS)
    tokens = tokens_of(40, seed=2)
    outputs = []
    for r in (runner, narrow):
        driver, sequence = Driver(r), Sequence("a", tokens)
        first = driver.run([driver.row(sequence, 36, 1)]).logits
        steps = [driver.run([driver.row(sequence, n, n)]).logits for n in (1, 3)]
        outputs.append(torch.cat([first, *steps]))
    assert outputs[1].dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(*outputs)
    assert cosine.min() > 0.995


def test_an_empty_plan_and_a_plan_without_logits_give_no_rows(runner: ModelRunner) -> None:
    assert runner.run(StepPlan(0, ())).logits.shape == (0, 512)
    output = runner.run(StepPlan(0, (Row("a", 0, (5, 6), (0,), 0),)))
    assert output.logits.shape == (0, 512)
    assert output.states == {}


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (Row("r1", 0, (), (0,), 0), "at least one token"),
        (Row("r1", 0, (1,), (0,), 2), "2 rows of logits"),
        (Row("r1", 7, (1, 2), (0,), 1), "hold 8 tokens, 9 are needed"),
    ],
)
def test_a_row_that_does_not_fit_its_blocks_is_refused_by_request(runner: ModelRunner, row: Row, named: str) -> None:
    with pytest.raises(ValueError, match=f"r1.*{named}"):
        runner.run(StepPlan(0, (row,)))


def test_the_cache_takes_the_bytes_it_was_given(checkpoint: tuple[Path, PreTrainedModel]) -> None:
    decoder = load_decoder(checkpoint[0], torch.float32)
    runner = ModelRunner(decoder.config, decoder, CacheConfig(block_size=16, kv_bytes=10**6), LAYERS)
    per_block = (
        16 * decoder.config.n_layers * token_kv_bytes(decoder.config, torch.float32)
        + 2 * 4 * len(LAYERS) * decoder.config.hidden_size
    )
    assert runner.kv_bytes == runner.n_blocks * per_block
    assert 0 <= 10**6 - runner.kv_bytes < runner.kv_bytes / runner.n_blocks
    with pytest.raises(ValueError, match="state_layers"):
        ModelRunner(decoder.config, decoder, CacheConfig(), (2, 1))


def test_pages_of_8_bits_are_refused_where_no_kernel_reads_them(checkpoint: tuple[Path, PreTrainedModel]) -> None:
    decoder = load_decoder(checkpoint[0], torch.float32)
    with pytest.raises(ValueError, match=r"kv_dtype is 'int8' and the device cpu: use auto"):
        ModelRunner(decoder.config, decoder, CacheConfig(n_blocks=4, kv_dtype="int8"))
