"""What all tests share: properties have no deadline (timings are benchmarks), and under CI draw the same examples."""

import os
from importlib.util import find_spec

import pytest
from hypothesis import settings

settings.register_profile("pointsman", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("pointsman")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The tests of a GPU also run where pytest-asyncio is missing, whose options would be unknown then."""
    if find_spec("pytest_asyncio") is None:
        for name in ("asyncio_mode", "asyncio_default_fixture_loop_scope"):
            parser.addini(name, "pytest-asyncio reads it")
