"""What an instance says of its own urgency."""

from pathlib import Path

import pytest

from engine.chunk_limit import Shape
from engine.messages import Submit
from engine.request import SamplingParams
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import MODEL, build_core, engine_config, instance_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("instance")
    build_checkpoint(folder)
    return folder


def post(id: str, n: int, deadline_s: float | None, max_tokens: int | None) -> Submit:
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    return Submit(id=id, model=MODEL, params=params, tokens=[9] * n, deadline_s=deadline_s)


def test_slack_is_the_time_to_the_deadline_less_the_predicted_work(folder: Path) -> None:
    core = build_core(engine_config(folder))
    instance = instance_of(core)
    instance._clock = instance.scheduler._clock = lambda: 100.0
    assert instance.slack_s() is None
    instance.submit(post("none", 200, None, None), None)
    assert instance.slack_s() is None
    instance.submit(post("later", 5, 60.0, 7), None)
    instance.submit(post("sooner", 100, 50.0, 7), None)

    def seconds(*rows: Shape) -> float:
        return instance.cost_model.seconds(instance.cost_model.step(rows))

    assert instance.slack_s() == pytest.approx(50.0 - seconds(Shape(0, 100, 1)) - 6 * seconds(Shape(100, 1, 1)))
    instance.cancel("sooner")
    assert instance.slack_s() == pytest.approx(60.0 - seconds(Shape(0, 5, 1)) - 6 * seconds(Shape(5, 1, 1)))
    for name in ("none", "later"):
        instance.cancel(name)
    core.close()
