"""`make bench`: the figures of the README, one command after the other, in about four minutes when idle."""

import subprocess
import sys

COMMANDS = (
    ("benchmarks.bundled",),
    ("benchmarks.gateway",),
    ("benchmarks.speculation", "--only", "pair", "structured"),
)

for module, *options in COMMANDS:
    print(f"\n== python -m {' '.join((module, *options))} ==", flush=True)
    subprocess.run([sys.executable, "-m", module, *options], check=True)
