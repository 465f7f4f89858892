"""Everything that computes on a GPU, on a GPU: see machine."""

import os

if os.environ.get("POINTSMAN_GPU_TESTS_ON") == "interpreter":
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton
