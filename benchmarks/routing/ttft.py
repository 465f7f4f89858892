"""The time to the first token of requests that are routed, over that of requests for the same model by name."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.routing.prompts import long_chats, short_chats, tool_requests
from benchmarks.routing.streams import Paired, StreamClient, interleaved
from gateway.demo import running_server

# A limit that only the small model comes near to, which holds out of domain, too; and a quality that only large has.
TO_SMALL, TO_LARGE = {"x-router-max-cost-usd": "1e-9"}, {"x-router-quality": "1"}
SETTINGS = """\
[routing]
exploration = 0.0
early = {early}
"""


def _chats(long_turns: int) -> dict[str, Iterator[Mapping[str, Any]]]:
    return {
        "short chat": short_chats(11),
        "tools": tool_requests(12),
        "long chat": long_chats(13, long_turns),
    }


def times(config: Path | None, folder: Path, pairs: int, long_turns: int) -> list[Paired]:
    """For each kind of prompt: stays on small, goes to large with clear cases decided before any prefill (few
    are clear), and without.

    config: settings of the pair, None is the bundled one. folder: for settings of the servers. long_turns: of the long
    chats.
    """
    found = list[Paired]()
    for early in (True, False):
        path = folder / f"early-{early}.toml"
        base = "" if config is None else config.read_text()
        path.write_text(base + SETTINGS.format(early=str(early).lower()))
        with running_server(["--config", str(path)]) as url:
            client = StreamClient(url)
            for name, bodies in _chats(long_turns).items():
                if early:
                    found.append(
                        interleaved(client, f"{name}: small", bodies, model="small", headers=TO_SMALL, pairs=pairs)
                    )
                when = "large, clear cases allowed" if early else "large, always after the prefill"
                found.append(
                    interleaved(client, f"{name}: {when}", bodies, model="large", headers=TO_LARGE, pairs=pairs)
                )
    return found
