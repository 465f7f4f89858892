"""The stable Python interface."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine import Engine, EngineError, FinishReason, RequestRefused, SamplingParams
from engine.config import CacheConfig, Quantization, SchedulerConfig
from grammars import Choice, ConstraintRefused, JsonSchema
from kernels.native.build import find_library
from tests.engine.checkpoints import END_ID, build_checkpoint

GREEDY = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    build_checkpoint(folder, seed=7)
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    cache, limits = CacheConfig(block_size=8, n_blocks=64), SchedulerConfig(max_waiting_requests=4)
    with Engine.from_pretrained(folder, "float32", cache=cache, scheduler=limits, torch_threads=1) as engine:
        yield engine


def test_greedy_answers_are_those_of_transformers(engine: Engine, tmp_path: Path) -> None:
    model = build_checkpoint(tmp_path, seed=7)
    prompts = ["The quick brown", [5, 6, 7, 8, 9], "hello"]
    results = engine.generate(prompts, GREEDY)
    for result in results:
        ids = torch.tensor([result.prompt_token_ids])
        # The reference suppresses the end token by the same rule as ignore_eos.
        expected = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=10,
            do_sample=False,
            suppress_tokens=[END_ID],
            pad_token_id=0,
        )
        assert result.token_ids == expected[0, ids.shape[1] :].tolist()
        assert result.text == engine.tokenizer.decode(result.token_ids)
        assert result.finish_reason is FinishReason.LENGTH
        assert result.timeline.prompt_tokens == len(result.prompt_token_ids)


@pytest.mark.parametrize("prompt", ["one prompt", [4, 5, 6]])
def test_a_single_prompt_gives_a_list_of_one(engine: Engine, prompt: str | list[int]) -> None:
    [single] = engine.generate(prompt, GREEDY)
    [listed] = engine.generate([prompt], GREEDY)
    assert single.token_ids == listed.token_ids
    assert single.prompt_token_ids == (engine.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt)


def test_no_prompts_give_no_results(engine: Engine) -> None:
    assert engine.generate([], GREEDY) == []


def test_parameters_and_constraints_may_differ_by_prompt(engine: Engine) -> None:
    params = [GREEDY, SamplingParams(temperature=0, max_tokens=8, logprobs=1, ignore_eos=True)]
    free, bound = engine.generate(["a", "b"], params, [None, Choice(("left", "right"))])
    assert len(free.token_ids) == 10
    assert free.logprobs is None
    assert bound.text in ("left", "right")
    assert bound.is_complete
    assert bound.logprobs is not None
    assert [entry.token_id for entry in bound.logprobs] == bound.token_ids
    with pytest.raises(ValueError, match="2 params for 1 prompts"):
        engine.generate("a", params)


def test_more_prompts_than_the_queue_holds_are_all_answered(engine: Engine) -> None:
    prompts = [[i + 4, 7] for i in range(30)]
    results = engine.generate(prompts, GREEDY)
    assert [result.prompt_token_ids for result in results] == prompts
    assert [result.token_ids for result in results] == [engine.generate([p], GREEDY)[0].token_ids for p in prompts]


def test_a_failing_request_raises_and_leaves_the_engine_usable(engine: Engine) -> None:
    with pytest.raises(RequestRefused, match="the window 512"):
        engine.generate(["fine", [5] * 600], GREEDY)
    with pytest.raises(ConstraintRefused, match="nonsense"):
        engine.generate("x", GREEDY, JsonSchema({"type": "nonsense"}))
    assert len(engine.generate("x", GREEDY)[0].token_ids) == 10
    assert engine.stats()["kv_blocks_used_now"] == 0


def test_seeds_decide_draws(engine: Engine) -> None:
    def draw(seed: int | None) -> list[int]:
        return engine.generate("x", SamplingParams(temperature=2.0, seed=seed, max_tokens=12))[0].token_ids

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        Engine.from_pretrained(tmp_path)


def test_importing_the_package_does_not_import_torch() -> None:
    imports = "import engine, engine.client, engine.scheduler, sys; "
    program = imports + "sys.exit(bool({'torch', 'transformers'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_exported_names_exist() -> None:
    import engine as package

    assert all(hasattr(package, name) for name in package.__all__)
    assert issubclass(RequestRefused, EngineError)
    with pytest.raises(AttributeError, match="nothing"):
        _ = package.nothing


@pytest.mark.parametrize("quantize", ["none", "w8a8", "int4"])
def test_quantised_and_invariant_models_answer_the_same_alone_and_batched(
    tmp_path: Path, quantize: Quantization
) -> None:
    if quantize == "int4" and find_library() is None:
        pytest.skip("int4 needs the C kernels, which this machine cannot have")
    build_checkpoint(tmp_path, "qwen2")
    prompts = [list(range(5, 5 + n)) for n in (3, 40, 17)]
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    with Engine.from_pretrained(tmp_path, quantize=quantize, invariant=True) as engine:
        together = [result.token_ids for result in engine.generate(prompts, params)]
        assert together == [engine.generate(prompt, params)[0].token_ids for prompt in prompts]
