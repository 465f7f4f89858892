"""All files of this folder side by side, each in a process of its own: most of the time Triton compiles, on one core.

python -m tests.gpu [options of pytest]

Each says what it found as it ends, also where an interrupt ends it (Ctrl+C, `timeout --signal INT`).
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

FOLDER = Path(__file__).parent
ALONE = {"test_memory.py"}
"""Files that want to have the GPU for themselves, after the others."""


def main(options: list[str]) -> int:
    """Run all, print what each says as it ends; returns 1 where one failed."""
    files = sorted(FOLDER.glob("test_*.py"))
    together = [path for path in files if path.name not in ALONE]
    n_failed = _run(together, options) + sum(_run([path], options) for path in files if path.name in ALONE)
    print(f"{n_failed} of {len(files)} files failed", flush=True)
    return 1 if n_failed else 0


def _run(files: list[Path], options: list[str]) -> int:
    """How many of them failed."""
    threads = str(max(1, (os.cpu_count() or 1) // len(files)))
    began, n_failed = time.perf_counter(), 0
    # A library of the device's may warn, already as it is imported.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", *options]
    running = {}
    for path in files:
        output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed as its process ends
        process = subprocess.Popen(
            [*command, str(path)],
            cwd=FOLDER.parents[1],
            env={**os.environ, "OMP_NUM_THREADS": threads},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        running[process] = (path, output)
    try:
        while running:
            time.sleep(0.2)
            for process in [each for each in running if each.poll() is not None]:
                _tell(*running.pop(process), time.perf_counter() - began)
                n_failed += process.returncode not in (0, 5)  # 5: the options chose none of its tests
    except KeyboardInterrupt:
        for process in running:
            process.send_signal(signal.SIGINT)
        for process, (path, output) in running.items():
            process.wait()
            _tell(path, output, time.perf_counter() - began)
        raise
    return n_failed


def _tell(path: Path, output: IO[str], seconds: float) -> None:
    output.seek(0)
    print(f"== {path.name}, {seconds:.0f} s\n{output.read()}", flush=True)
    output.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
