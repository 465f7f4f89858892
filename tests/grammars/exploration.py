"""Every text that a grammar admits, found by trying every token everywhere, over a vocabulary small enough for it."""

import random
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from grammars import CompiledConstraint, Matcher
from tests.grammars.answers import legal

SINGLE: Final = tuple('{}[]":,-0123456789abctruefalsn')
CROSSING: Final = (
    '{"', '{"a":', '":', '":"', '","', '"}', '"]', '"a"', ',"b":', "],", "]}", "[[", "[]", "{}", "},", "},{", "12",
    "10", "1,", "0]", "1}", "true", "null", "false,", "ab", "bb", 'a"', '"b', 'c":', "-1",
)  # fmt: skip
TOKENS: Final = tuple(dict.fromkeys((*SINGLE, *CROSSING)))
END: Final = len(TOKENS)
END_TEXT: Final = "<end>"


def tiny_tokenizer() -> Any:
    """A fast tokenizer of TOKENS and an end token. It spells no backslash, so strings have one spelling each."""
    vocabulary = {token: i for i, token in enumerate([*TOKENS, END_TEXT])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END_TEXT)


_LONGEST: Final = 300  # characters, more than any value of a finite language here has


class TooLarge(Exception):
    """More states than were to be looked at."""


@dataclass(slots=True)
class Exploration:
    """What lies before every legal prefix: the ids that the mask there allows. texts: the whole answers."""

    masks: dict[str, set[int]] = field(default_factory=dict)
    texts: set[str] = field(default_factory=set)


def explore(compiled: CompiledConstraint, n_words: int, most: int = 2_500) -> Exploration:
    """Every state that legal tokens reach, each by every way that leads there.

    Raises TooLarge, and AssertionError where mask, matcher, `forced` and completeness disagree, where two ways to the
    same text allow different tokens, or where taking a token back leaves a trace.
    """
    found = Exploration()
    row = torch.zeros(n_words, dtype=torch.int32)
    matcher = compiled.matcher()

    def allowed() -> set[int]:
        matcher.fill_mask(row)
        return legal(row)

    def look(text: str) -> None:
        if len(found.masks) > most:
            raise TooLarge(text)
        assert len(text) <= _LONGEST, f"no answer is that long: {text}"
        ids = allowed()
        found.masks[text] = ids
        assert ids <= set(range(END + 1)), text
        assert (END in ids) == matcher.is_complete, text
        assert matcher.forced() == (next(iter(ids)) if len(ids) == 1 else None), text
        if END in ids:
            found.texts.add(text)
        for token in sorted(ids - {END}):
            assert matcher.advance(token), (text, TOKENS[token])
            longer = text + TOKENS[token]
            if longer in found.masks:
                assert allowed() == found.masks[longer], f"two ways to {longer!r} allow different tokens"
            else:
                look(longer)
            matcher.rollback(1)
        assert allowed() == ids, f"taking tokens back left a trace after {text!r}"

    look("")
    return found


def assert_masks_are_exact(found: Exploration) -> None:
    """At every state: legal is what some whole answer goes on with, and nothing else. So no state is a dead end."""
    beginnings = {text[:n] for text in found.texts for n in range(len(text) + 1)}
    for text, ids in found.masks.items():
        assert text in beginnings, f"{text!r} is a dead end"
        wanted = {i for i, token in enumerate(TOKENS) if text + token in beginnings}
        assert ids - {END} == wanted, f"after {text!r}: {sorted(TOKENS[i] for i in (ids - {END}) ^ wanted)}"


def _draft(found: Exploration, text: str, rng: random.Random) -> list[int]:
    """Up to three legal tokens, hardly those that will be taken, and one by chance."""
    draft: list[int] = []
    for _ in range(rng.randrange(4)):
        options = sorted(found.masks[text] - {END})
        if not options:
            break
        draft.append(rng.choice(options))
        text += TOKENS[draft[-1]]
    return [*draft, rng.randrange(END + 1)][: rng.randint(1, 4)]


def assert_ways_back_leave_no_trace(compiled: CompiledConstraint, found: Exploration, rng: random.Random) -> None:
    """A random answer by random tokens: `trial` and `fork` on the way, then back to a random place, and to the end."""
    matcher: Matcher = compiled.matcher()
    text = ""
    path: list[int] = []
    while True:
        ids = found.masks[text]
        if END in ids and (len(ids) == 1 or rng.random() < 0.3):
            break
        token = rng.choice(sorted(ids - {END}))
        draft = _draft(found, text, rng)
        masks, n_valid = matcher.trial(draft)
        assert legal(masks[0]) == ids
        at = text
        for i, drafted in enumerate(draft[:n_valid]):
            assert legal(masks[i]) == found.masks[at]
            at = at if drafted == END else at + TOKENS[drafted]
        if n_valid < len(draft):
            assert draft[n_valid] not in legal(masks[n_valid])
        fork = matcher.fork()
        assert fork.advance(token)
        assert matcher.advance(token)
        path.append(token)
        text += TOKENS[token]
    n_back = rng.randint(0, len(path))
    matcher.rollback(n_back)
    at = "".join(TOKENS[token] for token in path[: len(path) - n_back])
    masks, _ = matcher.trial([])
    assert legal(masks[0]) == found.masks[at]
    for token in path[len(path) - n_back :]:
        assert matcher.advance(token)
    assert matcher.advance(END)
    assert matcher.is_terminated
