"""Real schemas, the specification's own tests and a real vocabulary."""

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.tokenizers import load_tokenizer
from grammars import ConstraintRefused, GrammarCompiler, JsonSchema, Tool, ToolCalls
from grammars.validation import validate
from tests.grammars.answers import legal, takes_json


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        yield from map(json.loads, lines)


def test_the_specifications_required_tests_meet_no_loose_answer(compiler: GrammarCompiler, data: Path) -> None:
    loose, right = [], 0
    for group in _rows(data / "json-schema-test-suite" / "draft2020-12.jsonl"):
        try:
            compiler.compile(JsonSchema(group["schema"]))
        except ConstraintRefused:
            continue
        for test in group["tests"]:
            taken = takes_json(compiler, group["schema"], test["data"])
            right += taken == test["valid"]
            if taken and not test["valid"]:
                loose.append((group["keyword"], group["description"], test["description"]))
    assert loose == []
    assert right >= 850


@pytest.mark.parametrize("n", [40, pytest.param(1377, marks=pytest.mark.full)])
def test_schemas_of_the_world_admit_no_invalid_instance(compiler: GrammarCompiler, data: Path, n: int) -> None:
    rows = random.Random(1).sample(list(_rows(data / "schemabench" / "dev.jsonl.gz")), n)
    n_compiled = 0
    for row in rows:
        try:
            compiler.compile(JsonSchema(row["schema"]))
        except ConstraintRefused:
            continue
        n_compiled += 1
        for test in row["tests"]:
            if not test["valid"]:
                assert not takes_json(compiler, row["schema"], test["data"]), (row["id"], test["data"])
    assert n_compiled >= 0.85 * n


@pytest.fixture(scope="module")
def qwen(data: Path) -> tuple[Any, GrammarCompiler]:
    """The Qwen2 vocabulary, padded to the 151,936 logits of the small Qwen2.5 models."""
    tokenizer = load_tokenizer(data / "tokenizers" / "qwen2_tokenizer.json.gz")
    return tokenizer, GrammarCompiler(tokenizer, vocab_size=151_936)


def test_a_real_vocabulary_writes_a_call_and_never_a_special_token(qwen: tuple[Any, GrammarCompiler]) -> None:
    tokenizer, compiler = qwen
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    }
    constraint = ToolCalls((Tool("get_weather", "", schema),))
    text = '[{"name":"get_weather","arguments":{"city":"São Paulo 🌧","days":3}}]'
    compiled = compiler.compile(constraint)
    matcher = compiled.matcher()
    row = torch.zeros(compiler.n_words, dtype=torch.int32)
    silent = {tokenizer.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|endoftext|>")}
    for token in tokenizer.encode(text):
        matcher.fill_mask(row)
        allowed = legal(row)
        assert token in allowed
        assert not allowed & silent
        assert max(allowed) < len(tokenizer)
        assert matcher.advance(token)
    assert matcher.is_complete
    assert matcher.advance(tokenizer.convert_tokens_to_ids("<|im_end|>"))
    assert validate(constraint, text) is None


def test_free_text_may_be_any_text_of_a_real_vocabulary(qwen: tuple[Any, GrammarCompiler]) -> None:
    tokenizer, compiler = qwen
    matcher = compiler.compile(ToolCalls((Tool("f"),))).matcher()
    for token in tokenizer.encode('Grüße! Here is a list: [1, 2], {"a": "b"}\n\n你好 🎉'):
        assert matcher.advance(token)
    assert matcher.is_complete
    assert not matcher.advance(tokenizer.convert_tokens_to_ids("<|im_start|>"))
