"""Drafts from an expected answer: followed, lost, found again."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from engine.speculation.prediction import PredictionProposer
from engine.speculation.proposer import MAX_NODES, DraftTree, Situation, Source
from engine.tokenizer import Tokenizer
from tests.engine.speculation.dictation import steps_of

BUNDLED = Path(__file__).parents[3] / "bundled_models" / "large"
PROMPT = [900, 901]
texts = st.lists(st.integers(0, 3), max_size=50)
distinct = st.lists(st.integers(0, 400), unique=True, min_size=4, max_size=60)
foreign = st.lists(st.integers(500, 520), max_size=12)


def at(
    answer: list[int], prediction: list[int], drafted: tuple[int, ...] = (), prompt: list[int] = PROMPT, id: str = "a"
) -> Situation:
    return Situation(id, [*prompt, *answer], len(prompt), drafted, prediction)


@given(texts, st.data(), st.integers(0, 2 * MAX_NODES))
def test_an_answer_that_follows_its_prediction_is_proposed_whole(
    prediction: list[int], data: st.DataObject, budget: int
) -> None:
    said = data.draw(st.integers(0, len(prediction)))
    tree = PredictionProposer().propose(at(prediction[:said], prediction), budget)
    assert tree.is_chain
    assert list(tree.tokens) == prediction[said:][: min(budget, MAX_NODES)]
    assert set(tree.sources) <= {Source.PREDICTION}


@given(distinct, foreign, st.data())
def test_two_tokens_after_a_span_that_was_replaced_added_or_left_out_the_rest_is_proposed_again(
    prediction: list[int], inserted: list[int], data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(prediction)))
    end = data.draw(st.integers(start, len(prediction)))
    seen = data.draw(st.integers(2, 5))
    rest = prediction[end:]
    answer = [*prediction[:start], *inserted, *rest[:seen]]
    tree = PredictionProposer().propose(at(answer, prediction), MAX_NODES)
    if seen <= len(rest):
        assert list(tree.tokens) == rest[seen:][:MAX_NODES]


@given(distinct, st.integers(500, 520))
def test_one_token_is_enough_near_to_where_the_answer_left(prediction: list[int], other: int) -> None:
    answer = [*prediction[:1], other, prediction[2]]
    tree = PredictionProposer().propose(at(answer, prediction), MAX_NODES)
    assert list(tree.tokens) == prediction[3:][:MAX_NODES]
    assert not tree or tree.probabilities[0] < 0.5


@given(texts, texts, st.data(), st.integers(1, 20))
def test_what_is_proposed_depends_on_the_tokens_and_not_on_earlier_calls(
    prediction: list[int], answer: list[int], data: st.DataObject, budget: int
) -> None:
    grown = PredictionProposer()
    for end in sorted(data.draw(st.sets(st.integers(0, len(answer))))):
        grown.propose(at(answer[:end], prediction), budget)
    fresh = PredictionProposer()
    assert grown.propose(at(answer, prediction), budget) == fresh.propose(at(answer, prediction), budget)


@given(texts, texts, texts)
def test_tokens_that_others_drafted_count_like_the_answer_for_one_call_only(
    prediction: list[int], answer: list[int], drafted: list[int]
) -> None:
    proposer = PredictionProposer()
    before = proposer.propose(at(answer, prediction), 8)
    beyond = proposer.propose(at(answer, prediction, tuple(drafted)), 8)
    assert beyond == PredictionProposer().propose(at([*answer, *drafted], prediction), 8)
    assert proposer.propose(at(answer, prediction), 8) == before


@given(texts, texts)
def test_belief_rises_along_a_chain(prediction: list[int], answer: list[int]) -> None:
    beliefs = PredictionProposer().propose(at(answer, prediction), MAX_NODES).probabilities
    assert list(beliefs) == sorted(beliefs)
    assert all(0 < belief < 1 for belief in beliefs)


def test_an_answer_that_leaves_out_much_is_found_far_ahead_and_one_that_repeats_far_behind() -> None:
    prediction = list(range(300))
    proposer = PredictionProposer()
    ahead = [*range(10), 200, 201, 202]
    assert proposer.propose(at(ahead[:-1], prediction), 3).tokens == (202, 203, 204)
    behind = [*ahead, 203, 204, 40, 41]
    assert proposer.propose(at(behind, prediction), 3).tokens == (42, 43, 44)
    assert proposer.propose(at(behind[:-1], prediction), 3) == DraftTree()  # one token says little so far away


def test_of_equal_places_the_nearest_after_the_one_that_was_left_counts() -> None:
    prediction = [1, 2, 10, 3, 1, 2, 20, 4, 1, 2, 30]
    for answer, following in (([50, 1, 2], 10), ([1, 2, 10, 3, 60, 1, 2], 20), ([1, 2, 10, 3, 1, 2, 20, 60, 1, 2], 30)):
        assert PredictionProposer().propose(at(answer, prediction), 1).tokens == (following,)
    longer = [*prediction[:10], 60, 3, 1, 2]  # three tokens, although that place lies behind
    assert PredictionProposer().propose(at(longer, prediction), 1).tokens == (20,)


def test_nothing_is_proposed_without_a_prediction_or_while_the_answer_is_elsewhere_or_past_its_end() -> None:
    proposer = PredictionProposer()
    for answer, prediction in (([], []), ([7, 8], [1, 2, 3]), ([1, 2, 3], [1, 2, 3]), ([1, 2, 3, 4], [1, 2, 3])):
        assert proposer.propose(at(answer, prediction), 4) == DraftTree()


def test_another_prompt_answer_or_prediction_under_a_known_id_is_followed_anew() -> None:
    proposer = PredictionProposer()
    proposer.propose(at([1, 2], [1, 2, 3, 4]), 2)
    assert proposer.propose(at([1], [1, 2, 3, 4]), 2).tokens == (2, 3)
    assert proposer.propose(at([1, 2], [1, 2, 5, 6]), 2).tokens == (5, 6)
    assert proposer.propose(at([2, 5], [1, 2, 5, 6], prompt=[800]), 2).tokens == (6,)


def test_requests_are_kept_apart_and_forgotten_one_by_one() -> None:
    proposer = PredictionProposer()
    proposer.propose(at([1], [1, 2, 3], id="a"), 4)
    assert proposer.propose(at([1], [1, 5, 6], id="b"), 4).tokens == (5, 6)
    proposer.forget("a")
    proposer.forget("nobody")
    assert list(proposer._pursuits) == ["b"]


def test_an_edited_document_costs_two_steps_an_edit_beside_those_of_its_tokens() -> None:
    tokenizer = Tokenizer.from_folder(BUNDLED)
    order = {"customer": {"name": "Alice Moore", "city": "Paris"}, "items": [{"sku": "A-17", "count": 2}], "paid": True}
    prediction = tokenizer.encode(json.dumps(order, indent=2))
    order["customer"] = {"name": "Alice Moore", "phone": "555-0100", "city": "Lyon"}
    order["items"] = [{"sku": "A-17", "count": 3}]
    answer = tokenizer.encode(json.dumps(order, indent=2))
    changed = len(tokenizer.encode('"phone": "555-0100",\n    Lyon3'))
    steps = steps_of(PredictionProposer(), PROMPT, answer, 16, prediction=prediction)
    assert steps <= len(answer) / 17 + changed + 2 * 3
    assert steps_of(PredictionProposer(), PROMPT, prediction, 16, prediction=prediction) == -(-len(prediction) // 17)
