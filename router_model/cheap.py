"""Some eighty cheap features of a request: what its text looks like, how it asks, and its counts. Some 50 µs.

Those of the question's form (stem, options, kinds of words) know no subject, so they serve on questions of subjects
that training never saw.
"""

import math
import re
from collections.abc import Iterable
from math import log1p
from string import ascii_uppercase, digits

import numpy as np
from numpy.typing import NDArray

from router_model.facts import RequestFacts
from router_model.marks import (
    LOGIC_MARKS,
    blanks,
    code_marks,
    count_characters,
    count_words,
    maths_marks,
    references_to_options,
)
from router_model.question import Question

WORD_KINDS: dict[str, frozenset[str]] = {
    kind: frozenset(words.split())
    for kind, words in {
        "negations": "not no never except without neither nor unless cannot false incorrect least",
        "joins": "then also and plus next finally before after followed again later",
        "conditions": "if suppose assume given let consider when until provided",
        "reasons": "why how explain",
        "contrasts": "because therefore thus since however although while but hence whereas though",
        "persons": "he she his her him hers they their them",
        "first_person": "i me my we our us",
        "superlatives": "best most likely primarily mainly main first largest highest greatest",
        "totals": "total altogether sum combined remaining left rest difference all remainder together",
        "comparisons": "more less fewer than greater older younger taller longer faster bigger larger higher as",
        "multiples": "twice double triple times half third quarter fourth fifth each every per dozen",
        "units": "hour hours minute minutes day days week weeks month months year years mile miles feet foot inches "
        "pound pounds dollar dollars cent cents kg km cm ml cup cups gallon gallons meter meters metre metres",
        "number_words": "one two three four five six seven eight nine ten eleven twelve twenty thirty hundred thousand",
        "claims": "statement statements scenario passage argument true false proposition premise conclusion claim",
        "choosing": "which following",
    }.items()
}
"""Kinds of words that are counted, each as a feature of its own: English, which the shares do not need."""

NAMES = (
    # Of the whole text.
    "log_chars",
    "log_words",
    # Of its first and last MAX_CHARS / 2 characters.
    "word_length",
    "distinct_words",
    "long_words",
    "abstract_words",
    "technical_words",
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
    "log_brackets",
    "code_marks",
    "maths_marks",
    "logic_marks",
    "percentages",
    "fractions",
    "years",
    "names",
    "blanks",
    "loud_negations",
    "roman_numerals",
    "references_to_options",
    *WORD_KINDS,
    # Of the stem.
    "stem_log_chars",
    "stem_log_words",
    "stem_last_sentence",
    "stem_sentence_words",
    "stem_ends_in_question",
    "stem_ends_in_colon",
    "stem_ends_in_dot",
    "stem_is_unfinished",
    "stem_log_numbers",
    "stem_largest_number",
    "stem_decimals",
    # Of the options; all 0 where there are none.
    "options",
    "options_mean_length",
    "options_longest",
    "options_shortest",
    "options_spread",
    "options_with_number",
    "options_of_digits",
    "options_same_start",
    "options_overlap",
    "options_in_stem",
    "options_capitalised",
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

MAX_CHARS = 2_048
"""Of a longer text everything but its size is taken from the first and the last half of this many characters."""

MAX_NUMBERS = 50
"""Numbers of a stem that are looked at."""

_KIND_OF = {word: number for number, words in enumerate(WORD_KINDS.values()) for word in words}
_ABSTRACT = ("tion", "tions", "ism", "ity", "ness", "ment", "ology", "ance", "ence")
_TECHNICAL = ("itis", "osis", "emia", "ase", "ine", "oma", "gen", "yl", "oid", "ous")

_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_DECIMAL = re.compile(r"\d+(?:\.\d+)?")
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")
_SENTENCES = re.compile(r"[.!?]\s+")
_FRACTION = re.compile(r"\d/\d")
_YEAR = re.compile(r"(?:1[5-9]|20)\d\d")
_NAME = re.compile(r"[a-z,;] [A-Z][a-z]")
_LOUD = frozenset(("NOT", "EXCEPT", "LEAST", "FALSE", "INCORRECT"))
_ROMAN = frozenset(("II", "III", "IV", "VI"))
_UPPER, _DIGITS = ascii_uppercase.encode(), digits.encode()


def cheap_features(text: str, facts: RequestFacts, question: Question | None = None) -> NDArray[np.float32]:
    """The features named in NAMES, float32 [len(NAMES)]; always finite. question: of `clipped(text)`, if known."""
    part = clipped(text)
    question = question or Question.of(part)
    n = max(len(part), 1)
    # Whole words are counted among the words: an expression for each would read the text again.
    written = _WORD.findall(part)
    words = [word.lower() for word in written]
    n_words = max(len(words), 1)
    letters = sum(map(len, words))
    different = set(words)
    kinds = [0] * len(WORD_KINDS)
    for word in words:
        if (kind := _KIND_OF.get(word)) is not None:
            kinds[kind] += 1
    n_digits = count_characters(part, str.isdigit, _DIGITS)
    values = [
        log1p(len(text)),
        log1p(len(words) * len(text) / n),
        letters / n_words,
        len(different) / n_words,
        sum([len(word) > 8 for word in words]) / n_words,
        sum([word.endswith(_ABSTRACT) for word in words]) / n_words,
        sum([word.endswith(_TECHNICAL) for word in words]) / n_words,
        n_digits / n,
        count_characters(part, str.isupper, _UPPER) / n,
        (n - letters - part.count(" ")) / n,
        1 - len(part.encode("ascii", "ignore")) / n if part else 0.0,
        _log_count(_NUMBER, part) if n_digits else 0.0,
        log1p(part.count("\n")),
        _log_count(_SENTENCE_END, part),
        log1p(part.count("?")),
        part.rstrip().endswith("?"),
        log1p(part.count(",")),
        log1p(part.count('"') + part.count("“") + part.count("‘")),
        log1p(part.count("(")),
        log1p(code_marks(part, written)),
        log1p(maths_marks(part, written)),
        log1p(sum(map(part.count, LOGIC_MARKS))),
        log1p(part.count("%") + (sum([word.startswith("percent") for word in written]) if "percent" in part else 0)),
        _log_count(_FRACTION, part) if "/" in part else 0.0,
        log1p(sum([len(word) == 4 and _YEAR.fullmatch(word) is not None for word in written])),
        _log_count(_NAME, part),
        log1p(blanks(part)),
        log1p(count_words(written, _LOUD)),
        log1p(count_words(written, _ROMAN)),
        log1p(references_to_options(part, different)),
        *map(log1p, kinds),
        *_stem_values(question.stem, len(words) if question.stem == part else len(_WORD.findall(question.stem))),
        *_option_values(question),
        log1p(facts.prompt_tokens),
        log1p(facts.turns),
        log1p(facts.n_tools),
        log1p(facts.n_parameters),
        log1p(facts.n_required),
        facts.schema_depth,
        log1p(facts.schema_properties),
        log1p(facts.schema_enums),
        facts.has_response_format,
        facts.tool_required,
        log1p(facts.max_tokens),
    ]
    return np.array(values, np.float32)


def clipped(text: str) -> str:
    """The text, or the first and the last half of MAX_CHARS characters of a longer one."""
    return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS // 2]} {text[-MAX_CHARS // 2 :]}"


def _stem_values(stem: str, words: int) -> tuple[float, ...]:
    """words: how many the stem has."""
    sentences = [one for one in _SENTENCES.split(stem) if one.strip()]
    numbers = [float(number[:15]) for number in _DECIMAL.findall(stem)[:MAX_NUMBERS]]
    end = stem.rstrip()[-1:]
    return (
        log1p(len(stem)),
        log1p(words),
        log1p(len(sentences[-1])) if sentences else 0.0,
        log1p(words / max(len(sentences), 1)),
        end == "?",
        end == ":",
        end == ".",
        end.isalnum(),
        log1p(len(numbers)),
        log1p(max(numbers, default=0.0)),
        sum(number != int(number) for number in numbers) / max(len(numbers), 1),
    )


def _option_values(question: Question) -> tuple[float, ...]:
    options = question.options
    n = len(options)
    if not n:
        return (0.0,) * 11
    lengths = [len(one) for one in options]
    mean = sum(lengths) / n
    words = [frozenset(_WORD.findall(one.lower())) for one in options]
    starts = {one.split(" ", 1)[0].lower() for one in options}
    overlaps = [len(a & b) / max(len(a | b), 1) for i, a in enumerate(words) for b in words[:i]]
    known = frozenset().union(*words)
    return (
        n,
        log1p(mean),
        log1p(max(lengths)),
        log1p(min(lengths)),
        math.sqrt(sum([(length - mean) ** 2 for length in lengths]) / n) / (mean + 1),
        _share(any(map(str.isdigit, one)) for one in options),
        _share(2 * sum(map(str.isdigit, one)) > len(one) for one in options),
        1 - len(starts) / n,
        sum(overlaps) / len(overlaps),
        len(known & frozenset(_WORD.findall(question.stem.lower()))) / max(len(known), 1),
        _share(one[0].isupper() for one in options),
    )


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values)


def _log_count(pattern: re.Pattern[str], text: str) -> float:
    return log1p(len(pattern.findall(text)))
