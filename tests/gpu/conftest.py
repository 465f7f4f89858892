"""All of this folder needs a GPU: python -m pytest tests/gpu"""

import warnings
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("default")  # as for the tests, below
    from tests.gpu.machine import IS_INTERPRETED, WHY_NOT

if IS_INTERPRETED:
    import tests.kernels.interpreted.conftest  # noqa: F401 - repairs the interpreter


def pytest_runtest_setup(item: pytest.Item) -> None:  # noqa: ARG001
    """Skip all, in one line of the summary."""
    if WHY_NOT is not None:
        pytest.skip(WHY_NOT)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A library of the device's may warn."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))
