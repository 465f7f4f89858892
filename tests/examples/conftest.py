"""A real server with the bundled pair, as an example's user starts it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.server import Checkpoints, GatewayServer, run_server

BUNDLED = Path(__file__).parents[2] / "bundled_models"


@pytest.fixture(scope="session")
def bundled_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    """No key, no settings."""
    pair = Checkpoints(BUNDLED / "small", BUNDLED / "large")
    with run_server(pair, tmp_path_factory.mktemp("bundled"), {}) as running:
        yield running
