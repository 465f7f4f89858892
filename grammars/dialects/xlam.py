"""xLAM-2: a bare list of calls, `[{"name":"f","arguments":{…}},…]`, or plain text."""

from collections.abc import Sequence

from grammars.dialects.base import BaseDialect
from grammars.dialects.call_rules import list_rules


class Xlam(BaseDialect):
    """The format of xLAM-2 (`salesforce_qwen.py` in gorilla), without white space. No call is text, never `[]`."""

    name = "xlam"
    is_spaced = False

    def calls(self, names: Sequence[str], *, parallel: bool, spaced: bool) -> str:
        """Lark rules for `calls`."""
        return "calls: call_list\n" + list_rules(names, parallel=parallel, spaced=spaced)
