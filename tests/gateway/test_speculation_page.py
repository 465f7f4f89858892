"""The page about speculation names what there is."""

import re
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.stats import Counters
from gateway.openai.responses import CompletionDetails
from gateway.settings import Settings, SpeculationSettings
from gateway.settings_loader import known_settings
from gateway.telemetry.metrics import Metrics

PAGE = (Path(__file__).parents[2] / "docs/speculation.md").read_text()


def test_every_metric_on_the_page_is_served() -> None:
    metrics = Metrics()
    metrics.update_engine({"large": Counters().snapshot()})
    families = text_string_to_metric_families(metrics.render().decode())
    served = {sample.name for family in families for sample in family.samples}
    named = set(re.findall(r"pointsman_\w+", PAGE))
    assert len(named) > 8
    assert named <= served


def test_the_settings_on_the_page_are_all_of_the_section_with_their_defaults() -> None:
    rows = dict(re.findall(r"^\| `speculation\.(\w+)` \| (.+?) \|", PAGE, re.MULTILINE))
    assert set(rows) == set(SpeculationSettings.__struct_fields__)
    defaults = Settings().speculation
    assert (rows["mode"], rows["verification"]) == (f"`{defaults.mode}`", f"`{defaults.verification}`")
    assert (int(rows["max_draft"]), int(rows["width"])) == (defaults.max_draft, defaults.width)
    assert len(defaults.sources) == 4
    names = {setting.name for setting in known_settings()}
    assert set(re.findall(r"`((?:speculation|engine)\.[a-z_]+)`", PAGE)) - {"engine.decode"} <= names


@pytest.mark.parametrize("source", Settings().speculation.sources)
def test_every_source_is_described(source: str) -> None:
    assert f"| `{source}` |" in PAGE


def test_the_example_of_usage_has_the_shape_that_is_sent() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    read = msgspec.json.decode(example, type=CompletionDetails)
    assert msgspec.to_builtins(read) == msgspec.json.decode(example)
    assert isinstance(read.speculation, msgspec.Struct)
    assert read.speculation.drafted == sum(found.drafted for found in read.speculation.by_proposer.values())
    for found in (read.speculation, *read.speculation.by_proposer.values()):
        assert found.drafted == found.accepted + found.wasted
    prediction = read.speculation.by_proposer["prediction"]
    assert read.accepted_prediction_tokens == prediction.accepted
    assert read.rejected_prediction_tokens == prediction.wasted
