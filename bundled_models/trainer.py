"""Trains a bundled model: drill, then stages of growing difficulty, resumable at any time.

Each worker is a process with one thread (two threads in one process would wait for each other in every product):

    leader    orders | backward | sum own share | update own share | ... | evaluate, save
    others           | backward | sum own share | update own share | ... | wait
"""

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import multiprocessing

from bundled_models import tokenizer as tokenizers_of
from bundled_models.generator import KINDS, STAGES, UNSEEN, Example, Generator
from bundled_models.kernels import PLAIN, Kernels, compiled
from bundled_models.model import SHAPES, Packed, Shape, Size, TinyLlama
from bundled_models.packing import batches, drill, encode, pack, stream
from bundled_models.store import Rates, Store, Updater
from bundled_models.team import Team, TeamError

CHECKPOINT = "checkpoint.pt"
CURVE = "curve.jsonl"
STOP = -2.0

Groups = list[list[Example]]


@dataclass(frozen=True, slots=True)
class Threshold:
    """When a stage is left: at this exact match on fresh values, or after this long in any case."""

    score: float
    most_seconds: float


@dataclass(frozen=True, slots=True)
class Options:
    """How to train; none of it is part of the model. `tokens` a step in all, `microbatch` of them at a time.

    matching: the share of groups that drill choosing.
    """

    branches: int = 6
    tokens: int = 8192
    microbatch: int = 4096
    matrix_rate: float = 0.02
    other_rate: float = 0.003
    rate: float = 1.0
    warmup_steps: int = 50
    decay: float = 1.0
    drill_loss: float = 0.7
    thresholds: tuple[Threshold, ...] = (Threshold(0.5, 900.0), Threshold(0.6, 2000.0))
    evaluate_every_s: float = 180.0
    save_every_s: float = 180.0
    workers: int = 1
    compiled: bool = True
    matching: float = 0.2


@dataclass(slots=True)
class Progress:
    """What a checkpoint remembers beside the weights. Stage -1 is the drill."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    stage: int = -1
    stage_seconds: float = 0.0
    starts: int = 0


@torch.no_grad()
def exact(
    model: TinyLlama, tokenizer: Tokenizer, groups: Groups, kernels: Kernels = PLAIN, microbatch: int = 4096
) -> dict[str, float]:
    """Share of answers in which every token is the greedy choice: all, by kind; `tokens` is the share of tokens right.

    This equals free greedy decoding, since one wrong choice makes the answer wrong.
    """
    right: dict[str, list[bool]] = {}
    tokens: list[bool] = []
    # keyed by the answers' lists, which stay the same objects where a row is cut to fit
    rows = [encode(tokenizer, g) for g in groups]
    kinds = {id(b[1]): e.kind for r, g in zip(rows, groups, strict=True) for b, e in zip(r.branches, g, strict=True)}
    for batch in batches(iter(rows), microbatch):
        packed = pack(batch, model.shape.heads, microbatch)
        good = (model(packed, kernels).argmax(-1) == packed.target)[: packed.known].tolist()
        tokens += good
        at = 0
        for row in batch:
            for _, answer, _ in row.branches:
                right.setdefault(kinds[id(answer)], []).append(all(good[at : at + len(answer)]))
                at += len(answer)
    every = [r for rs in right.values() for r in rs]
    scores = {"all": sum(every) / len(every), "tokens": sum(tokens) / len(tokens)}
    scores |= {k: sum(right[k]) / len(right[k]) for k in KINDS if k in right}
    return {k: round(v, 4) for k, v in scores.items()}


@dataclass(slots=True)
class Clock:
    """Seconds since the last report, by what they went into."""

    begun: float = field(default_factory=time.time)
    tokens: int = 0
    data: float = 0.0
    model: float = 0.0
    update: float = 0.0
    waiting: float = 0.0

    def report(self, matrix_parameters: int, workers: int) -> str:
        """One line; FLOPs are 6 for a matrix parameter and token, so attention and the head come on top."""
        busy = self.data + self.model + self.update + self.waiting
        speed = self.tokens / max(busy, 1e-9)
        parts = {n: getattr(self, n) / max(busy, 1e-9) for n in ("data", "model", "update", "waiting")}
        shares = "  ".join(f"{name} {share:.1%}" for name, share in parts.items())
        return f"{speed:.0f} tok/s  {6 * matrix_parameters * speed / workers / 1e9:.0f} GFLOP/s a core  {shares}"


class Worker:
    """One process's part in every step."""

    def __init__(
        self, store: Store, team: Team, options: Options, index: int, is_alive: Callable[[], bool] = lambda: True
    ) -> None:
        self.store, self.team, self.options, self.index, self.is_alive = store, team, options, index, is_alive
        self.model = store.model(index)
        self.updater = Updater(store, index)
        self.kernels = compiled() if options.compiled else PLAIN
        self.clock = Clock()

    def wait(self) -> None:
        """Wait for all workers."""
        before = time.time()
        self.team.wait(self.index, self.is_alive)
        self.clock.waiting += time.time() - before

    def step(self, source: Iterator[Packed], factor: float) -> tuple[float, int]:
        """One step with this worker's batches from `source`; returns (mean loss, tokens) of all workers' batches."""
        options, clock, total = self.options, self.clock, self.store.totals[self.index]
        self.store.grads[self.index].zero_()
        total.zero_()
        for _ in range(max(1, options.tokens // (options.microbatch * options.workers))):
            before = time.time()
            batch = next(source)
            ready = time.time()
            loss = self.model.loss(batch, self.kernels)
            loss.backward()  # type: ignore[no-untyped-call]
            total += torch.tensor([loss.item(), float(batch.weight.sum()), batch.count], dtype=torch.float64)
            clock.data += ready - before
            clock.model += time.time() - ready
        self.wait()
        loss_sum, weight, tokens = self.store.totals.sum(0).tolist()
        before = time.time()
        self.updater.collect()
        clock.update += time.time() - before
        self.wait()
        before = time.time()
        self.updater.update(Rates(options.matrix_rate * factor, options.other_rate * factor))
        clock.update += time.time() - before
        self.wait()
        if self.index == 0:  # the next wait comes before anybody reads it
            self.store.updates += 1
        clock.tokens += int(tokens)
        return loss_sum / weight, int(tokens)

    def source(self, tokenizer: Tokenizer, stage: int, seed: int) -> Iterator[Packed]:
        """Endless batches of a stage."""
        options, shape = self.options, self.model.shape
        if stage < 0:
            while True:
                yield drill(shape.vocabulary, shape.heads, options.microbatch)
        generator = Generator(seed + stage, "train", STAGES[stage], matching=options.matching)
        yield from stream(tokenizer, generator, options.branches, shape.heads, options.microbatch)


def _seed(starts: int, worker: int) -> int:
    seed = 1000 * starts + 7 + 500 * worker
    random.seed(seed)
    torch.manual_seed(seed)
    return seed


def _follow(store: Store, team: Team, options: Options, index: int, folder: Path, starts: int) -> None:
    """The life of a worker that is not the leader."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leader gets it too and ends the run
    torch.set_num_threads(1)
    tokenizer, seed = tokenizers_of.load(folder), _seed(starts, index)
    parent = multiprocessing.parent_process()
    worker = Worker(store, team, options, index, lambda: parent is not None and parent.is_alive())
    source: Iterator[Packed] = iter(())
    at = STOP
    try:
        while True:
            worker.wait()
            stage, factor = team.orders.tolist()
            if stage == STOP:
                return
            if stage != at:
                source, at = worker.source(tokenizer, int(stage), seed), stage
            worker.step(source, factor)
    except TeamError:
        return  # the leader is gone, and has said why


class Trainer:
    """One run in one folder, and its leading worker."""

    def __init__(self, folder: Path, size: Size | Shape, tokenizer: Tokenizer, options: Options) -> None:
        torch.set_num_threads(1)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self.folder, self.tokenizer, self.options = folder, tokenizer, options
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        shape = size if isinstance(size, Shape) else SHAPES[size]
        self.store = Store(replace(shape, vocabulary=tokenizer.get_vocab_size()), options.workers)
        self.model = self.store.master()
        self.progress = Progress()
        self._stopping = False
        if (folder / CHECKPOINT).exists():
            self._resume()
        self._fresh: dict[str, float] = {}
        self.evaluations: dict[str, Callable[[], Groups]] = {
            "fresh": lambda: _drawn(Generator(99_991, "train", STAGES[max(0, self.progress.stage)]), 30),
            "catalogue": lambda: _drawn(Generator(99_991, "held", sources={"catalogue": 1.0}), 40),
            "unseen": lambda: _drawn(Generator(99_992, "held", sources=UNSEEN), 40),
        }

    # ---- state on disk ---------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        state: dict[str, Any] = torch.load(self.folder / CHECKPOINT, weights_only=True)
        self.store.load(state["model"], state["optimizer"])
        self.progress = Progress(**state["progress"])

    def save(self) -> None:
        """Write the checkpoint beside the old one, then rename."""
        state = {
            "model": self.model.state_dict(), "optimizer": self.store.state(), "progress": asdict(self.progress)
        }  # fmt: skip
        partial = self.folder / (CHECKPOINT + ".partial")
        torch.save(state, partial)
        os.replace(partial, self.folder / CHECKPOINT)

    def _log(self, **entry: Any) -> None:
        with (self.folder / CURVE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    # ---- decisions -------------------------------------------------------------------------------------------------

    def _is_over(self, loss: float) -> bool:
        """True if the stage is to be left."""
        progress, options = self.progress, self.options
        if progress.stage < 0:
            return loss < options.drill_loss
        if progress.stage >= min(len(options.thresholds), len(STAGES) - 1):
            return False
        threshold = options.thresholds[progress.stage]
        return progress.stage_seconds > threshold.most_seconds or self._fresh.get("all", 0.0) >= threshold.score

    def factor(self, steps: int, done: float) -> float:
        """Of the learning rates: up in the first steps, then constant, to zero over the last share `decay`."""
        options = self.options
        rising = min(1.0, (steps + 1) / options.warmup_steps)
        falling = min(1.0, (1 - done) / options.decay) if options.decay > 0 else 1.0
        return options.rate * rising * max(0.0, falling)

    def _evaluate(self, worker: Worker, loss: float, rate: float) -> None:
        before, options, progress = time.time(), self.options, self.progress
        scores = {
            name: exact(worker.model, self.tokenizer, draw(), worker.kernels, options.microbatch)
            for name, draw in self.evaluations.items()
        }
        self._fresh = scores.get("fresh", {})
        self._log(
            seconds=round(progress.seconds), step=progress.step, tokens=progress.tokens, stage=progress.stage,
            loss=round(loss, 4), rate=round(rate, 4), **scores,
        )  # fmt: skip
        lines = "".join(f"\n         {name:6} {found}" for name, found in scores.items())
        print(
            f"{progress.seconds:6.0f} s  step {progress.step}  {progress.tokens / 1e6:.2f} M tokens  "
            f"stage {progress.stage}  loss {loss:.3f}  rate {rate:.2f}  "
            f"evaluated in {time.time() - before:.1f} s{lines}",
            flush=True,
        )

    # ---- the loop --------------------------------------------------------------------------------------------------

    def run(self, minutes: float | None = None) -> None:
        """Train until told to stop (SIGTERM, SIGINT), or for `minutes`; the checkpoint is written either way.

        Raises TeamError if another worker ends; the checkpoint then is the last one written.
        """
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: setattr(self, "_stopping", True))
        self.progress.starts += 1
        team = Team(self.options.workers)
        context = multiprocessing.get_context("spawn")
        others = [
            context.Process(
                target=_follow,
                args=(self.store, team, self.options, index, self.folder, self.progress.starts),
                daemon=True,
            )
            for index in range(1, self.options.workers)
        ]
        if not (self.folder / tokenizers_of.FILE).exists():
            self.tokenizer.save(str(self.folder / tokenizers_of.FILE))
        for process in others:
            process.start()
        try:
            self._lead(Worker(self.store, team, self.options, 0, lambda: all(p.is_alive() for p in others)), minutes)
        finally:
            for process in others:
                process.join(10)
                process.terminate()

    def _lead(self, worker: Worker, minutes: float | None) -> None:
        progress, options, orders = self.progress, self.options, worker.team.orders
        seed, stage = _seed(progress.starts, 0), progress.stage
        source, first, average, factor = worker.source(self.tokenizer, stage, seed), progress.step, 0.0, 0.0
        matrices = self.store.values.numel() - self.store.others
        begun = spoken = evaluated = saved = time.time()
        while not self._stopping:
            before = time.time()
            done = (before - begun) / (60 * minutes) if minutes else 0.0
            if done >= 1:
                break
            factor = self.factor(progress.step - first, done)
            orders.copy_(torch.tensor([progress.stage, factor], dtype=torch.float64))
            worker.wait()
            loss, tokens = worker.step(source, factor)
            now = time.time()
            progress.step += 1
            progress.tokens += tokens
            progress.seconds += now - before
            progress.stage_seconds += now - before
            average = loss if progress.step == first + 1 else 0.95 * average + 0.05 * loss
            if now - spoken > 20:
                print(
                    f"{progress.seconds:6.0f} s  step {progress.step}  stage {progress.stage}  loss {average:.3f}  "
                    f"{worker.clock.report(matrices, options.workers)}",
                    flush=True,
                )
                spoken, worker.clock = now, Clock()
            over = progress.stage < 0 and progress.step > first + 30 and self._is_over(average)
            if progress.stage >= 0 and now - evaluated > options.evaluate_every_s:
                self._evaluate(worker, average, factor)
                over, evaluated = self._is_over(average), time.time()
            if now - saved > options.save_every_s:
                self.save()
                saved = time.time()
            if over:
                print(f"{progress.seconds:6.0f} s  stage {progress.stage} done, loss {average:.3f}", flush=True)
                self._log(seconds=round(progress.seconds), step=progress.step, stage_done=progress.stage)
                progress.stage += 1
                progress.stage_seconds, self._fresh = 0.0, {}
                source = worker.source(self.tokenizer, progress.stage, seed)
        orders[0] = STOP
        worker.wait()
        self.save()
        if progress.stage >= 0:
            self._evaluate(worker, average, factor)


def _drawn(generator: Generator, groups: int) -> Groups:
    return [generator.group(5) for _ in range(groups)]
