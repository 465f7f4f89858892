"""What the tracked rules promise: nothing invalid is finished, nothing gets stuck, and what is valid can be written."""

import json
import random
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from grammars.constraint import Layout
from grammars.draft import Draft
from grammars.errors import ConstraintRefused
from grammars.json_schema import normalise
from grammars.known_masks import KnownMasks
from grammars.lark import json_block
from grammars.llguidance_backend import LLGuidanceBackend
from grammars.matcher import Matcher
from grammars.tracking.relax import CannotHold, relax
from grammars.tracking.rules import Rules
from grammars.tracking.spelling import parsed
from grammars.tracking.state import Tracking
from grammars.validators import build
from grammars.vocabulary import Vocabulary
from tests.grammars import answers
from tests.grammars.tracking.schemas import schemas, values

_SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
_MOST_BYTES = 120


class Compiler:
    """Compiles normal schemas with their rules for one vocabulary."""

    def __init__(self, tokenizer: Any) -> None:
        self.vocabulary = Vocabulary(tokenizer)
        self.backend = LLGuidanceBackend(self.vocabulary)

    def matcher(self, schema: Any, order: Any = "declared") -> Matcher:
        """Raises ConstraintRefused and CannotHold."""
        rules = Rules()
        relaxed = relax(normalise(schema).schema, rules, order)
        rules.root = relaxed.node
        state = self.backend.compile("start: " + json_block(relaxed.schema, Layout()))
        return Matcher(self.vocabulary, Tracking(rules).wrap(state, self.vocabulary, self.backend.spellings))


@pytest.fixture(scope="module")
def tracked(tokenizer: Any) -> Compiler:
    """A compiler for the bytes."""
    return Compiler(tokenizer)


@pytest.fixture(scope="module")
def forgetful(tokenizer: Any) -> Compiler:
    """A compiler that remembers no mask."""
    compiler = Compiler(tokenizer)
    compiler.vocabulary.known_masks = KnownMasks(0)
    return compiler


def matcher_or_skip(compiler: Compiler, schema: Any, order: str) -> Matcher:
    """The matcher, unless the schema is refused."""
    try:
        matcher = compiler.matcher(schema, order)
        row = torch.zeros(compiler.vocabulary.n_words, dtype=torch.int32)
        matcher.fill_mask(row)
    except (ConstraintRefused, CannotHold):
        assume(False)
    assume(bool(row.any()))  # `compiler.py` refuses what has no answer at all
    return matcher


def legal(matcher: Matcher) -> list[int]:
    """The tokens that the mask allows."""
    row = torch.zeros(matcher._vocabulary.n_words, dtype=torch.int32)
    matcher.fill_mask(row)
    return sorted(answers.legal(row))


@_SETTINGS
@given(schemas(), st.sampled_from(["declared", "any"]), st.integers(0, 2**32))
def test_no_walk_gets_stuck_and_what_it_finishes_is_valid(
    tracked: Compiler, schema: Any, order: str, seed: int
) -> None:
    """Random walks along the masks."""
    matcher = matcher_or_skip(tracked, schema, order)
    validator = build(schema, Draft.DRAFT2020)
    draw = random.Random(seed)
    for _ in range(4):
        walker, text = matcher.fork(), bytearray()
        while len(text) < _MOST_BYTES:
            tokens = legal(walker)
            assert tokens, f"stuck after {bytes(text)!r}"
            if 256 in tokens:
                value = parsed(bytes(text))
                assert validator.is_valid(value), bytes(text)
                if draw.random() < 0.5 or tokens == [256]:
                    break
                tokens.remove(256)
            liked = [token for token in tokens if token in b'"abc01}],:truefalsn{[']
            token = draw.choice(liked if liked and draw.random() < 0.95 else tokens)
            assert walker.advance(token), f"{chr(token)!r} is in the mask after {bytes(text)!r}"
            text.append(token)


@_SETTINGS
@given(schemas(), values(), st.randoms(use_true_random=False))
def test_any_order_takes_exactly_the_valid_values(
    tracked: Compiler, schema: Any, value: Any, draw: random.Random
) -> None:
    """A value, its members shuffled, is taken if and only if it is valid; unless the order is kept somewhere."""
    relaxed = None
    try:
        relaxed = relax(normalise(schema).schema, Rules(), "any")
    except (ConstraintRefused, CannotHold):
        assume(False)
    assume(relaxed is not None and not relaxed.ordered)
    matcher = matcher_or_skip(tracked, schema, "any")
    text = json.dumps(shuffled(value, draw), ensure_ascii=False, separators=(",", ":")).encode()
    taken = all(matcher.advance(byte) for byte in text) and matcher.is_complete
    assert taken == build(schema, Draft.DRAFT2020).is_valid(value)


def shuffled(value: Any, draw: random.Random) -> Any:
    """`value` with its members in another order."""
    if isinstance(value, list):
        return [shuffled(item, draw) for item in value]
    if isinstance(value, dict):
        names = list(value)
        draw.shuffle(names)
        return {name: shuffled(value[name], draw) for name in names}
    return value


@_SETTINGS
@given(schemas(), st.sampled_from(["declared", "any"]), st.integers(0, 2**32))
def test_a_mask_that_was_known_is_the_mask_that_is_computed(
    tracked: Compiler, forgetful: Compiler, schema: Any, order: str, seed: int
) -> None:
    """Every mask on a walk, against that of a compiler that knows none."""
    matcher = matcher_or_skip(tracked, schema, order)
    fresh = matcher_or_skip(forgetful, schema, order)
    draw = random.Random(seed)
    for _ in range(2):
        one, other = matcher.fork(), fresh.fork()
        for _ in range(30):
            tokens = legal(one)
            assert tokens == legal(other)
            tokens = [token for token in tokens if token != 256]
            if not tokens:
                break
            liked = [token for token in tokens if token in b'"abc01}],:']
            token = draw.choice(liked or tokens)
            assert one.advance(token)
            assert other.advance(token)
