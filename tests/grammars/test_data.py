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
from grammars.pointer import resolve
from grammars.validation import validate
from tests.grammars.answers import legal, takes_json


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        yield from map(json.loads, lines)


def _compiles(compiler: GrammarCompiler, schema: Any) -> bool:
    """False for a refusal, which must name a keyword and a place in the client's own schema."""
    try:
        compiler.compile(JsonSchema(schema))
    except ConstraintRefused as refusal:
        _assert_names_a_place(refusal, schema)
        return False
    return True


def _assert_names_a_place(refusal: ConstraintRefused, schema: Any) -> None:
    assert refusal.keyword
    resolve(schema, refusal.pointer)  # raises LookupError


def test_the_specifications_required_tests_meet_no_loose_answer(compiler: GrammarCompiler, data: Path) -> None:
    loose, right = [], 0
    for group in _rows(data / "json-schema-test-suite" / "draft2020-12.jsonl"):
        if not _compiles(compiler, group["schema"]):
            continue
        for test in group["tests"]:
            taken = takes_json(compiler, group["schema"], test["data"])
            right += taken == test["valid"]
            if taken and not test["valid"]:
                loose.append((group["keyword"], group["description"], test["description"]))
    assert loose == []
    assert right >= 1_040


@pytest.mark.parametrize("n", [60, pytest.param(1377, marks=pytest.mark.full)])
def test_schemas_of_the_world_admit_no_invalid_instance(compiler: GrammarCompiler, data: Path, n: int) -> None:
    rows = random.Random(1).sample(list(_rows(data / "schemabench" / "dev.jsonl.gz")), n)
    n_compiled = n_passing = 0
    for row in rows:
        if not _compiles(compiler, row["schema"]):
            continue
        n_compiled += 1
        wrong = [test for test in row["tests"] if takes_json(compiler, row["schema"], test["data"]) != test["valid"]]
        assert [test["data"] for test in wrong if not test["valid"]] == [], row["id"]
        n_passing += not wrong
    assert n_compiled >= 0.95 * n
    assert n_passing >= 0.9 * n


@pytest.fixture(scope="module")
def qwen(data: Path) -> tuple[Any, GrammarCompiler]:
    """The Qwen2 vocabulary, padded to the 151,936 logits of the small Qwen2.5 models."""
    tokenizer = load_tokenizer(data / "tokenizers" / "qwen2_tokenizer.json.gz")
    return tokenizer, GrammarCompiler(tokenizer, vocab_size=151_936, deadline_s=60)


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
