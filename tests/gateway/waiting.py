"""Waiting for something to become true, with a limit."""

import asyncio
from collections.abc import Callable


async def until(is_true: Callable[[], bool], timeout_s: float = 10.0, poll_s: float = 0.005) -> None:
    """Return once `is_true()`; fail after `timeout_s`."""
    for _ in range(int(timeout_s / poll_s)):
        if is_true():
            return
        await asyncio.sleep(poll_s)
    raise AssertionError(f"nothing changed within {timeout_s} s")
