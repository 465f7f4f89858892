"""A run: trained by two processes, stopped, taken up again; a worker that dies ends it with the state kept."""

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from tokenizers import Tokenizer

from bundled_models import tokenizer as tokenizers_of
from bundled_models.generator import Example, Generator
from bundled_models.model import Shape
from bundled_models.team import TeamError
from bundled_models.trainer import CHECKPOINT, CURVE, Options, Threshold, Trainer, exact

SHAPE = Shape(vocabulary=0, width=32, layers=3, heads=2, hidden=48)
OPTIONS = Options(
    tokens=4096,
    microbatch=2048,
    drill_loss=100.0,
    thresholds=(Threshold(2.0, 0.0), Threshold(2.0, 0.0)),
    evaluate_every_s=0.5,
    save_every_s=0.5,
    workers=2,
    compiled=False,
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tokenizers_of.train(groups=50)


def trainer(folder: Path, tokenizer: Tokenizer, options: Options = OPTIONS) -> Trainer:
    """A run whose evaluations take no time."""
    found = Trainer(folder, SHAPE, tokenizer, options)
    found.evaluations = {"fresh": lambda: [Generator(1).group(2)]}
    return found


def test_a_run_advances_saves_and_goes_on_where_it_stopped(tmp_path: Path, tokenizer: Tokenizer) -> None:
    first = trainer(tmp_path, tokenizer)
    assert first.model.shape.vocabulary == tokenizer.get_vocab_size()

    def stop_in_the_second_stage() -> list[list[Example]]:
        if first.progress.stage >= 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return [Generator(1).group(2)]

    first.evaluations["fresh"] = stop_in_the_second_stage
    first.run(minutes=5)
    assert first.progress.stage >= 1
    entries = [json.loads(line) for line in (tmp_path / CURVE).read_text().splitlines()]
    assert [e["stage_done"] for e in entries if "stage_done" in e][:2] == [-1, 0]
    second = trainer(tmp_path, tokenizer)
    assert second.progress == first.progress
    for one, two in zip(first.store.state().values(), second.store.state().values(), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(first.store.values, second.store.values)
    assert first.store.momenta.any()


def test_when_a_worker_dies_the_run_ends_with_an_error_and_the_checkpoint_stays(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    run = trainer(tmp_path, tokenizer)
    run.save()

    def kill() -> None:
        while not (found := [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]):
            time.sleep(0.05)
        time.sleep(1.0)
        found[0].send_signal(signal.SIGKILL)

    threading.Thread(target=kill).start()
    with pytest.raises(TeamError, match="has ended"):
        run.run(minutes=2)
    assert trainer(tmp_path, tokenizer).progress.step <= run.progress.step
    assert not list(tmp_path.glob("*.partial"))


def test_a_signal_ends_a_run_with_a_checkpoint(tmp_path: Path, tokenizer: Tokenizer) -> None:
    run = trainer(tmp_path, tokenizer, replace(OPTIONS, workers=1))
    threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    run.run()
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["progress"]["step"] == run.progress.step > 0


def test_the_rate_rises_stays_and_falls_over_the_last_share(tmp_path: Path, tokenizer: Tokenizer) -> None:
    run = trainer(tmp_path, tokenizer, Options(rate=0.4, decay=0.25, warmup_steps=10))
    assert run.factor(0, 0.0) == pytest.approx(0.04)
    assert run.factor(100, 0.5) == pytest.approx(0.4)
    assert run.factor(100, 0.75) == pytest.approx(0.4)
    assert run.factor(100, 0.875) == pytest.approx(0.2)
    assert run.factor(100, 1.0) == 0
    assert trainer(tmp_path, tokenizer, Options(rate=0.4, decay=0)).factor(100, 0.99) == pytest.approx(0.4)


def test_exact_match_counts_answers_and_tokens(tmp_path: Path, tokenizer: Tokenizer) -> None:
    run = trainer(tmp_path, tokenizer)
    groups = [Generator(1).group(3)]
    scores = exact(run.model, tokenizer, groups, microbatch=2048)
    assert scores["all"] == 0
    assert 0 <= scores["tokens"] < 0.1
    assert set(scores) == {"all", "tokens"} | {e.kind for e in groups[0]}
