"""The Triton tests are collected only in a process that interprets Triton."""

import os

collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted"]
