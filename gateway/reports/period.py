"""Periods as people write them: 90m, 24h, 7d, 2w."""

import re
from datetime import timedelta

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_period(text: str) -> timedelta:
    """The length of a period. Raises ValueError that says how to write one."""
    match = re.fullmatch(r"([0-9]{1,5})([mhdw])", text.strip())
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{text!r} is no period: write a number and m, h, d or w, such as 24h or 7d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
