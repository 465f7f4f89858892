"""Whether the white space of a JSON text is that of a layout: the second opinion, which knows no cursor and no mask."""

import re
from typing import Final

from grammars.constraint import Layout

_TOKENS: Final = re.compile(r'"(?:\\.|[^"\\])*"|[][{},:]|[^][{},:"\s]+|\s+', re.DOTALL)


def is_laid_out(text: str, layout: Layout) -> bool:
    """Whether a text that is JSON has the white space of the layout."""
    tokens = _TOKENS.findall(text)
    if layout.whitespace == "single":
        blanks = [i for i, piece in enumerate(tokens) if piece.isspace()]
        return all(tokens[i] == " " and i and tokens[i - 1] in (",", ":") for i in blanks)
    kept = [token for token in tokens if not token.isspace()]
    return text == ("".join(kept) if layout.whitespace == "compact" else _indented(kept, layout.indent))


def _indented(tokens: list[str], indent: int) -> str:
    out: list[str] = []
    depth = 0
    for i, piece in enumerate(tokens):
        follows = tokens[i + 1] if i + 1 < len(tokens) else ""
        if piece in ("{", "["):
            depth += 1
            is_empty = follows in ("}", "]")
            out.append(piece if is_empty else f"{piece}\n{' ' * (indent * depth)}")
        elif piece in ("}", "]"):
            depth -= 1
            is_empty = i > 0 and tokens[i - 1] in ("{", "[")
            out.append(piece if is_empty else f"\n{' ' * (indent * depth)}{piece}")
        elif piece == ",":
            out.append(f",\n{' ' * (indent * depth)}")
        else:
            out.append(": " if piece == ":" else piece)
    return "".join(out)
