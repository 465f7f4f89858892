"""`python -m bundled_models tokenizer|train|decay|evaluate|export`: everything that makes the bundled models."""

import argparse
import json
import shutil
from pathlib import Path

import torch

from bundled_models import generator, model, tokenizer, trainer
from bundled_models.model import SHAPES

FOLDER = Path(__file__).parent


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bundled_models", description=__doc__)
    parser.add_argument("command", choices=("tokenizer", "train", "decay", "evaluate", "export"))
    parser.add_argument("--size", choices=tuple(SHAPES), default="small")
    parser.add_argument("--run", type=Path, metavar="DIR", help="the run's folder (default: runs/SIZE)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where export writes (default: weights/SIZE)")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", default=FOLDER / "runs" / "tokenizer")
    parser.add_argument(
        "--minutes", type=float, help="train: the plan, decaying over its last third; decay: its length"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=int, default=4096, help="tokens a batch")
    parser.add_argument("--branches", type=int, default=6, help="sentences under one shared prefix")
    parser.add_argument("--rate", type=float, default=1.0, help="factor on both learning rates")
    parser.add_argument("--workers", type=int, default=1, help="processes that train one model together")
    parser.add_argument("--worker", type=int, default=0, help="which of them this is; worker 0 evaluates and saves")
    parser.add_argument("--split", choices=("train", "router", "held"), default="held")
    parser.add_argument("--examples", type=int, default=600)
    return parser.parse_args()


def main() -> None:
    """Run one command."""
    given = _arguments()
    if given.command == "tokenizer":
        tokenizer.save(tokenizer.train(), given.tokenizer)
        return
    run = given.run or FOLDER / "runs" / given.size
    run.mkdir(parents=True, exist_ok=True)
    own = run / tokenizer.FILE
    if not own.exists():
        shutil.copy(given.tokenizer / tokenizer.FILE, own)
    options = trainer.Options(
        threads=given.threads,
        budget=given.budget,
        branches=given.branches,
        rate=given.rate,
        worker=given.worker,
        workers=given.workers,
    )
    work = trainer.Trainer(run, given.size, tokenizer.load(run), options)
    if given.command == "train":
        work.run(given.minutes, None if given.minutes is None else 0.65)
    elif given.command == "decay":
        work.run(given.minutes or 10.0, 0.0)
    elif given.command == "evaluate":
        source = generator.Generator(1_234, given.split)
        groups = [source.group(5) for _ in range(given.examples // 5)]
        print(json.dumps(trainer.exact(work.model, work.tokenizer, groups)))
    else:
        out = given.out or FOLDER / "weights" / given.size
        model.export(work.model, out)
        tokenizer.save(work.tokenizer, out)
        print(f"{out}: {sum(p.numel() for p in work.model.parameters()):,} parameters, torch {torch.__version__}")


if __name__ == "__main__":
    main()
