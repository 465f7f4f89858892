"""Kernel tests: no deadline per example; the Triton ones are collected only in a process that interprets Triton."""

import os

from hypothesis import settings

settings.register_profile("kernels", deadline=None)
settings.load_profile("kernels")

collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted"]
