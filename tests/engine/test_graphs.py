"""Steps that are recorded once and replayed: the same answers, whatever the padding holds."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.config import CacheConfig
from engine.graphs import Bucket, StepGraphs, buckets_for
from engine.messages import Finished, Prepare, Submit
from engine.models.loading import load_decoder
from engine.plan import StepPlan
from engine.runner import ModelRunner, RunnerOutput
from engine.speculation.config import SpeculationConfig
from engine.speculation.proposer import DraftTree, Situation, Source
from engine.step_batch import tree_words
from grammars import JsonSchema
from tests.engine.checkpoints import build_checkpoint
from tests.engine.driver import Driver, Sequence, build_runner
from tests.engine.harness import MODEL, build_core, drive, engine_config, instance_of, is_idle, run, submit
from tests.engine.recorded import recorded_platform

PROMPT = [(i * 53 + 7) % 480 + 8 for i in range(45)]
SCHEMA = JsonSchema({"type": "object", "properties": {"n": {"enum": ["anna", "bob"]}}, "required": ["n"]})
SUBMITS = [
    submit("free", PROMPT, max_tokens=12, ignore_eos=True),
    submit("drawn", PROMPT[:20], max_tokens=15, temperature=1.2, seed=3, logprobs=2, frequency_penalty=0.5),
    submit("short", PROMPT[:9], max_tokens=1),
    submit("json", PROMPT[5:], max_tokens=30, temperature=1.0, seed=2, constraint=SCHEMA),
    submit("other", PROMPT[7:30], max_tokens=9, temperature=0.7, top_k=9, seed=9, ignore_eos=True),
]


class Guess:
    """Drafts what came after the same token before, now and then wrongly."""

    source, wants_hidden = Source.HEADS, False

    def propose(self, situation: Situation, budget: int) -> DraftTree:
        tokens = [*situation.tokens, *situation.drafted]
        seen = [i for i in range(len(tokens) - 1) if tokens[i] == tokens[-1]]
        guessed = tokens[seen[-1] + 1 :][:budget] if seen else [7] * (budget // 2)
        return DraftTree.chain(guessed, [0.9] * len(guessed), self.source)

    def forget(self, request_id: str) -> None:
        """Nothing is kept."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    build_checkpoint(folder, seed=1)
    return folder


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers with and without a window, so that there are several KV groups."""
    folder = tmp_path_factory.mktemp("windowed")
    build_checkpoint(folder, "gemma2", seed=2, sliding_window=8, num_hidden_layers=4)
    return folder


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every step that a graph computed."""
    found: list[int] = []
    original = StepGraphs.run

    def spy(self: StepGraphs, batch: object, drawn: torch.Tensor | None = None) -> object:
        output = original(self, batch, drawn)  # type: ignore[arg-type]
        found.extend([len(batch.rows)] if output is not None else [])  # type: ignore[attr-defined]
        return output

    monkeypatch.setattr(StepGraphs, "run", spy)
    return found


def answers(folder: Path, *submits: Submit, platform: bool, **options: object) -> list[Finished]:
    core = build_core(engine_config(folder, max_rows=4), platform=recorded_platform() if platform else None, **options)
    found = [seen.finished for seen in run(core, *submits)]
    assert is_idle(core)
    return found


@pytest.mark.parametrize("depth", [0, 1])
def test_no_answer_depends_on_whether_steps_are_recorded(folder: Path, depth: int, replays: list[int]) -> None:
    expected = answers(folder, *SUBMITS, platform=False)
    actual = answers(folder, *SUBMITS, platform=True, overlap_depth=depth)
    assert [each.token_ids for each in actual] == [each.token_ids for each in expected]
    assert len(replays) > 10
    assert {1, 3} <= set(replays)  # three rows are padded to four


def test_layers_with_windows_are_recorded_too(windowed: Path, replays: list[int]) -> None:
    free = [each for each in SUBMITS if each.constraint is None]
    expected = answers(windowed, *free, platform=False)
    assert [each.token_ids for each in answers(windowed, *free, platform=True)] == [e.token_ids for e in expected]
    assert replays


def test_an_answer_whose_grammar_forces_tokens_is_replayed_from_its_prompt_on(folder: Path, replays: list[int]) -> None:
    core = build_core(engine_config(folder, max_rows=4, max_slowdown=None), platform=recorded_platform())
    runs = []
    runner = instance_of(core)._runner
    run_step = runner.run

    def spied(plan: StepPlan, drawn: torch.Tensor | None = None) -> RunnerOutput:
        runs.append(max(row.n for row in plan.rows))
        return run_step(plan, drawn)

    runner.run = spied  # type: ignore[method-assign]
    run(core, submit("json", PROMPT, max_tokens=40, constraint=SCHEMA))
    assert max(runs[1:]) > 1, "tokens were forced"
    assert len(replays) == len(runs) - 1, "all but the step of the prompt"


def test_drafts_of_any_length_are_verified_by_a_graph(folder: Path, replays: list[int]) -> None:
    expected = answers(folder, *SUBMITS, platform=False)
    core = build_core(
        engine_config(folder, max_rows=4),
        platform=recorded_platform(),
        proposers={MODEL: [Guess()]},
        speculation=SpeculationConfig(sources=(), max_draft=5, is_adaptive=False),
    )
    assert [seen.finished.token_ids for seen in run(core, *SUBMITS)] == [each.token_ids for each in expected]
    assert instance_of(core).counters.tokens_drafted > 20
    assert replays


def test_a_prepared_prompt_keeps_its_logits_while_others_are_replayed(folder: Path) -> None:
    config = engine_config(folder, max_slowdown=None)  # or the prompt would take as many steps as the machine is slow
    plain, core = build_core(config), build_core(config, platform=recorded_platform())
    arrivals = [(0, submit("noise", PROMPT[::-1], max_tokens=30, ignore_eos=True)), (4, Prepare("held", MODEL, PROMPT))]
    later = Submit(id="answer", model=MODEL, params=SUBMITS[0].params, handle="held")
    expected, actual = (drive(each, [*arrivals, (12, later)]) for each in (plain, core))
    assert actual["answer"].finished.token_ids == expected["answer"].finished.token_ids
    assert actual["held"].prepared.entropy == pytest.approx(expected["held"].prepared.entropy)
    states = [
        torch.frombuffer(bytearray(each["held"].prepared.state), dtype=torch.float32) for each in (actual, expected)
    ]
    torch.testing.assert_close(*states, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def pair_of_runners(folder: Path) -> tuple[ModelRunner, ModelRunner]:
    """One that records steps of up to 6 rows and drafts of 3 tokens, and one that does not."""
    cache = CacheConfig(block_size=4, n_blocks=256)
    decoder = load_decoder(folder, torch.float32)
    recorded = ModelRunner(decoder.config, decoder, cache, (0, 2), platform=recorded_platform())
    recorded.record(max_rows=6, max_model_len=64, max_draft=3)
    return recorded, ModelRunner(decoder.config, decoder, cache, (0, 2))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 4)), min_size=1, max_size=6),
    wants_all=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_replayed_step_computes_what_a_plain_one_does(
    pair_of_runners: tuple[ModelRunner, ModelRunner],
    rows: list[tuple[int, int]],
    wants_all: bool,
    seed: int,
    replays: list[int],
) -> None:
    """rows: tokens before the step, and in it."""
    outputs = []
    for runner in pair_of_runners:
        driver = Driver(runner)
        sequences = [
            Sequence(
                str(i), torch.randint(4, 480, (before + n,), generator=torch.Generator().manual_seed(seed + i)).tolist()
            )
            for i, (before, n) in enumerate(rows)
        ]
        first = [driver.row(s, before, 0) for s, (before, _) in zip(sequences, rows, strict=True) if before]
        if first:
            driver.run(first)
        step = [driver.row(s, n, n if wants_all else 1) for s, (_, n) in zip(sequences, rows, strict=True)]
        replays.clear()
        outputs.append(driver.run(step).logits.clone())
        assert len(replays) == (runner is pair_of_runners[0])
    torch.testing.assert_close(*outputs, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def tree_runners(folder: Path) -> dict[bool | None, ModelRunner]:
    """Runners that record steps for trees (True) and for chains (False), and one that records none."""
    recorded = {
        is_known: build_runner(folder, block_size=4, n_blocks=400, platform=recorded_platform(), keeps_hidden=True)
        for is_known in (False, True)
    }
    for is_known, runner in recorded.items():
        runner.record(max_rows=6, max_model_len=64, max_draft=7, width=2 if is_known else 1)
    return {**recorded, None: build_runner(folder, block_size=4, n_blocks=400, keeps_hidden=True)}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 2), st.integers(0, 6)), min_size=1, max_size=6),
    is_known=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_replayed_step_of_draft_trees_computes_what_a_plain_one_does(
    tree_runners: dict[bool | None, ModelRunner],
    rows: list[tuple[int, int, int]],
    is_known: bool,
    seed: int,
    replays: list[int],
) -> None:
    """rows: tokens before the step, and in it, and the nodes of a tree behind them. is_known: whether the graphs are
    recorded for trees; else such a step is computed call by call."""
    outputs = []
    for runner in tree_runners[is_known], tree_runners[None]:
        driver, draw = Driver(runner), random.Random(seed)
        sequences = [Sequence(str(i), [draw.randrange(4, 480) for _ in range(n)]) for i, (n, _, _) in enumerate(rows)]
        driver.run([driver.row(each, len(each.tokens), 0) for each in sequences])
        step = []
        for each, (_, n, n_nodes) in zip(sequences, rows, strict=True):
            each.tokens += [draw.randrange(4, 480) for _ in range(n)]
            parents = tuple(draw.randrange(-1, node) for node in range(n_nodes))
            step.append(driver.draft_row(each, [draw.randrange(4, 480) for _ in range(n_nodes)], parents))
        has_trees = any(tree_words(row.parents) for row in step)
        replays.clear()
        output = driver.run(step)
        assert output.hidden is not None
        outputs.append((output.logits.clone(), output.hidden.clone()))
        assert len(replays) == (runner is not tree_runners[None] and (is_known or not has_trees))
    for found, expected in zip(*outputs, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_buckets_hold_every_number_of_rows_with_little_padding() -> None:
    for max_rows in (1, 3, 8, 64, 100, 256):
        sizes = sorted(bucket.n_rows for bucket in buckets_for(max_rows, 0) if bucket.n_queries == 1)
        assert sizes[-1] == max_rows
        for rows in range(1, max_rows + 1):
            held = next(size for size in sizes if size >= rows)
            assert held < 2 * rows
    assert buckets_for(4, 0)[0] == Bucket(8, 4)  # forced tokens
    assert buckets_for(4, 11)[0] == Bucket(12, 4)  # drafts
    assert len(buckets_for(256, 0)) < 24


def test_a_start_logs_its_progress(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="engine"):
        build_core(engine_config(folder, max_rows=4), platform=recorded_platform())
    assert [record.getMessage() for record in caplog.records if "graphs" in record.getMessage()] == [
        f"model: {i} of 6 graphs recorded" for i in range(7)
    ]


def test_progress_is_told_from_the_first_to_the_last_graph(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    decoder = load_decoder(folder, torch.float32)
    runner = ModelRunner(decoder.config, decoder, CacheConfig(n_blocks=4), platform=recorded_platform())
    note: Callable[[int, int], None] = lambda done, total: told.append((done, total))  # noqa: E731
    runner.record(8, 64, on_progress=note)
    assert told == [(i, 8) for i in range(9)]
