"""The engines that benchmarks/engine.py compares: ours and its peers, each in a process (and environment) of its own.

`contestant.py` and `tasks.py` need nothing but Python 3.11, so that they run in every peer's environment.
"""
