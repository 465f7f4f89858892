"""Constraints that nobody would send, against the promise: applied or refused, in bounded time, never a crash.

python -m tests.grammars.fuzz --n 100000 --seed 1 [--kinds schema mutant ...] [--state FILE]
"""
