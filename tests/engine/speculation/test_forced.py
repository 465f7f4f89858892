"""Drafts of forced text: never other bytes than it has, nearly always the spelling of the whole answer."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from engine.speculation.forced import ForcedProposer
from engine.speculation.proposer import MAX_NODES, DraftTree, Situation, Source
from engine.tokenizer import Tokenizer
from grammars import JsonSchema
from grammars.compiler import GrammarCompiler
from tests.engine.speculation.dictation import steps_of

BUNDLED = Path(__file__).parents[3] / "bundled_models" / "large"
CALL = '{"name":"get_weather","arguments":{"city":"'


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(BUNDLED)


def propose(proposer: ForcedProposer, text: bytes, budget: int = 40) -> DraftTree:
    return proposer.propose(Situation("a", [1], 1, forced_text=text), budget)


def spelled(tokenizer: Tokenizer, tree: DraftTree) -> bytes:
    return b"".join(map(tokenizer.token_bytes, tree.tokens))


texts = st.one_of(
    st.binary(max_size=20),
    st.text(max_size=20).map(str.encode),
    st.lists(st.sampled_from([CALL, '":"', "é€", "<|end|>", "<|user|>", "}}", " "])).map(lambda p: "".join(p).encode()),
)


@given(texts, st.integers(0, MAX_NODES))
def test_the_tokens_of_any_bytes_spell_a_beginning_of_them(tokenizer: Tokenizer, text: bytes, budget: int) -> None:
    tree = propose(ForcedProposer(tokenizer), text, budget)
    assert tree.is_chain
    assert len(tree) <= budget
    assert text.startswith(spelled(tokenizer, tree))
    assert all(map(tokenizer.token_bytes, tree.tokens))
    assert set(tree.sources) <= {Source.FORCED}


def test_text_is_spelled_as_the_tokenizer_spells_it_to_its_end_where_nothing_melts_into_that(
    tokenizer: Tokenizer,
) -> None:
    assert list(propose(ForcedProposer(tokenizer), CALL.encode()).tokens) == tokenizer.encode(CALL)


@pytest.mark.parametrize("text", ["[", '{"name":"get', '"a":["', "get ", "{"])
def test_a_last_token_that_may_melt_into_what_follows_is_left_out_or_believed_less(
    tokenizer: Tokenizer, text: str
) -> None:
    tokens, tree = tokenizer.encode(text), propose(ForcedProposer(tokenizer), text.encode())
    if text.endswith('"'):
        assert list(tree.tokens) == tokens
        assert tree.probabilities[-1] < min(tree.probabilities[:-1])
    else:
        assert list(tree.tokens) == tokens[:-1]


def test_a_character_that_is_cut_at_the_end_is_left_to_the_model(tokenizer: Tokenizer) -> None:
    whole, cut = CALL.encode(), (CALL + "é").encode()[:-1]
    tree = propose(ForcedProposer(tokenizer), cut)
    assert whole.startswith(spelled(tokenizer, tree))
    assert len(tree) == len(tokenizer.encode(CALL)) - 1
    assert propose(ForcedProposer(tokenizer), b"\xa9" + whole) == DraftTree()


def test_text_that_reads_like_a_control_token_is_not_proposed(tokenizer: Tokenizer) -> None:
    assert propose(ForcedProposer(tokenizer), b'<|end|>"') == DraftTree()


def test_a_tokenizer_that_puts_a_space_before_a_text_proposes_nothing_wrong() -> None:
    backend = Backend(models.BPE(vocab={"▁": 0, "a": 1, '"': 2}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    spaced = Tokenizer(json.loads(backend.to_str()), {}, None)
    assert spaced.encode('a"') == [0, 1, 2]
    assert propose(ForcedProposer(spaced), b'a"') == DraftTree()
    assert propose(ForcedProposer(spaced), b' a"').tokens in {(), (0, 1, 2)}


class Counting:
    """A tokenizer that counts how often it is asked to spell."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.token_bytes, self._encode, self.texts = tokenizer.token_bytes, tokenizer.encode, list[str]()

    def encode(self, text: str) -> list[int]:
        self.texts.append(text)
        return self._encode(text)


def test_a_text_is_spelled_once_whatever_the_budget_and_old_spellings_make_room(tokenizer: Tokenizer) -> None:
    counting = Counting(tokenizer)
    proposer = ForcedProposer(counting)
    full = propose(proposer, CALL.encode())
    for budget in range(1, len(full) + 2):
        cut = propose(proposer, CALL.encode(), budget)
        assert (cut.tokens, cut.probabilities) == (full.tokens[:budget], full.probabilities[:budget])
    assert counting.texts == [CALL]
    for number in range(2000):
        propose(proposer, f'{number}"'.encode())
        propose(proposer, b'often"')
    assert len(proposer._chains) == 1024
    assert counting.texts.count('often"') == 1
    assert propose(proposer, CALL.encode()) == full
    assert counting.texts.count(CALL) == 2


def test_a_very_long_text_is_spelled_as_far_as_a_draft_reaches(tokenizer: Tokenizer) -> None:
    text = ("word " * 10_000).encode()
    tree = propose(ForcedProposer(tokenizer), text, 10 * MAX_NODES)
    assert len(tree) == MAX_NODES
    assert text.startswith(spelled(tokenizer, tree))


def test_a_text_that_is_too_long_to_spell_is_not_taken_to_end_where_it_is_cut(tokenizer: Tokenizer) -> None:
    text = ("arguments" * 56 + "argumen" + '"' + ',"next":"').encode()
    assert spelled(tokenizer, propose(ForcedProposer(tokenizer), text, MAX_NODES)) == text[:511]


def test_forgetting_anybody_changes_nothing(tokenizer: Tokenizer) -> None:
    proposer = ForcedProposer(tokenizer)
    before = propose(proposer, CALL.encode())
    proposer.forget("a")
    assert propose(proposer, CALL.encode()) == before


def test_names_that_a_schema_forces_cost_one_step_a_run(tokenizer: Tokenizer) -> None:
    names = ("departure_airport", "destination_airport", "passenger_count")
    schema = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in names},
        "required": list(names),
        "additionalProperties": False,
    }
    compiled = GrammarCompiler(tokenizer.hf, deadline_s=60, probe=None).compile(JsonSchema(schema))

    def forced_text(said: Sequence[int]) -> bytes:
        matcher = compiled.matcher()
        assert all(map(matcher.advance, said))
        return matcher.forced_bytes()

    values = ("Lima", "Oslo", "2")
    answer = tokenizer.encode(json.dumps(dict(zip(names, values, strict=True)), separators=(",", ":")))
    n_values = sum(len(tokenizer.encode(value)) for value in values)
    steps = steps_of(ForcedProposer(tokenizer), [1], answer, 16, forced_text=forced_text)
    assert steps <= n_values + len(names) + 1 < len(answer)
