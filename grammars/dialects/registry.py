"""All dialects by name, and the strings that tokenizers have tokens of their own for."""

from typing import Final

from grammars.dialects.base import BaseDialect
from grammars.dialects.dialect import Dialect
from grammars.dialects.generic import Generic
from grammars.dialects.hermes import Hermes
from grammars.dialects.llama3_json import Llama3Json
from grammars.dialects.mistral import Mistral
from grammars.dialects.mistral_v11 import ARGUMENTS, MistralV11
from grammars.dialects.pythonic import Pythonic
from grammars.dialects.xlam import Xlam
from grammars.dialects.xlam_v1 import XlamV1
from grammars.errors import ConstraintRefused

DIALECTS: Final[tuple[type[BaseDialect], ...]] = (
    Hermes,
    MistralV11,
    Mistral,
    XlamV1,
    Xlam,
    Llama3Json,
    Pythonic,
    Generic,
)
"""In the order in which a chat template is compared with them."""

MARKERS: Final = (Hermes.marker, "</tool_call>", Mistral.marker, ARGUMENTS)
"""What an answer is read by, so that it must be text even where a tokenizer has it as a special token."""


def get_dialect(name: str) -> Dialect:
    """The dialect called `name`. Raises ConstraintRefused for an unknown one."""
    for dialect in DIALECTS:
        if dialect.name == name:
            return dialect()
    known = ", ".join(f"`{dialect.name}`" for dialect in DIALECTS)
    raise ConstraintRefused("tools", "/tools", f"there is no dialect {name!r}: use one of {known}")
