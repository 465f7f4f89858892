"""Drafts from the context: where they are read, how sure they are, and what they save."""

import json
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.speculation.ngram import NGramProposer
from engine.speculation.proposer import MAX_NODES, DraftTree, Situation, Source
from engine.speculation.suffix_index import SuffixIndex
from engine.tokenizer import Tokenizer
from tests.engine.speculation.dictation import steps_of

BUNDLED = Path(__file__).parents[3] / "bundled_models" / "large"
texts = st.lists(st.integers(0, 3), min_size=1, max_size=60)
budgets = st.integers(0, 2 * MAX_NODES)


def at(tokens: list[int], n_prompt: int | None = None, drafted: tuple[int, ...] = (), id: str = "a") -> Situation:
    return Situation(id, tokens, len(tokens) if n_prompt is None else n_prompt, drafted)


@given(texts, st.lists(st.integers(0, 3), max_size=4), budgets)
def test_a_chain_is_read_from_where_the_longest_end_of_the_context_occurred(
    text: list[int], drafted: list[int], budget: int
) -> None:
    proposer = NGramProposer()
    own = proposer.propose(at(text), len(drafted)).tokens
    assume(not drafted or own != tuple(drafted))  # behind its own draft it goes on reading: see below
    tree = proposer.propose(at(text, drafted=tuple(drafted)), budget)
    match, place = SuffixIndex(text).find([*text, *drafted])
    assert tree.is_chain
    assert list(tree.tokens) == (text[place:][: min(budget, MAX_NODES)] if match else [])
    assert set(tree.sources) <= {Source.NGRAM}


@given(texts, st.data(), st.integers(1, 20))
def test_what_is_proposed_depends_on_the_tokens_and_not_on_earlier_calls(
    text: list[int], data: st.DataObject, budget: int
) -> None:
    n_prompt = data.draw(st.integers(1, len(text)))
    ends = sorted(data.draw(st.sets(st.integers(n_prompt, len(text)))) | {len(text)})
    grown = NGramProposer()
    for end in ends:
        tree = grown.propose(at(text[:end], n_prompt), budget)
    assert tree == NGramProposer().propose(at(text, n_prompt), budget)


@given(texts, texts, st.data())
def test_going_on_behind_what_was_drafted_says_what_one_longer_draft_would_have_said(
    text: list[int], answer: list[int], data: st.DataObject
) -> None:
    proposer, tokens = NGramProposer(), [*text, *answer]
    whole = proposer.propose(at(tokens, len(text)), MAX_NODES)
    first = data.draw(st.integers(0, max(len(whole) - 1, 0)))
    rest = proposer.propose(at(tokens, len(text), whole.tokens[:first]), MAX_NODES)
    assert rest.tokens == whole.tokens[first:]


@given(texts, budgets)
def test_belief_rises_along_a_chain(text: list[int], budget: int) -> None:
    beliefs = NGramProposer().propose(at(text), budget).probabilities
    assert list(beliefs) == sorted(beliefs)
    assert all(0 < belief < 1 for belief in beliefs)


def test_a_longer_match_is_believed_more() -> None:
    firsts = [NGramProposer().propose(at([*range(50), *range(40 - n, 40)]), 1) for n in (1, 2, 3, 4, 6, 9)]
    beliefs = [tree.probabilities[0] for tree in firsts]
    assert beliefs == sorted(set(beliefs))


def test_a_match_below_the_least_proposes_nothing() -> None:
    assert NGramProposer(2).propose(at([1, 2, 3, 9, 2]), 4) == DraftTree()
    assert NGramProposer(2).propose(at([1, 2, 3, 1, 2]), 4).tokens == (3, 1, 2)
    with pytest.raises(ValueError, match="min_match is 0: use 1 to 16"):
        NGramProposer(0)


def test_a_passage_that_is_copied_is_read_on_where_a_newer_one_begins_alike() -> None:
    records = [[1, 2, 3, 4, 5, 10 + i, 20 + i] for i in range(6)]
    document = [token for record in records for token in record]
    alike = [1, 2, 3, 4, 5]
    copied = document[: 2 * 7]
    prompt = [*document, 99, *alike, 98, 97]
    proposer = NGramProposer()
    for end in range(len(copied) + 1):
        tree = proposer.propose(at([*prompt, *copied[:end]], len(prompt)), 3)
    assert list(tree.tokens) == document[14:17]
    behind_a_draft = proposer.propose(at([*prompt, *copied], len(prompt), tuple(alike)), 2)
    after_alike = proposer.propose(at([*prompt, *copied, *alike], len(prompt)), 2)
    assert list(behind_a_draft.tokens) == list(after_alike.tokens) == records[2][5:]
    assert NGramProposer().propose(at([*prompt, *copied, *alike]), 2).tokens == (11, 21)  # the last one in the text


def test_the_longer_a_passage_is_copied_the_more_it_is_believed() -> None:
    prompt = [*range(100), 0, 1]
    proposer, beliefs = NGramProposer(), []
    for copied in range(60):
        beliefs += proposer.propose(at([*prompt, *range(2, 2 + copied)], len(prompt)), 1).probabilities
    assert len(beliefs) == 60
    assert beliefs == sorted(beliefs)
    assert beliefs[14] < beliefs[20] < beliefs[40]


def test_other_tokens_under_a_known_id_are_read_anew() -> None:
    proposer = NGramProposer()
    proposer.propose(at([1, 2, 3, 4, 5, 1]), 4)
    for tokens, expected in (
        ([7, 8, 9, 7], (8, 9, 7)),
        ([1, 2, 3, 4, 6, 1, 2], (3, 4, 6, 1)),
        ([*range(30), 3], (4, 5, 6, 7)),
        ([8, 5, 8], (5, 8)),
    ):
        assert proposer.propose(at(tokens), 4).tokens == expected


def test_requests_are_kept_apart_and_forgotten_one_by_one() -> None:
    proposer = NGramProposer()
    proposer.propose(at([1, 2, 3, 1], id="a"), 4)
    assert proposer.propose(at([1, 5, 6, 1], id="b"), 4).tokens == (5, 6, 1)
    proposer.forget("a")
    proposer.forget("nobody")
    assert list(proposer._readers) == ["b"]
    assert proposer.propose(at([1, 2, 3, 1], id="a"), 4).tokens == (2, 3, 1)


def test_a_long_prompt_is_learned_over_several_calls_and_then_known_whole() -> None:
    prompt = [*range(20_000), 5]
    proposer = NGramProposer()
    trees = [proposer.propose(at([*prompt, 7], len(prompt)), 3) for _ in range(6)]
    assert trees[0] == NGramProposer().propose(at(prompt[:4096]), 3)
    assert trees[-1].tokens == (8, 9, 10)


def test_an_edited_document_costs_few_steps_beside_its_tokens() -> None:
    tokenizer = Tokenizer.from_folder(BUNDLED)
    people = [
        {"name": name, "email": f"{name.lower()}@example.org", "role": "member", "is_active": True, "tags": ["a", "b"]}
        for name in ("Alice", "Bob", "Carol", "Dave")
    ]
    before = tokenizer.encode(json.dumps(people))
    people[1]["role"] = "administrator"
    people[2]["tags"] = []
    answer = tokenizer.encode(json.dumps(people))
    prompt = [*tokenizer.encode("Promote Bob and clear the tags of Carol.\n"), *before, *tokenizer.encode("\n")]
    assert steps_of(NGramProposer(), prompt, answer, 16) < len(answer) / 5
