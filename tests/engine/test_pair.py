"""Two models in one engine: their vocabularies compared, their memory split, their pages kept apart."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config import CacheConfig, EngineConfig
from engine.loaded_model import LoadedModel, fingerprint
from engine.pair import VocabularyComparison, load_engine
from engine.pair_config import PairConfig
from engine.speculation.config import SpeculationConfig
from engine.speculation.proposer import Source
from engine.tokenizer import Tokenizer
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import build_core, engine_config, instance_of, run, submit


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    build_checkpoint(folder, seed=5)
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    build_checkpoint(folder, seed=6, num_hidden_layers=5, num_key_value_heads=4)
    return folder


def with_tokenizer(folder: Path, tmp_path: Path, change: dict[str, str]) -> Tokenizer:
    """A copy of the folder's tokenizer in which the tokens of two ids have changed places."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "tokenizer.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = raw["model"]["vocab"]
    for one, other in change.items():
        vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    path.write_text(json.dumps(raw), encoding="utf-8")
    return Tokenizer.from_folder(tmp_path)


def test_equal_tokenizers_are_shared(small: Path, large: Path) -> None:
    tokenizer = Tokenizer.from_folder(small)
    comparison = VocabularyComparison.of(tokenizer, Tokenizer.from_folder(large))
    assert comparison.is_shared


def test_one_token_in_another_place_is_found(small: Path, tmp_path: Path) -> None:
    mine = Tokenizer.from_folder(small)
    [a], [b] = mine.encode("a"), mine.encode("b")
    comparison = VocabularyComparison.of(mine, with_tokenizer(small, tmp_path, {"a": "b"}))
    assert not comparison.is_shared
    assert comparison.first_difference == min(a, b)


def test_memory_is_split_so_that_both_hold_as_many_tokens(small: Path, large: Path) -> None:
    budget = 3 * 2**20
    configs = {
        name: replace(engine_config(folder), cache=CacheConfig(block_size=8))
        for name, folder in (("small", small), ("large", large))
    }
    core = load_engine(PairConfig(configs, kv_bytes=budget)).core
    one, other = core.info()
    assert one.kv_bytes + other.kv_bytes <= budget
    assert one.n_blocks == pytest.approx(other.n_blocks, rel=0.01)
    assert other.kv_bytes > 2 * one.kv_bytes
    core.close()


def test_loading_says_what_clients_must_know(small: Path, large: Path) -> None:
    configs = {"small": engine_config(small), "large": engine_config(large, n_blocks=40)}
    loaded = load_engine(PairConfig(configs))
    ready = loaded.ready()
    assert ready.shares_vocabulary
    assert [info.name for info in ready.models] == ["small", "large"]
    assert ready.models[0].fingerprint != ready.models[1].fingerprint
    assert (ready.models[1].n_blocks, ready.models[1].block_size, ready.models[1].dtype) == (40, 8, "float32")
    assert 0 < ready.models[0].n_parameters < ready.models[1].n_parameters
    loaded.core.close()


def test_a_fingerprint_changes_with_a_single_weight(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    assert fingerprint(tmp_path) == fingerprint(small)
    weights = next(tmp_path.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert fingerprint(tmp_path) != fingerprint(small)


def test_an_impossible_pair_is_refused(small: Path) -> None:
    with pytest.raises(ValueError, match="models is empty"):
        PairConfig({})
    with pytest.raises(ValueError, match="kv_bytes is 0"):
        PairConfig({"m": engine_config(small)}, kv_bytes=0)


def test_a_gpu_that_is_too_small_is_named_with_what_to_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_checkpoint(tmp_path)

    def full(*_given: object) -> None:
        raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB")

    monkeypatch.setattr(LoadedModel, "load", full)
    with pytest.raises(ValueError, match=r"do not fit the GPU's memory \(Tried to allocate 2.00 GiB\): quantise"):
        load_engine(PairConfig({"model": EngineConfig(tmp_path, device="cpu")}))


def test_a_drafter_with_another_tokenizer_is_left_out_with_one_warning(
    small: Path, large: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_tokenizer(small, tmp_path, {"a": "b"})
    speculation = SpeculationConfig(drafters={"large": "small"}, is_adaptive=False)
    prompt = [9, 10, 11, 9, 10, 11, 9]
    asked = submit("s", prompt, model="large", max_tokens=12, ignore_eos=True)
    [expected] = run(build_core(engine_config(large), names=["large"]), asked)
    configs = {"small": engine_config(tmp_path), "large": engine_config(large)}
    with caplog.at_level(logging.WARNING):
        core = load_engine(PairConfig(configs, speculation=speculation)).core
    [record] = caplog.records
    first = VocabularyComparison.of(Tokenizer.from_folder(large), Tokenizer.from_folder(tmp_path)).first_difference
    assert record.getMessage().startswith("small cannot draft for large")
    assert record.getMessage().endswith(f"from token {first} on")
    [seen] = run(core, asked)
    assert seen.finished.token_ids == expected.finished.token_ids
    drafts = instance_of(core, "large").counters.drafts
    assert (drafts["draft_model"].drafted, drafts["ngram"].drafted > 0) == (0, True)
    core.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_draft": 0}, "max_draft is 0: use 1 to 63, or no sources"),
        ({"max_draft": 64}, "max_draft is 64"),
        ({"width": 0}, "width is 0: use 1"),
        ({"width": 9}, "width is 9"),
        ({"verification": "hope"}, "verification is 'hope': use coupled or ratio"),
        ({"sources": (Source.NGRAM, Source.NGRAM)}, "names one twice: ngram, ngram"),
        ({"drafters": {"large": "large"}}, "lets 'large' draft for itself"),
    ],
)
def test_impossible_speculation_is_refused_with_what_to_change(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpeculationConfig(**options)


@pytest.mark.parametrize("drafters", [{"large": "tiny"}, {"tiny": "large"}])
def test_drafters_that_are_no_models_are_refused(small: Path, drafters: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="names tiny: the models are small, large"):
        PairConfig(
            {"small": engine_config(small), "large": engine_config(small)},
            speculation=SpeculationConfig(drafters=drafters),
        )


def test_without_sources_and_proposers_nothing_is_drafted(small: Path, large: Path) -> None:
    configs = {"small": engine_config(small), "large": engine_config(large)}
    core = load_engine(PairConfig(configs, speculation=SpeculationConfig((), drafters={"large": "small"}))).core
    assert all(instance_of(core, name).speculator is None for name in configs)
    core.close()
