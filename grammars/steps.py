"""A budget of work: questions about expressions are answered within it or not at all."""

from typing import Final

from grammars.regex_syntax import RegexRefused

MAX_STEPS: Final = 400_000
"""About 0.3 s of CPU time: a step is one entry of a table."""


class Steps:
    """What is left of a budget."""

    __slots__ = ("left",)

    def __init__(self, most: int = MAX_STEPS) -> None:
        self.left = most

    def spend(self, n: int) -> None:
        """Take `n` steps. Raises RegexRefused when they are not there."""
        self.left -= n
        if self.left < 0:
            raise RegexRefused("needs too large an automaton: use smaller counts and fewer alternatives")
