"""The engine's law on a GPU: no answer depends on graphs, overlap, chunks, the prefix cache, or company."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.messages import Prepare, Submit
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import MODEL, Seen, build_core, drive, engine_config, is_idle, submit
from tests.gpu.machine import pick, platform

N = pick(24, 5)
PROMPT = [(i * 53 + 7) % 480 + 8 for i in range(pick(150, 18))]
GREEDY = [
    submit("free", PROMPT, max_tokens=N, ignore_eos=True, logprobs=2),
    submit("short", PROMPT[:9], max_tokens=1, logprobs=2),
    submit("other", PROMPT[7:60], max_tokens=N - 2, ignore_eos=True, logprobs=2),
    submit("again", PROMPT, max_tokens=N, ignore_eos=True, logprobs=2),
]
DRAWN = [
    submit("drawn", PROMPT[:20], max_tokens=N, temperature=1.2, seed=3, ignore_eos=True, frequency_penalty=0.5),
    submit("cut", PROMPT[4:30], max_tokens=N, temperature=0.7, top_k=9, top_p=0.9, seed=9, ignore_eos=True),
]
WAYS: dict[str, dict[str, Any]] = pick(
    {
        "graphs": {"graphs": True},
        "graphs, depth 1": {"graphs": True, "overlap_depth": 1},
        "depth 1": {"overlap_depth": 1},
        "chunks": {"graphs": True, "overlap_depth": 1, "token_budget": 19},
        "no prefix cache": {"graphs": True, "overlap_depth": 1, "prefix_cache": False},
        "few pages": {"graphs": True, "overlap_depth": 1, "n_blocks": 24},
        "large pages": {"graphs": True, "overlap_depth": 1, "block_size": 64},
    },
    {"graphs, depth 1": {"graphs": True, "overlap_depth": 1}, "chunks": {"token_budget": 7}},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("law")
    build_checkpoint(path, "qwen3", seed=1, num_hidden_layers=pick(3, 1))
    return path


def answers(folder: Path, submits: list[Submit], dtype: str = "float32", *, apart: int = 2, **way: Any) -> list[Seen]:
    """apart: steps between arrivals."""
    limits = {name: way.pop(name) for name in ("token_budget", "block_size", "n_blocks") if name in way}
    config = replace(engine_config(folder, max_rows=4, **{"block_size": 16, **limits}), dtype=dtype)  # type: ignore[arg-type]
    graphs = way.pop("graphs", False)
    core = build_core(config, platform=platform(graphs=graphs), **{"overlap_depth": 0, **way})
    seen = drive(core, [(apart * number, each) for number, each in enumerate(submits)])
    assert is_idle(core)
    return [seen[each.id] for each in submits]


@pytest.fixture(scope="module")
def alone(folder: Path) -> list[Seen]:
    """Every answer, one after the other."""
    return answers(folder, GREEDY + DRAWN, apart=pick(300, 60))


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_no_answer_depends_on_how_it_is_computed(folder: Path, alone: list[Seen], way: dict[str, Any]) -> None:
    found = answers(folder, GREEDY + DRAWN, **way)
    assert [each.finished.token_ids for each in found] == [each.finished.token_ids for each in alone]


def test_a_prepared_prompt_goes_on_in_a_step_of_its_own(folder: Path, alone: list[Seen]) -> None:
    """Which has no row: its first token is drawn from logits that were kept."""
    config = engine_config(folder, max_rows=4, block_size=16)
    core = build_core(config, platform=platform(graphs=pick(True, False)), overlap_depth=1)
    later = Submit(id="answer", model=MODEL, params=GREEDY[0].params, handle="held")
    seen = drive(core, [(0, Prepare("held", MODEL, PROMPT)), (20, later)])
    assert seen["answer"].finished.token_ids == alone[0].finished.token_ids


@pytest.mark.parametrize("dtype", pick(["bfloat16", "float16"], []))
@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_in_16_bits_only_near_ties_move(folder: Path, dtype: str, way: dict[str, Any]) -> None:
    expected = answers(folder, GREEDY, dtype, apart=300)
    for found, wanted in zip(answers(folder, GREEDY, dtype, **way), expected, strict=True):
        pairs = zip(found.finished.token_ids, wanted.finished.token_ids, strict=True)
        moved_at = next((at for at, (one, other) in enumerate(pairs) if one != other), None)
        if moved_at is not None:
            best = wanted.logprobs[moved_at].top
            assert best[0][1] - best[1][1] < 0.3, f"token {moved_at} was no near tie"


@pytest.mark.parametrize("dtype", pick(["bfloat16", "float32"], ["float32"]))
def test_an_invariant_engine_answers_with_the_same_bits_in_any_company(folder: Path, dtype: str) -> None:
    found = []
    for company in (GREEDY[:1], GREEDY + DRAWN):
        config = replace(engine_config(folder, block_size=16, max_rows=8), dtype=dtype, invariant=True)  # type: ignore[arg-type]
        core = build_core(config, platform=platform(graphs=pick(True, False)), overlap_depth=1)
        found.append(drive(core, [(0, each) for each in reversed(company)])["free"])
    one, other = found
    assert one.finished.token_ids == other.finished.token_ids
    assert [each.logprob for each in one.logprobs] == [each.logprob for each in other.logprobs]
