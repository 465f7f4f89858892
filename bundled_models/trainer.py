"""Trains a bundled model: drill, then stages of growing difficulty, resumable at any time."""

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from bundled_models.generator import KINDS, STAGES, Example, Generator, Stage
from bundled_models.model import SHAPES, Packed, Size, TinyLlama
from bundled_models.packing import batches, drill, encode, pack, stream

CHECKPOINT = "checkpoint.pt"
CURVE = "curve.jsonl"
DRILL_LOSS = 0.7
ADVANCE = (0.5, 0.6)  # exact match on fresh values at which a stage is left
MOST_SECONDS = (900.0, 2000.0)  # a stage is left after this long in any case


@dataclass(slots=True)
class Options:
    """How to train; none of it is part of the model."""

    branches: int = 6
    budget: int = 3072
    matrix_rate: float = 0.02
    other_rate: float = 0.003
    rate: float = 1.0
    warmup_steps: int = 50
    evaluate_every_s: float = 180.0
    exchange_every_s: float = 20.0
    stale_s: float = 90.0
    worker: int = 0
    workers: int = 1


@dataclass(slots=True)
class Progress:
    """What a checkpoint remembers beside the weights. Stage -1 is the drill."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    stage: int = -1
    stage_seconds: float = 0.0
    starts: int = 0


def losses(model: TinyLlama, batch: Packed) -> tuple[Tensor, Tensor]:
    """(logits, targets) at the answers' places, in bf16 autocast."""
    with torch.autocast("cpu", torch.bfloat16):
        return model(batch), batch.target


@torch.no_grad()
def exact(model: TinyLlama, tokenizer: Tokenizer, groups: list[list[Example]]) -> dict[str, float]:
    """Share of answers in which every token is the greedy choice: all, by kind; `tokens` is the share of tokens right.

    This equals free greedy decoding, since one wrong choice makes the answer wrong.
    """
    right: dict[str, list[bool]] = {}
    tokens: list[bool] = []
    rows = [(encode(tokenizer, g), [e.kind for e in g]) for g in groups]
    kinds = {id(r): k for r, k in rows}
    for batch in batches([r for r, _ in rows], 4096):
        logits, gold = losses(model, pack(batch))
        good = (logits.argmax(-1) == gold).tolist()
        tokens += good
        at = 0
        for row in batch:
            for kind, (_, answer) in zip(kinds[id(row)], row.branches, strict=True):
                right.setdefault(kind, []).append(all(good[at : at + len(answer)]))
                at += len(answer)
    every = [r for rs in right.values() for r in rs]
    scores = {"all": sum(every) / len(every), "tokens": sum(tokens) / len(tokens)}
    scores |= {k: sum(right[k]) / len(right[k]) for k in KINDS if k in right}
    return {k: round(v, 4) for k, v in scores.items()}


class Trainer:
    """One run in one folder."""

    def __init__(self, folder: Path, size: Size, tokenizer: Tokenizer, options: Options) -> None:
        torch.set_num_threads(1)  # more cores are used by more workers
        self.folder, self.size, self.tokenizer, self.options = folder, size, tokenizer, options
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        self.model = TinyLlama(SHAPES[size])
        named = list(self.model.named_parameters())
        matrices = [p for n, p in named if p.ndim == 2 and "embed" not in n]
        others = [p for n, p in named if p.ndim != 2 or "embed" in n]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=options.matrix_rate, weight_decay=0.01),
            torch.optim.AdamW(others, lr=options.other_rate, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.rates = (options.matrix_rate, options.other_rate)
        self.progress = Progress()
        self._stopping = False
        if (folder / CHECKPOINT).exists():
            self._resume()
        self.progress.starts += 1
        seed = 1000 * self.progress.starts + 7 + 500 * options.worker
        random.seed(seed)
        torch.manual_seed(seed)
        self._seed = seed

    # ---- state on disk ---------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        state: dict[str, Any] = torch.load(self.folder / CHECKPOINT, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.progress = Progress(**state["progress"])

    def save(self) -> None:
        """Write the checkpoint beside the old one, then rename."""
        progress = {n: getattr(self.progress, n) for n in Progress.__slots__}
        state = {
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "progress": progress,
        }
        partial = self.folder / (CHECKPOINT + ".partial")
        torch.save(state, partial)
        os.replace(partial, self.folder / CHECKPOINT)

    @torch.no_grad()
    def exchange(self) -> None:
        """Move half way to the other workers' newest weights, after leaving one's own for them.

        Elastic averaging (Zhang, Choromanska, LeCun, 2015): processes that never wait for each other, so a busy core
        does not stall the rest. Weights older than `stale_s` are those of a worker that has ended.
        """
        own = self.folder / f"worker{self.options.worker}.pt"
        torch.save(self.model.state_dict(), own.with_suffix(".partial"))
        os.replace(own.with_suffix(".partial"), own)
        others = [self.folder / f"worker{i}.pt" for i in range(self.options.workers) if i != self.options.worker]
        fresh = [p for p in others if p.exists() and time.time() - p.stat().st_mtime < self.options.stale_s]
        for path in fresh:
            weights = torch.load(path, weights_only=True)
            for name, tensor in self.model.state_dict().items():
                tensor.lerp_(weights[name], 1 / (len(fresh) + 1))

    def _log(self, **entry: Any) -> None:
        with (self.folder / CURVE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    # ---- one step --------------------------------------------------------------------------------------------------

    def _step(self, batch: Packed, factor: float) -> float:
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * factor
        loss = F.cross_entropy(*losses(self.model, batch), ignore_index=-1)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        self.progress.tokens += batch.ids.numel()
        return loss.item()

    def _evaluation(self, split: str, stage: Stage, groups: int) -> list[list[Example]]:
        generator = Generator(99_991, split, stage)  # type: ignore[arg-type]
        return [generator.group(5) for _ in range(groups)]

    def _source(self) -> Iterator[Packed]:
        options, stage = self.options, self.progress.stage
        if stage < 0:
            while True:
                yield drill(self.model.shape.vocabulary, options.budget // 2)
        generator = Generator(self._seed + stage, "train", STAGES[stage])
        yield from stream(self.tokenizer, generator, options.branches, options.budget)

    def _advance(self, loss: float) -> bool:
        """True if the stage is over."""
        progress = self.progress
        if progress.stage < 0:
            return loss < DRILL_LOSS
        if progress.stage >= len(ADVANCE):
            return False
        if progress.stage_seconds > MOST_SECONDS[progress.stage]:
            return True
        return self._fresh["all"] >= ADVANCE[progress.stage]

    _fresh: dict[str, float]

    def _evaluate(self, loss: float, rate: float, data_share: float, speed: float) -> None:
        stage = STAGES[max(0, self.progress.stage)]
        self._fresh = exact(self.model, self.tokenizer, self._evaluation("train", stage, 30))
        held = exact(self.model, self.tokenizer, self._evaluation("held", STAGES[-1], 60))
        progress = self.progress
        self._log(
            seconds=round(progress.seconds), step=progress.step, tokens=progress.tokens, stage=progress.stage,
            loss=round(loss, 4), rate=round(rate, 4), fresh=self._fresh, held=held,
        )  # fmt: skip
        print(
            f"{progress.seconds:6.0f} s  step {progress.step}  {progress.tokens / 1e6:.2f} M tokens  "
            f"{speed:.0f} tok/s  data {data_share:.1%}  stage {progress.stage}  loss {loss:.3f}  rate {rate:.2f}\n"
            f"         fresh {self._fresh}\n         held  {held}",
            flush=True,
        )

    # ---- the loop --------------------------------------------------------------------------------------------------

    def run(self, minutes: float | None = None, decay_from: float | None = None) -> None:
        """Train until told to stop, or for `minutes`. From the share `decay_from` on the rate falls to zero."""
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "_stopping", True))
        progress, options = self.progress, self.options
        begun, spoken, evaluated, waited = time.time(), time.time(), time.time(), 0.0
        average, first, tokens = 0.0, progress.step, progress.tokens
        source, factor, spoken_step = self._source(), 1.0, progress.step
        exchanged, leads = begun, options.worker == 0
        while not self._stopping:
            before = time.time()
            done = (before - begun) / (60 * minutes) if minutes else 0.0
            if done >= 1:
                break
            batch = next(source)
            ready = time.time()
            waited += ready - before
            factor = options.rate * min(1.0, (progress.step - first + 1) / options.warmup_steps)
            if decay_from is not None and done > decay_from:
                factor *= max(0.01, (1 - done) / (1 - decay_from))
            loss = self._step(batch, factor)
            now = time.time()
            progress.seconds += now - before
            progress.stage_seconds += now - before
            average = loss if progress.step == first + 1 else 0.97 * average + 0.03 * loss
            over = progress.stage < 0 and progress.step > first + 30 and self._advance(average)
            if now - spoken > 20:
                spoken, spoken_step = now, progress.step
                print(
                    f"{progress.seconds:6.0f} s  step {spoken_step}  stage {progress.stage}  loss {average:.3f}",
                    flush=True,
                )
            if options.workers > 1 and progress.stage >= 0 and now - exchanged > options.exchange_every_s:
                exchanged = now
                self.exchange()
            if not leads and 0 <= progress.stage < len(ADVANCE):
                over = progress.stage_seconds > MOST_SECONDS[progress.stage]
            if leads and progress.stage >= 0 and now - evaluated > options.evaluate_every_s:
                speed = (progress.tokens - tokens) / (now - begun)
                self._evaluate(average, factor, waited / (now - begun), speed)
                self.save()
                over, evaluated = self._advance(average), time.time()
            if over:
                print(f"{progress.seconds:6.0f} s  stage {progress.stage} done, loss {average:.3f}", flush=True)
                self._log(seconds=round(progress.seconds), step=progress.step, stage_done=progress.stage)
                progress.stage += 1
                progress.stage_seconds = 0.0
                source = self._source()
        if not leads:
            return
        if progress.stage >= 0:
            self._evaluate(average, factor, waited / max(1.0, time.time() - begun), 0.0)
        self.save()
