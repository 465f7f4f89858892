"""What all tests share: properties have no deadline (timings are benchmarks), and under CI draw the same examples."""

import os

from hypothesis import settings

settings.register_profile("pointsman", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("pointsman")
