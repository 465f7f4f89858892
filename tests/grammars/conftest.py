"""A vocabulary of the 256 bytes, and the shared data where the environment names it."""

import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tokenizers import byte_tokenizer
from grammars import GrammarCompiler


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Token i is byte i; token 256 ends an answer."""
    return byte_tokenizer("<|endoftext|>")


@pytest.fixture(scope="session")
def compiler(tokenizer: Any) -> GrammarCompiler:
    """A compiler for the bytes, with padding up to 300 logits. Its deadline allows for a busy machine."""
    return GrammarCompiler(tokenizer, vocab_size=300, deadline_s=60)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of shared data; tests that need it are skipped without it."""
    folder = os.environ.get("POINTSMAN_DATA")
    if not folder:
        pytest.skip("POINTSMAN_DATA names no data folder")
    return Path(folder)
