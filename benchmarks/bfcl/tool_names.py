"""Names of tools as they are sent, and back: OpenAI's names have no dots, the data's do."""

import re
from collections.abc import Iterable

_FORBIDDEN = re.compile(r"[^a-zA-Z0-9_-]")
_LENGTH = 64


class ToolNames:
    """The tools of one request under names of 1 to 64 letters, digits, underscores and dashes, all different."""

    def __init__(self, names: Iterable[str]) -> None:
        """names: as in the data, each once. Those that already follow the rule keep their spelling."""
        names = list(names)
        self._sent = {name: name for name in names if name == _spelled(name)}
        for name in names:
            if name not in self._sent:
                self._sent[name] = self._unused(_spelled(name))
        self._original = {sent: name for name, sent in self._sent.items()}

    def sent(self, name: str) -> str:
        """The name to send for one in the data."""
        return self._sent[name]

    def original(self, sent: str) -> str:
        """The data's name of a called tool. One that was not offered is marked, so that it equals no name of the
        data: calling `a.b` where `a_b` was offered is no call of it."""
        return self._original.get(sent, f"{sent} (not offered)")

    def _unused(self, wanted: str) -> str:
        taken, found, count = set(self._sent.values()), wanted, 2
        while found in taken:
            found, count = f"{wanted[: _LENGTH - 1 - len(str(count))]}_{count}", count + 1
        return found


def _spelled(name: str) -> str:
    return _FORBIDDEN.sub("_", name)[:_LENGTH] or "_"
