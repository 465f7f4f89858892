"""Answers that decline to answer, known by how they begin."""

import re

# Instruction-tuned models say no in few ways, and in the first sentence: an apology or none, then what they cannot do.
_APOLOGY = r"(?:(?:i[’']m|i am) (?:\w+ )?sorry|sorry|i apologi[sz]e|unfortunately|as an ai(?: \w+){0,3})"
_CANNOT = (
    r"i(?:[’']m|\s+am)?\s+"
    r"(?:cannot|can[’']?t|can not|could ?n[’']?t|unable to|not able to|won[’']?t|will not|do not feel|don[’']?t feel|"
    r"must decline|have to decline|not going to)\b"
)
_REFUSAL = re.compile(rf"\W*(?:{_APOLOGY}\b[,.:;!\s–—-]*(?:but\s+)?){{0,2}}{_CANNOT}", re.IGNORECASE)
_BEGINNING = 200


def is_refusal(text: str) -> bool:
    """Whether a free text begins as models do that decline, in English. A wrong guess costs an answer, no quality."""
    return _REFUSAL.match(text[:_BEGINNING]) is not None
