"""The page on constraints is true: each example is read as a request and compiles, and each field is named."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tokenizers import byte_tokenizer
from gateway.openai.constraints import read_constraint
from gateway.openai.reading import read_chat
from gateway.openai.schemas import PartParam, StructuredOutputs
from gateway.openai.tools import tool_use
from grammars import GrammarCompiler

PAGE = (Path(__file__).parents[2] / "docs" / "constraints.md").read_text()
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
REFUSED = {"structural_tag", "whitespace_pattern", "disable_any_whitespace", "disable_fallback",
           "disable_additional_properties"}  # fmt: skip


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    """Bytes as tokens."""
    return GrammarCompiler(byte_tokenizer("<|endoftext|>"), vocab_size=300, deadline_s=60)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_compiles(compiler: GrammarCompiler, example: dict[str, Any]) -> None:
    body = {"messages": [{"role": "user", "content": "To Oslo?"}]} | example
    request = read_chat(json.dumps(body).encode()).request
    asked = read_constraint(request, tool_use(request), "xlam")
    assert asked.constraint is not None
    compiler.compile(asked.constraint)


def test_every_field_is_named() -> None:
    fields = {*StructuredOutputs.__struct_fields__, *PartParam.__struct_fields__} - REFUSED
    missing = [name for name in sorted(fields) if f"`{name}`" not in PAGE and f".{name}`" not in PAGE
               and f'"{name}"' not in PAGE]  # fmt: skip
    assert not missing
