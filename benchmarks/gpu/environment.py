"""Where figures were measured, and from which sources."""

import hashlib
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

__all__ = ["commit", "environment"]

ROOT = Path(__file__).parents[2]
SOURCES = ("engine", "kernels", "benchmarks/gpu")
"""Folders that decide the figures."""
COMMIT_VARIABLE = "POINTSMAN_COMMIT"


def environment(device: torch.device) -> dict[str, Any]:
    """Device, driver and versions."""
    found: dict[str, Any] = {"device": platform.processor() or platform.machine(), "driver": None}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "device": properties.name,
            "driver": _run("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"),
            "memory_bytes": properties.total_memory,
            "processors": properties.multi_processor_count,
        }
    versions = {name: version(name) for name in ("torch", "triton", "transformers", "numpy")}
    return found | {"cuda": torch.version.cuda, "python": platform.python_version(), "cores": os.cpu_count()} | versions


def commit() -> str:
    """The commit that is checked out, or what the variable POINTSMAN_COMMIT says where git does not know, else
    `unknown`; with a hash of the sources where they are not exactly that commit's."""
    head = _run("git", "rev-parse", "HEAD")
    if head is not None and not _run("git", "status", "--porcelain", "--", *SOURCES):
        return head
    digest = hashlib.sha256()
    for path in sorted(path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{head or os.environ.get(COMMIT_VARIABLE, 'unknown')}+{digest.hexdigest()[:8]}"


def _run(*command: str) -> str | None:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
