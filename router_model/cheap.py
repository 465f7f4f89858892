"""Some thirty cheap features of a request: what its text looks like, and its counts. Microseconds to compute."""

import re

import numpy as np
from numpy.typing import NDArray

from router_model.facts import RequestFacts

NAMES = (
    # Of the whole text.
    "log_chars",
    "log_words",
    # Of its first and last MAX_CHARS / 2 characters.
    "word_length",
    "distinct_words",
    "long_words",
    "digits_share",
    "capitals_share",
    "punctuation_share",
    "non_ascii_share",
    "log_numbers",
    "log_lines",
    "log_sentences",
    "question_marks",
    "ends_in_question",
    "log_commas",
    "log_quotes",
    "joins",
    "negations",
    "options",
    "code_marks",
    "maths_marks",
    # Of the counts.
    "log_prompt_tokens",
    "log_turns",
    "log_tools",
    "log_parameters",
    "log_required",
    "schema_depth",
    "log_schema_properties",
    "log_schema_enums",
    "has_response_format",
    "tool_required",
    "log_max_tokens",
)
"""The features, in their order in the vector. Changing it changes the feature schema's version."""

MAX_CHARS = 8_192
"""Of a longer text the shares and counts look at the first and the last half of this many characters."""

_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")
_JOIN = re.compile(r"\b(?:and then|after that|then|also|as well|and|plus|next|finally|followed by|before)\b", re.I)
_NEGATION = re.compile(
    r"\b(?:not|no|never|except|without|neither|nor|unless|cannot|false|incorrect|least)\b|n't\b", re.I
)
_OPTION = re.compile(r"^\s*\(?[A-J][.):]\s", re.M)
_CODE = re.compile(r"[{};]|\(\)|=>|->|::|`|\b(?:def|return|class|import|function|SELECT|assert)\b|</?\w+>")
_MATHS = re.compile(r"[=+*^√∑∫≤≥±×÷<>]|\\[a-z]+|\b(?:sqrt|log|sin|cos|mod|integral|equation|percent)\b|\$")


def cheap_features(text: str, facts: RequestFacts) -> NDArray[np.float32]:
    """The features named in NAMES, float32 [len(NAMES)]; always finite."""
    part = text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS // 2]} {text[-MAX_CHARS // 2 :]}"
    n = max(len(part), 1)
    words = _WORD.findall(part)
    n_words = max(len(words), 1)
    letters = sum(map(len, words))
    values = (
        np.log1p(len(text)),
        np.log1p(len(words) * len(text) / n),
        letters / n_words,
        len({word.lower() for word in words}) / n_words,
        sum(len(word) > 8 for word in words) / n_words,
        sum(map(str.isdigit, part)) / n,
        sum(map(str.isupper, part)) / n,
        (n - letters - part.count(" ")) / n,
        1 - len(part.encode("ascii", "ignore")) / n if part else 0.0,
        _log_count(_NUMBER, part),
        np.log1p(part.count("\n")),
        _log_count(_SENTENCE_END, part),
        np.log1p(part.count("?")),
        part.rstrip().endswith("?"),
        np.log1p(part.count(",")),
        np.log1p(part.count('"') + part.count("“")),
        _log_count(_JOIN, part),
        _log_count(_NEGATION, part),
        _log_count(_OPTION, part),
        _log_count(_CODE, part),
        _log_count(_MATHS, part),
        np.log1p(facts.prompt_tokens),
        np.log1p(facts.turns),
        np.log1p(facts.n_tools),
        np.log1p(facts.n_parameters),
        np.log1p(facts.n_required),
        facts.schema_depth,
        np.log1p(facts.schema_properties),
        np.log1p(facts.schema_enums),
        facts.has_response_format,
        facts.tool_required,
        np.log1p(facts.max_tokens),
    )
    return np.array(values, np.float32)


def _log_count(pattern: re.Pattern[str], text: str) -> float:
    return float(np.log1p(len(pattern.findall(text))))
