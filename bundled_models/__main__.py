"""`python -m bundled_models COMMAND`: everything that makes the bundled pair, step by step or all at once."""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

from bundled_models.model import SHAPES

FOLDER = Path(__file__).parent
RUNS = FOLDER / "runs"


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m bundled_models", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_training(commands)
    _add_products(commands)
    given = parser.parse_args()
    given.run(given)


def _add_training(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    tokens = commands.add_parser("tokenizer", help="train the shared tokenizer into runs/tokenizer")
    tokens.set_defaults(run=_tokenizer)
    train = commands.add_parser("train", help="train a model, or go on with a run that was stopped")
    train.add_argument("--size", choices=tuple(SHAPES), required=True)
    train.add_argument("--folder", type=Path, metavar="DIR", help="the run's folder (default runs/SIZE)")
    train.add_argument("--minutes", type=float, required=True, help="how long to train")
    train.add_argument("--decay", type=float, default=1.0, help="last share of it in which the rate falls to zero")
    train.add_argument("--rate", type=float, default=0.4, help="factor on the learning rates (default 0.4)")
    train.add_argument("--workers", type=int, default=1, help="processes that train the model together, one a core")
    train.add_argument("--matching", type=float, default=0.2, help="share of groups that drill choosing (default 0.2)")
    train.set_defaults(run=_train)
    grow = commands.add_parser("grow", help="start the large model's run from the small model's weights")
    grow.set_defaults(run=_grow)
    choose = commands.add_parser("choose", help="put the circuit that chooses a tool into the large model's run")
    choose.set_defaults(run=_choose)
    restore = commands.add_parser("restore", help="begin a run with the weights of a checkpoint folder")
    restore.add_argument("--size", choices=tuple(SHAPES), required=True)
    restore.add_argument("--folder", type=Path, metavar="DIR", help="the checkpoint (default: the bundled one)")
    restore.set_defaults(run=_restore)


def _add_products(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = commands.add_parser("export", help="write a run's model as a checkpoint folder")
    export.add_argument("--size", choices=tuple(SHAPES), required=True)
    export.add_argument("--out", type=Path, metavar="DIR", help="default: where the gateway looks for it")
    export.set_defaults(run=_export)
    requests = commands.add_parser("requests", help="graded requests of a split, for `pointsman router`")
    requests.add_argument("--split", choices=("router", "held"), default="router")
    requests.add_argument("--count", type=int, default=3000)
    requests.add_argument("--seed", type=int, default=0)
    requests.add_argument("--out", type=Path, required=True, metavar="FILE")
    requests.set_defaults(run=_requests)
    evaluate = commands.add_parser("evaluate", help="exact match, free and under the grammar, of a checkpoint")
    evaluate.add_argument("folders", type=Path, nargs="*", metavar="DIR", help="default: the bundled pair")
    evaluate.add_argument("--count", type=int, default=400, help="generated cases (default 400)")
    evaluate.add_argument("--seed", type=int, default=20261120)
    evaluate.add_argument("--json", type=Path, metavar="OUT")
    evaluate.set_defaults(run=_evaluate)
    reproduce = commands.add_parser("reproduce", help="all of it, in about three hours on two cores")
    reproduce.set_defaults(run=_reproduce)


def _tokenizer(_: argparse.Namespace) -> None:
    from bundled_models import tokenizer

    tokenizer.save(tokenizer.train(), RUNS / "tokenizer")


def _train(given: argparse.Namespace) -> None:
    from bundled_models import tokenizer, trainer

    folder = given.folder or RUNS / given.size
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / tokenizer.FILE).exists():
        shutil.copy(RUNS / "tokenizer" / tokenizer.FILE, folder)
    options = trainer.Options(rate=given.rate, decay=given.decay, workers=given.workers, matching=given.matching)
    trainer.Trainer(folder, given.size, tokenizer.load(folder), options).run(given.minutes)


def _grow(_: argparse.Namespace) -> None:
    from bundled_models import tokenizer, trainer
    from bundled_models.growth import grow

    (RUNS / "large").mkdir(parents=True, exist_ok=True)
    shutil.copy(RUNS / "small" / tokenizer.FILE, RUNS / "large")
    small, large = (trainer.Trainer(RUNS / s, s, tokenizer.load(RUNS / s), trainer.Options()) for s in SHAPES)
    grow(small.model, large.model)
    large.progress = small.progress
    large.save()


def _choose(_: argparse.Namespace) -> None:
    from bundled_models import choosing, tokenizer, trainer

    large = trainer.Trainer(RUNS / "large", "large", tokenizer.load(RUNS / "large"), trainer.Options())
    choosing.install(large.model, large.tokenizer)
    large.save()


def _restore(given: argparse.Namespace) -> None:
    from bundled_models import model, tokenizer, trainer
    from bundled_models.generator import STAGES

    source, folder = given.folder or FOLDER / given.size, RUNS / given.size
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / tokenizer.FILE, folder)
    work = trainer.Trainer(folder, given.size, tokenizer.load(folder), trainer.Options())
    work.model.load_state_dict(model.load(source).state_dict())
    work.progress = trainer.Progress(stage=len(STAGES) - 1)
    work.save()


def _export(given: argparse.Namespace) -> None:
    from bundled_models import model, tokenizer, trainer

    folder, out = RUNS / given.size, given.out or FOLDER / given.size
    work = trainer.Trainer(folder, given.size, tokenizer.load(folder), trainer.Options())
    model.export(work.model, out)
    tokenizer.save(work.tokenizer, out)
    shutil.copy(folder / trainer.CURVE, out / trainer.CURVE)
    print(f"{out}: {sum(p.numel() for p in work.model.parameters()):,} parameters")


def _requests(given: argparse.Namespace) -> None:
    from bundled_models.cases import generated

    cases = generated(given.count, given.seed, given.split)
    lines = [
        msgspec.json.encode(
            {"id": c.id, "subject": c.kind, "request": c.body("auto"), "expected": c.expected} | {"group": c.id}
        )
        for c in cases
    ]
    given.out.write_bytes(b"".join(line + b"\n" for line in lines))


def _evaluate(given: argparse.Namespace) -> None:
    from bundled_models.evaluation import as_json, evaluate

    reports = []
    for folder in given.folders or [FOLDER / size for size in SHAPES]:
        reports += evaluate(folder, given.count, given.seed, lambda line: print(line, flush=True))
    if given.json:
        given.json.write_bytes(as_json(reports) + b"\n")


def _reproduce(_: argparse.Namespace) -> None:
    from bundled_models.reproduction import STEPS

    for number, step in enumerate(STEPS, 1):
        print(json.dumps({"step": f"{number}/{len(STEPS)}", "command": " ".join(step)}), flush=True)
        subprocess.run([sys.executable, "-m", *step], check=True)


if __name__ == "__main__":
    main()
