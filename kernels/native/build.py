"""Finds the compiled C kernels, or compiles them: one call of the C compiler, about three seconds, kept in a cache
folder."""

import contextlib
import functools
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

__all__ = ["BuildFailed", "check_cpu", "compile_library", "find_library", "packaged_folder"]

log = logging.getLogger(__name__)

TARGET = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni", "avx512bf16", "avx2", "fma", "f16c", "bmi2")
"""What the code is compiled for: Intel Cooper Lake and Sapphire Rapids onwards, AMD Zen 4 onwards."""
NEEDED = ("avx512_f", "avx512_bw", "avx512_vl", "avx512_dq", "avx512_vnni", "avx512_bf16")
"""The same in the words of torch.cpu.get_capabilities; a CPU with these has the others."""
# Products and sums are fused only where the source says so: the quantised product is torch's to the last bit.
FLAGS = ("-O3", "-std=gnu11", "-ffp-contract=off", "-fPIC", "-shared", "-fopenmp", *(f"-m{name}" for name in TARGET))
COMPILE_TIMEOUT_S = 120.0


class BuildFailed(RuntimeError):
    """The kernels cannot be had on this machine; the message says why and what to do."""


@functools.cache
def find_library() -> Path | None:
    """The compiled kernels, compiled now if need be, or None, with one log line that says why."""
    try:
        check_cpu()
        return _existing() or compile_library(_cache_folder())
    except BuildFailed as error:
        log.warning("CPU kernels in C are not used, torch computes instead (2 to 3 times slower): %s", error)
        return None


def compile_library(folder: Path) -> Path:
    """Compile into `folder`, on any machine of the right architecture; returns the file.

    Raises BuildFailed with what is missing or what the compiler said.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise BuildFailed("there is no C compiler: install one (Debian: gcc and libc6-dev) and start again")
    target = folder / _file_name()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Compiled under a name of its own and moved, so that nobody ever loads half a file.
        handle, unfinished = tempfile.mkstemp(suffix=".so", dir=folder)
    except OSError as error:
        raise BuildFailed(f"{folder} cannot be written ({error}): set XDG_CACHE_HOME to a folder that can") from error
    os.close(handle)
    try:
        subprocess.run(
            [compiler, *FLAGS, *map(str, sorted(_source_folder().glob("*.c"))), "-o", unfinished, "-lm"],
            check=True,
            capture_output=True,
            text=True,
            timeout=COMPILE_TIMEOUT_S,
        )
        Path(unfinished).replace(target)
    except subprocess.CalledProcessError as error:
        raise BuildFailed(f"{compiler} failed: {error.stderr[-2000:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildFailed(f"{compiler} could not be run: {error}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(unfinished).unlink()
    return target


def packaged_folder() -> Path:
    """Where an image or a package keeps kernels that were compiled ahead of time."""
    return Path(__file__).parent / "compiled"


def _existing() -> Path | None:
    candidates = (folder / _file_name() for folder in (packaged_folder(), _cache_folder()))
    return next((path for path in candidates if path.is_file()), None)


def check_cpu() -> None:
    """Raise BuildFailed where this CPU cannot run the kernels."""
    capabilities = torch.cpu.get_capabilities()
    missing = [name for name in NEEDED if not capabilities.get(name)]
    if missing:
        raise BuildFailed(f"this CPU lacks {', '.join(missing)}")


def _source_folder() -> Path:
    return Path(__file__).parent / "source"


def _file_name() -> str:
    """Named after what went into it: other sources or flags are another file."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for path in sorted(_source_folder().iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"kernels-{digest.hexdigest()[:16]}.so"


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pointsman"
