"""For models without a format of their own: told in the system turn to answer with a list of calls, or plain text."""

from collections.abc import Sequence

from grammars.dialects.base import BaseDialect
from grammars.dialects.call_rules import list_rules


class Generic(BaseDialect):
    """`[{"name": "f", "arguments": {…}}, …]`, with or without a space after commas and colons. No call is text."""

    name = "generic"

    def calls(self, names: Sequence[str], *, parallel: bool, spaced: bool) -> str:
        """Lark rules for `calls`."""
        return "calls: call_list\n" + list_rules(names, parallel=parallel, spaced=spaced)
