"""`make bench`: the figures of the README, one command after the other, in about three minutes when idle."""

import subprocess
import sys

for module in ("benchmarks.bundled", "benchmarks.gateway"):
    print(f"\n== python -m {module} ==", flush=True)
    subprocess.run([sys.executable, "-m", module], check=True)
