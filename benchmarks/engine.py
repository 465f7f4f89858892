"""The engine against vLLM, llama.cpp, openvino-genai and transformers, on random weights of real shapes.

    make bench-peers                                         # the peers' environments, once
    python -m benchmarks.engine --quick                      # the core tasks, one round
    python -m benchmarks.engine --json benchmarks/results/engine-S.json

Every contestant is a process of its own, in its own environment, with the same checkpoint, prompts, number of threads
and number of tokens, decoding greedily. Contestants of one precision are loaded together and measured in turn, task by
task and round by round, while the others are stopped: the bandwidth of memory drifts, and so all of them see the same.
A ratio compares with the fastest peer of the same precision, round by round. Run it on an idle machine.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.bandwidth import ReadBandwidth
from benchmarks.checkpoints import SHAPES, build_checkpoint, build_w8a8
from benchmarks.peers.contestant import N_THREADS
from benchmarks.peers.figures import Record, ratios, table
from benchmarks.peers.process import ContestantFailed, Process, prepare
from benchmarks.peers.roster import HOME, ROSTER, Entry
from benchmarks.peers.tasks import TASKS, WARM_UP
from benchmarks.timing import Spread, machine

CORE_TASKS = ["decode", "prefill", "batch", "shared"]
CORE_CONTESTANTS = [
    name for name in ROSTER if not name.startswith("transformers-") and not name.endswith(("-float32", "-eager"))
]
IDLE_LOAD = 0.5


def checkpoint_of(shape_name: str) -> Path:
    """The shape's bfloat16 checkpoint, built where it is missing, with its W8A8 form beside it."""
    folder = HOME / "checkpoints" / shape_name / "bf16"
    if not (folder / "tokenizer_config.json").exists():
        print(f"building {folder}", flush=True)
        build_checkpoint(SHAPES[shape_name], folder)
    if not (folder.parent / "w8a8" / "config.json").exists():
        build_w8a8(folder, folder.parent / "w8a8")
    return folder


def measure(
    entries: Sequence[Entry], shape_name: str, tasks: Sequence[str], rounds: int
) -> tuple[dict[str, Record], list[float]]:
    """Records of contestants of one precision, and the read bandwidth in bytes per second, once a round."""
    checkpoint = checkpoint_of(shape_name)
    vocab_size = SHAPES[shape_name].vocab_size
    records = {entry.name: Record() for entry in entries}
    running: list[Process] = []
    bandwidths = []
    memory = ReadBandwidth()
    try:
        for entry in entries:
            print(f"  loading {entry.name}", flush=True)
            try:
                prepare(entry, checkpoint)
                process = Process(entry, checkpoint)
                running.append(process)
                records[entry.name].load_s = process.load_s
                _ask(process, WARM_UP, 0, vocab_size, records)
            except ContestantFailed as error:
                records[entry.name].skipped = str(error)
        for number in range(rounds):
            bandwidths.append(memory.measure(N_THREADS))
            for task in tasks:
                if number >= TASKS[task].rounds:
                    continue
                print(f"  round {number + 1}: {task}", flush=True)
                for process in running[number % len(running) :] + running[: number % len(running)]:
                    if not records[process.entry.name].skipped:
                        _ask(process, task, number + 1, vocab_size, records)
        for process in running:
            records[process.entry.name].peak_bytes = process.peak_bytes()
    finally:
        for process in running:
            process.end()
    return records, bandwidths


def _ask(process: Process, task: str, seed: int, vocab_size: int, records: dict[str, Record]) -> None:
    """Add one answer to the contestant's record. One that has ended or hangs is skipped from then on."""
    record = records[process.entry.name]
    try:
        record.add(task, process.ask(task, seed, vocab_size))
    except ContestantFailed as error:
        record.skipped = str(error)


def main() -> None:
    """Measure, print the tables, and write JSON where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__.split("\n", maxsplit=1)[0])
    all_tasks = [task for task in TASKS if task != WARM_UP]
    parser.add_argument("--shapes", nargs="+", default=["S"], choices=SHAPES)
    parser.add_argument("--contestants", nargs="+", choices=ROSTER, metavar="NAME", help=", ".join(ROSTER))
    parser.add_argument("--tasks", nargs="+", choices=all_tasks, metavar="TASK", help=", ".join(all_tasks))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="one round of the core tasks and contestants")
    parser.add_argument("--json", type=Path, metavar="OUT")
    given = parser.parse_args()
    names = given.contestants or (CORE_CONTESTANTS if given.quick else list(ROSTER))
    tasks = given.tasks or (CORE_TASKS if given.quick else all_tasks)
    rounds = given.rounds or (1 if given.quick else 3)
    if os.getloadavg()[0] > IDLE_LOAD:
        print(f"the load is {os.getloadavg()[0]:.1f}: these figures are noise, run this again on an idle machine")
    result: dict[str, object] = {"machine": machine(), "rounds": rounds, "shapes": {}}
    shapes: dict[str, object] = {}
    for shape_name in given.shapes:
        shapes[shape_name] = {}
        for precision in dict.fromkeys(ROSTER[name].precision for name in names):
            entries = [ROSTER[name] for name in names if ROSTER[name].precision == precision]
            print(f"{shape_name}, {precision}", flush=True)
            records, bandwidths = measure(entries, shape_name, tasks, rounds)
            bandwidth = Spread.of(bandwidths)
            compared = ratios(entries, records)
            print(table(entries, records, SHAPES[shape_name], bandwidth, compared), flush=True)
            shapes[shape_name] |= {  # type: ignore[operator]
                precision: {
                    "read_bytes_per_s": asdict(bandwidth),
                    "contestants": {name: asdict(record) for name, record in records.items()},
                    "ratios": {name: asdict(ratio) for name, ratio in compared.items()},
                }
            }
            if given.json:  # after each precision: a run that is cut short leaves what it has
                result["shapes"] = shapes
                given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
