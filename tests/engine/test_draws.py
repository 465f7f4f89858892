"""Drafts in a step of draws: in coupled form they change nothing but the number of steps; verified by their ratio they
keep the distribution."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.draws import StepDraws
from engine.generation import Generation
from engine.guarded_matcher import GrammarFault
from engine.request import FinishReason
from engine.speculation.draft import Draft
from engine.speculation.proposer import DraftTree, Source
from tests.engine.draft_steps import END, VOCAB, Logits, ScatteredLanguage, Stepper, draft_of, random_logits_of
from tests.engine.test_sampler import plain_logits, plain_survivors

PROMPT = (7, 8, 9)
STRANGE = (END, 0, -1, -(2**40), VOCAB, VOCAB + 25, 2**40)
"""An end, a token that masks seldom allow, and numbers that are no tokens."""
kinds = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.7, 1.5]),
        "frequency_penalty": st.sampled_from([0.0, 0.9]),
        "repetition_penalty": st.sampled_from([1.0, 1.5]),
        "min_tokens": st.sampled_from([0, 0, 4]),
        "ignore_eos": st.booleans(),
        "logprobs": st.sampled_from([None, 0, 2]),
        "top_p": st.sampled_from([1.0, 0.8]),
        "stop": st.sampled_from([(), ("ab", "c")]),
        "stop_token_ids": st.sampled_from([(), (11,)]),
        "max_tokens": st.integers(1, 14),
    }
).map(lambda params: params | {"min_tokens": min(params["min_tokens"], params["max_tokens"])})


@st.composite
def trees(draw: st.DrawFn, right: Sequence[int], max_nodes: int = 7) -> tuple[list[int], list[int]]:
    """Tokens and parents: mostly what comes next, else anything."""
    tokens, parents, depths, is_right = [], [], [0], [True]
    is_chain = draw(st.booleans())
    for node in range(draw(st.integers(0, max_nodes))):
        parent = node - 1 if is_chain else draw(st.integers(-1, node - 1))
        depth = depths[parent + 1]
        fitting = right[depth : depth + 1] if is_right[parent + 1] else []
        token = fitting[0] if fitting and draw(st.integers(0, 3)) else draw(st.sampled_from((*STRANGE, *range(VOCAB))))
        tokens.append(token)
        parents.append(parent)
        depths.append(depth + 1)
        is_right.append(bool(fitting) and token == fitting[0])
    return tokens, parents


def outcome(generation: Generation) -> tuple[Any, ...]:
    delta = generation.take_delta()
    assert delta is not None
    finished = generation.finished()
    return delta.text, delta.token_ids, delta.logprobs, finished.reason, finished.stop_match, finished.text


@settings(max_examples=150)
@given(kinds, st.booleans(), st.integers(0, 999), st.data())
def test_no_answer_depends_on_the_trees_that_were_drafted(
    params: dict[str, Any], masked: bool, seed: int, data: st.DataObject
) -> None:
    """18: tokens, texts, log-probabilities and ends are those of drawing one by one; of each draft, exactly the path
    that the answer takes is accepted."""
    model, matchers = random_logits_of(seed), [ScatteredLanguage(seed) if masked else None for _ in range(2)]
    alone = Stepper(model)
    reference = alone.add("a", PROMPT, seed=seed, matcher=matchers[0], **params)
    alone.finish()
    drafting = Stepper(model)
    generation = drafting.add("a", PROMPT, seed=seed, matcher=matchers[1], **params)
    drafting.add("beside", PROMPT[:2], seed=5, **params | {"max_tokens": 3, "min_tokens": 0})
    drafted = accepted = 0
    while generation.reason is None:
        done = len(generation.output)
        right = reference.output[done:]
        tokens, parents = data.draw(trees(right))
        masks = None
        if generation.matcher is not None and data.draw(st.booleans()):
            masks = generation.matcher.masks_of_tree(tokens, parents)[0]
        cut = data.draw(st.none() | st.integers(0, 7))
        drafting.step({"a": draft_of(tokens, parents, masks)}, cut)
        tail = tokens[:cut]
        path, at, verdicts = list[int](), -1, list[tuple[int, bool]]()
        for token in right:
            children = [node for node in range(len(tail)) if parents[node] == at]
            child = next((node for node in children if tail[node] == token), None)
            verdicts += [(node, node == child) for node in children]
            if child is None or len(right) == len(path) + 1:
                break
            path.append(child)
            at = child
        assert generation.path == tuple(path)
        assert generation.n_tail == len(path)
        assert generation.verdicts == verdicts
        assert len(generation.output) - done == len(path) + 1
        drafted, accepted = drafted + len(tail), accepted + sum(is_right for _, is_right in verdicts)
    timeline = generation.request.timeline
    assert (timeline.drafted_tokens, timeline.accepted_tokens) == (drafted, accepted)
    assert sum(counts.drafted for counts in timeline.drafts.values()) == drafted
    assert sum(counts.accepted for counts in timeline.drafts.values()) == accepted
    # Texts are compared by what they say; the numbers beside tokens may be rounded otherwise in another batch.
    one, other = outcome(generation), outcome(reference)
    assert (*one[:2], *one[3:]) == (*other[:2], *other[3:])
    assert (one[2] is None) == (other[2] is None)
    for mine, plain in zip(one[2] or [], other[2] or [], strict=True):
        assert mine.token_id == plain.token_id
        assert mine.logprob == pytest.approx(plain.logprob, abs=1e-5)
        assert [token for token, _ in mine.top] == [token for token, _ in plain.top]


class FaultyLanguage(ScatteredLanguage):
    """Raises in its n-th call."""

    def __init__(self, seed: int, fails_at: int, error: Exception) -> None:
        super().__init__(seed)
        self.left, self._error = fails_at, error

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise self._error

    def fill_mask(self, row: torch.Tensor) -> None:
        self._count()
        super().fill_mask(row)

    def advance(self, token_id: int) -> bool:
        self._count()
        return super().advance(token_id)

    def rollback(self, n: int) -> None:
        self._count()
        super().rollback(n)

    def trial(self, tail: Sequence[int]) -> Any:
        self._count()
        return super().trial(tail)


@pytest.mark.parametrize("verification", ["coupled", "ratio"])
@pytest.mark.parametrize("parents", [(-1, 0, 1, 2), (-1, 0, 0, -1, 3)])
def test_a_matcher_that_raises_in_any_call_of_a_verification_ends_its_own_request_only(
    verification: Any, parents: tuple[int, ...]
) -> None:
    """27, with drafts."""
    model = random_logits_of(2)
    n_faults = 0
    for fails_at in range(1, 60):
        stepper = Stepper(model, verification=verification)
        matcher = FaultyLanguage(4, fails_at, MemoryError("out of it"))
        faulty = stepper.add("faulty", PROMPT, matcher=matcher, temperature=1.0, ignore_eos=True)
        good = stepper.add("good", PROMPT, matcher=ScatteredLanguage(4), temperature=1.0, ignore_eos=True)
        draft = draft_of([5, 5, 8, 5, 5][: len(parents)], parents)
        draws = stepper.step({"faulty": draft, "good": draft})
        assert set(draws.faults) <= {"faulty"}
        assert good.output
        if not draws.faults:
            assert faulty.output == good.output
            assert matcher.left > 0
            break
        n_faults += 1
        assert isinstance(draws.faults["faulty"], GrammarFault)
        assert len(faulty.output) <= faulty.n_tail + 1
    assert n_faults > 3
    assert not draws.faults


def test_where_a_backend_contradicts_its_mask_the_draft_ends_and_is_not_accepted_further() -> None:
    """A token that a mask allows, and that a trial refuses all the same, must not count as a verified one."""

    class Refusing(ScatteredLanguage):
        def trial(self, tail: Sequence[int]) -> Any:
            masks, _ = super().trial(tail[:1])
            return masks[:1], 0

    stepper = Stepper(lambda _tokens: torch.nn.functional.one_hot(torch.tensor(5), VOCAB).float() * 9)
    generation = stepper.add("a", PROMPT, matcher=Refusing(1), temperature=0.0)
    stepper.step({"a": draft_of([5, 5], [-1, 0])})
    assert (generation.output, generation.path, generation.n_tail) == ([5], (), 0)


def test_requests_with_drafts_are_not_awaited() -> None:
    stepper = Stepper(random_logits_of(1))
    for name in ("plain", "drafted"):
        stepper.add(name, PROMPT, temperature=0.0, ignore_eos=True)
    assert not stepper.step().has_tails
    draws = stepper.step({"drafted": draft_of([4, 5], [-1, -1])})
    assert draws.has_tails
    assert draws.awaited() == {"plain": 0}


def critical(degrees: int) -> float:
    """What chi-square exceeds once in ten thousand (Wilson and Hilferty, 1931)."""
    spread = 2 / (9 * degrees)
    return float(degrees * (1 - spread + 3.72 * math.sqrt(spread)) ** 3)


SMALL = 8


class SmallLanguage(ScatteredLanguage):
    """Forbids 2 and 6 at first, and 1 and 6 behind a 4 or 5."""

    def allowed(self) -> set[int]:
        return set(range(SMALL)) - ({2, 6} if not self.taken else {1, 6} if self.taken[-1] in (4, 5) else {6})


def wanted(model: Logits, generation: Generation, before: Sequence[int], mask: set[int] | None) -> list[float]:
    """The distribution of the next token, token by token."""
    row = generation.sampling_row(before, None)
    params = row.params
    logits = plain_logits(model((*PROMPT_OF_8, *before)).tolist(), row, mask)
    kept = plain_survivors(logits, params)
    weights = [math.exp(value / params.temperature) if token in kept else 0.0 for token, value in enumerate(logits)]
    return [weight / sum(weights) for weight in weights]


PROMPT_OF_8 = (4, 5, 4)
FORMS = {
    # Parents, and by node whether it is drawn, or chosen with certainty.
    "chain": ((-1, 0, 1), (True, True, True)),
    "certain chain": ((-1, 0), (False, False)),
    "two drawn": ((-1, -1, 0, 1), (True, True, True, False)),
    "mixed": ((-1, -1, -1, 0, 1, 2), (True, False, True, True, False, True)),
}
RATIO_KINDS: dict[str, dict[str, Any]] = {
    "plain": {"temperature": 1.0},
    "filters": {"temperature": 1.4, "top_k": 5, "top_p": 0.9, "min_p": 0.02},
    "penalties": {"temperature": 0.8, "frequency_penalty": 1.0, "repetition_penalty": 1.3, "logit_bias": {1: 1.0}},
    "min_tokens": {"temperature": 1.0, "min_tokens": 2},
}


@pytest.mark.parametrize(
    ("kind", "form", "masked"),
    [(kind, form, (i + j) % 2 == 1) for i, kind in enumerate(RATIO_KINDS) for j, form in enumerate(FORMS)],
)
def test_ratio_drafts_keep_the_distribution(kind: str, form: str, masked: bool) -> None:
    """20: two tokens over a vocabulary of 8 that were drafted from another distribution, which knows no mask, by
    chi-square. As the second one counts what was drawn after an accepted node."""
    n, params = 2_000, RATIO_KINDS[kind]
    model = random_logits_of(11, SMALL, 1.3)
    stepper = Stepper(model, SMALL, "ratio")
    generator = torch.Generator().manual_seed(3)
    q = (torch.randn(2, SMALL, generator=generator) * 0.8).softmax(-1)
    parents, is_drawn = FORMS[form]
    drafts = dict[str, Draft]()
    for index in range(n):
        matcher = SmallLanguage(0) if masked else None
        stepper.add(str(index), PROMPT_OF_8, seed=index, matcher=matcher, **params)
        tokens, of = list[int](), list[int]()
        for node, drawn in enumerate(is_drawn):
            row = node % 2
            tokens.append(int(torch.multinomial(q[row], 1, generator=generator)) if drawn else (5, 4, 1)[node % 3])
            of.append(row if drawn else -1)
        m = len(parents)
        tree = DraftTree(tuple(tokens), parents, (0.5,) * m, (Source.DRAFT_MODEL,) * m, q, tuple(of))
        drafts[str(index)] = Draft(tree)
    draws = stepper.step(drafts)
    assert not draws.faults
    language = SmallLanguage(0)
    firsts, pairs = Counter[int](), dict[int, Counter[int]]()
    for generation in stepper.generations.values():
        first, *rest = generation.output
        firsts[first] += 1
        if rest:
            pairs.setdefault(first, Counter())[rest[0]] += 1
    fresh = Stepper(model, SMALL).add("fresh", PROMPT_OF_8, **params)
    assert n * 0.1 < sum(map(Counter.total, pairs.values())) < n * 0.95
    tables = [(firsts, wanted(model, fresh, (), language.allowed() if masked else None))]
    for first, seconds in pairs.items():
        language.taken = [first]
        if seconds.total() >= 80:
            tables.append((seconds, wanted(model, fresh, (first,), language.allowed() if masked else None)))
    statistic, degrees = 0.0, 0
    for counts, expected in tables:
        assert all(expected[token] > 0 for token in counts)
        shares = [(counts[token], counts.total() * p) for token, p in enumerate(expected) if p]
        statistic += sum((seen - share) ** 2 / share for seen, share in shares)
        degrees += sum(p > 0 for p in expected) - 1
    assert statistic < critical(degrees)


@given(kinds, st.booleans(), st.integers(0, 999))
def test_a_draft_from_the_target_itself_is_always_accepted(params: dict[str, Any], masked: bool, seed: int) -> None:
    """21, with whatever a request can ask for."""
    params |= {"temperature": params["temperature"] or 0.9, "stop": (), "stop_token_ids": (), "ignore_eos": True}
    params["max_tokens"] = 14
    model = random_logits_of(seed)
    stepper = Stepper(model, verification="ratio")
    generation = stepper.add("a", PROMPT, seed=seed, matcher=ScatteredLanguage(seed) if masked else None, **params)
    path, rows = list[int](), list[torch.Tensor]()
    walk = None if generation.matcher is None else generation.matcher.walk()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(4):
        row = generation.sampling_row(path, None if walk is None else walk.mask)
        rows.append(stepper.sampler.prepare([row]).distribution(model((*PROMPT, *path))[None])[0])
        token = int(torch.multinomial(rows[-1], 1, generator=generator))
        if token == END or (walk is not None and not walk.advance(token)):
            rows.pop()
            break
        path.append(token)
    if walk is not None:
        walk.close()
    n = len(path)
    tree = DraftTree(
        tuple(path), tuple(range(-1, n - 1)), (1.0,) * n, (Source.DRAFT_MODEL,) * n,
        torch.stack(rows) if rows else None, tuple(range(n)),
    )  # fmt: skip
    stepper.step({"a": Draft(tree)})
    assert generation.path == tuple(range(n))
    assert generation.output[:n] == path


@settings(max_examples=100)
@given(kinds, st.booleans(), st.integers(0, 999), st.data())
def test_nothing_that_a_ratio_draft_holds_does_harm(
    params: dict[str, Any], masked: bool, seed: int, data: st.DataObject
) -> None:
    """Whatever tokens, distributions of any width or none at all: the answer stays within its grammar, and its
    log-probabilities are those of its tokens."""
    model = random_logits_of(seed)
    stepper = Stepper(model, verification="ratio")
    generation = stepper.add("a", PROMPT, seed=seed, matcher=ScatteredLanguage(seed) if masked else None, **params)
    generator = torch.Generator().manual_seed(seed)
    while generation.reason is None:
        tokens, parents = data.draw(trees([5, 7, 5, 9, 5]))
        n, width = len(tokens), data.draw(st.sampled_from([VOCAB - 9, VOCAB, VOCAB + 30]))
        distributions = torch.rand(3, width, generator=generator) * data.draw(st.sampled_from([0.0, 0.1, 5.0]))
        of = tuple(data.draw(st.sampled_from([-1, 0, 1, 2, 7, -4])) for _ in range(n))
        tree = DraftTree(tuple(tokens), tuple(parents), (0.5,) * n, (Source.NGRAM,) * n, distributions, of)
        draws = stepper.step({"a": Draft(tree)}, data.draw(st.none() | st.integers(0, 7)))
        assert not draws.faults
    language, seen = ScatteredLanguage(seed), generation.take_delta()
    assert seen is not None
    if params["logprobs"] is not None:
        assert seen.logprobs is not None
        assert [entry.token_id for entry in seen.logprobs] == generation.output
    for at, token in enumerate(generation.output):
        mask = language.allowed() if masked else None
        before = generation.output[:at]
        assert not masked or language.advance(token)
        if seen.logprobs is not None and params["logprobs"] is not None:
            row = Stepper(model).add("b", PROMPT, **params).sampling_row(before, None)
            logits = torch.tensor(plain_logits(model((*PROMPT, *before)).tolist(), row, mask)).log_softmax(-1)
            assert seen.logprobs[at].logprob == pytest.approx(float(logits[token]), abs=1e-3)
            best = logits.topk(params["logprobs"]).values.tolist()
            assert [value for _, value in seen.logprobs[at].top] == pytest.approx(
                [value for value in best if value > -math.inf], abs=1e-3
            )


def test_greedy_requests_and_those_without_a_draft_are_drawn_as_ever_in_ratio_mode() -> None:
    model = random_logits_of(6)
    ratio, coupled = Stepper(model, verification="ratio"), Stepper(model)
    for stepper in (ratio, coupled):
        stepper.add("greedy", PROMPT, temperature=0.0, ignore_eos=True, max_tokens=9)
        stepper.add("plain", PROMPT, temperature=1.0, seed=4, ignore_eos=True, max_tokens=9)
    coupled.finish()
    answer = coupled.generations["greedy"].output
    ratio.step({"greedy": draft_of(answer[:3], (-1, 0, 1))})
    assert ratio.generations["greedy"].n_tail == 3
    ratio.finish()
    for name, generation in coupled.generations.items():
        assert ratio.generations[name].output == generation.output
        assert generation.reason is FinishReason.LENGTH


@pytest.mark.parametrize("parents", [(-1, 0), (-1, -1)])
def test_a_node_outside_the_grammar_is_not_taken_even_where_rounding_says_so(parents: tuple[int, ...]) -> None:
    """A draft more likely than the target everywhere leaves nothing of it, which the kernel takes for rounding."""
    for seed in range(20):
        stepper, language = Stepper(random_logits_of(seed), verification="ratio"), ScatteredLanguage(seed)
        legal = language.allowed()
        illegal = next(token for token in range(VOCAB) if token not in legal)
        generation = stepper.add("a", PROMPT, seed=seed, matcher=language, ignore_eos=True)
        tree = DraftTree(
            (illegal, 5), parents, (0.5,) * 2, (Source.DRAFT_MODEL,) * 2, torch.full((1, VOCAB), 4.0), (0, 0)
        )
        assert not stepper.step({"a": Draft(tree)}).faults
        assert len(generation.output) == 1
        assert generation.output[0] in legal
        assert generation.path == ()


def test_a_mask_that_allows_nothing_is_a_fault_in_ratio_mode_too() -> None:
    class Dead(ScatteredLanguage):
        def allowed(self) -> set[int]:
            return set()

    stepper = Stepper(random_logits_of(1), verification="ratio")
    generation = stepper.add("a", PROMPT, matcher=Dead(0), temperature=1.0)
    draws: StepDraws = stepper.step({"a": draft_of([5, 6], [-1, -1])})
    assert isinstance(draws.faults["a"], GrammarFault)
    assert not generation.output
