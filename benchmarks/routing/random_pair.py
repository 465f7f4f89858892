"""A pair of real shapes and random weights with a router of its own, for measuring times on models that are not tiny.

The router is trained like any other, on outcomes whose grades are drawn at random: what it decides means nothing, and
what a decision takes does not depend on that.
"""

import json
import random
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.checkpoints import SHAPES, build_checkpoint
from benchmarks.routing.prompts import short_chats, tool_requests
from gateway.engine_host import start_engine
from gateway.openai.intake import Intake
from gateway.openai.prompt import prompters
from gateway.routing.catalogue import Catalogue
from gateway.routing.grading import GradedAnswer
from gateway.routing.shadow import GradedRequest, NoOutcome, Shadow
from gateway.settings_loader import load_settings
from router_model.bundle import bundle
from router_model.outcomes import OutcomeRow
from router_model.training import train

TEMPLATE = """\
{% for message in messages %}<|{{ message.role }}|>{{ message.content }}
{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""
ROWS = 100


@dataclass(slots=True)
class RandomGrader:
    """Small right in a third of all requests, large in half."""

    name: str = "random"
    _draw: random.Random = field(default_factory=lambda: random.Random(0))

    async def grade(self, answer: GradedAnswer) -> float | None:
        """0 or 1."""
        return float(self._draw.random() < (0.33 if answer.model == "small" else 0.5))


async def build(folder: Path, small: str, large: str) -> Path:
    """Write both checkpoints (names of shapes), their router and a TOML file with the settings that serve them; returns
    that file."""
    folders = {"small": folder / "small", "large": folder / "large"}
    for seed, (name, shape) in enumerate((("small", small), ("large", large))):
        build_checkpoint(SHAPES[shape], folders[name], seed, corpus_files=50)
        (folders[name] / "chat_template.jinja").write_text(TEMPLATE)
    settings = load_settings({}, overrides={**folders, "data_dir": folder / "data"})
    engine = await start_engine(settings)
    try:
        catalogue = Catalogue(engine.info())
        intake = Intake(settings, catalogue, prompters(catalogue, settings.dialects), secrets.token_bytes(32))
        requests = [
            GradedRequest(id=str(index), request=body, expected="")
            for index, (chat, tools) in enumerate(zip(short_chats(1), tool_requests(2), strict=False))
            for body in (chat, tools)
        ][:ROWS]
        rows: list[OutcomeRow | NoOutcome] = []
        await Shadow(engine, intake, RandomGrader()).outcomes(requests, rows.append)
    finally:
        await engine.close()
    outcomes = [row.outcome() for row in rows if isinstance(row, OutcomeRow)]
    small_print, large_print = (catalogue[name].info.fingerprint for name in folders)
    router = bundle(train(outcomes), outcomes, small_model=small_print, large_model=large_print)
    router.save(folder / "router")
    config = folder / "pointsman.toml"
    paths = {**folders, "router": folder / "router"}
    config.write_text("".join(f"{name} = {json.dumps(str(path))}\n" for name, path in paths.items()))
    return config
