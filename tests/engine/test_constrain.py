"""The guard around matchers, and compiling on worker threads."""

import threading
from typing import Any

import pytest
import torch

from engine.constrain import (
    CompileFailure,
    CompileOutcome,
    CompileSuccess,
    ConstraintCompiler,
    GrammarFault,
    GuardedMatcher,
)
from grammars import Choice, CompileTimeout, GrammarCompiler, JsonSchema
from tests.engine.checkpoints import END_ID, build_tokenizer

VOCAB = 512


class HfTokenizer:
    """What GrammarCompiler asks of an engine's tokenizer."""

    def __init__(self) -> None:
        from transformers import PreTrainedTokenizerFast

        self.hf = PreTrainedTokenizerFast(tokenizer_object=build_tokenizer(), eos_token="<|im_end|>")  # noqa: S106


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return HfTokenizer()


@pytest.fixture(scope="module")
def compiler(tokenizer: Any) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, vocab_size=VOCAB, stop_token_ids=[END_ID])


def guarded(compiler: GrammarCompiler, *choices: str) -> GuardedMatcher:
    return GuardedMatcher(compiler.compile(Choice(choices)).matcher(), frozenset([END_ID]), VOCAB)


def allowed(mask: torch.Tensor) -> set[int]:
    bits = torch.arange(32)
    return set(torch.nonzero((mask[:, None] >> bits & 1).flatten()).flatten().tolist())


def test_a_forced_run_is_what_single_bit_masks_spell_and_changes_nothing(
    compiler: GrammarCompiler, tokenizer: Any
) -> None:
    matcher = guarded(compiler, "ÞΩ only", "ÞΩ out")  # two letters that are spelt byte by byte, then a choice
    before = matcher.mask.clone()
    run = matcher.forced_run(100)
    assert torch.equal(matcher.mask, before)
    for token in run:
        assert allowed(matcher.mask) == {token}
        matcher.advance(token)
    assert len(allowed(matcher.mask)) > 1
    assert tokenizer.hf.decode(run).strip() == "ÞΩ"


def test_a_forced_run_stops_at_its_limit(compiler: GrammarCompiler) -> None:
    # Letters that the tokenizer spells byte by byte: text with several spellings leaves the choice to the model.
    whole = guarded(compiler, "ÞΩЖ")
    run = []
    while not whole.is_over:
        [token] = whole.forced_run(1)
        run.append(token)
        whole.advance(token)
    assert whole.is_complete
    assert len(run) == len("ÞΩЖ".encode())
    assert [len(guarded(compiler, "ÞΩЖ").forced_run(n)) for n in range(4)] == [0, 1, 2, 3]


def test_masks_along_a_tail_are_those_of_taking_it_token_by_token(compiler: GrammarCompiler) -> None:
    matcher = guarded(compiler, "abcd", "abce")
    tokens = compiler._vocabulary.hf.encode("abce", add_special_tokens=False)
    masks = matcher.masks_along([*tokens[:2], 3, tokens[2]])  # 3 is a control token: never legal
    replay = guarded(compiler, "abcd", "abce")
    for i, mask in enumerate(masks):
        assert torch.equal(mask, replay.mask)
        if i < len(masks) - 1:
            replay.advance(tokens[i])
    assert len(masks) <= 3


def test_an_end_token_in_a_tail_is_not_followed(compiler: GrammarCompiler) -> None:
    matcher = guarded(compiler, "a", "ab")
    [token] = compiler._vocabulary.hf.encode("a", add_special_tokens=False)
    assert len(matcher.masks_along([token, END_ID, token])) == 2
    assert not matcher.is_complete


def test_an_answer_is_over_once_only_the_end_may_follow(compiler: GrammarCompiler) -> None:
    matcher = guarded(compiler, "a", "ab")
    a, b = (compiler._vocabulary.hf.encode(letter, add_special_tokens=False)[0] for letter in "ab")
    matcher.advance(a)
    assert (matcher.is_complete, matcher.is_over) == (True, False)
    matcher.advance(b)
    assert (matcher.is_complete, matcher.is_over) == (True, True)
    matcher.advance(END_ID)
    assert (matcher.is_complete, matcher.is_over) == (True, True)


def test_a_token_that_the_matcher_refuses_is_a_fault(compiler: GrammarCompiler) -> None:
    with pytest.raises(GrammarFault, match="its matcher refused it"):
        guarded(compiler, "a").advance(3)


class Broken:
    """A matcher whose every call fails."""

    def __getattr__(self, name: str) -> Any:
        raise MemoryError(name)


class Empty:
    """A matcher that allows nothing and is not at its end."""

    is_terminated = False

    def fill_mask(self, row: torch.Tensor) -> None:
        row.zero_()


def test_a_mask_without_any_token_is_a_fault() -> None:
    with pytest.raises(GrammarFault, match="no token at all"):
        _ = GuardedMatcher(Empty(), frozenset([END_ID]), VOCAB).is_over


@pytest.mark.parametrize("call", ["forced_run", "advance", "masks_along"])
def test_whatever_a_backend_raises_is_a_fault_of_the_request(call: str) -> None:
    matcher = GuardedMatcher(Broken(), frozenset([END_ID]), VOCAB)
    with pytest.raises(GrammarFault, match="failed with MemoryError"):
        getattr(matcher, call)([1] if call == "masks_along" else 1)


class FailingCompiler:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def cached(self, _constraint: object) -> None:
        return None

    def compile(self, _constraint: object) -> Any:
        raise self._error


@pytest.mark.parametrize(
    ("error", "kind"),
    [(CompileTimeout("slow"), CompileTimeout), (RuntimeError("bug"), GrammarFault), (MemoryError(), GrammarFault)],
)
def test_what_a_compiler_raises_becomes_an_outcome(error: Exception, kind: type[Exception]) -> None:
    service = ConstraintCompiler({"m": lambda: FailingCompiler(error)})
    outcome = service.compile("m", Choice(("a",)))
    service.close()
    assert isinstance(outcome, CompileFailure)
    assert isinstance(outcome.error, kind)


def test_compiling_runs_beside_the_caller_and_builds_each_compiler_once(tokenizer: Any) -> None:
    built: list[str] = []

    def build() -> GrammarCompiler:
        built.append(threading.current_thread().name)
        return GrammarCompiler(tokenizer, vocab_size=VOCAB)

    service = ConstraintCompiler({"m": build}, n_threads=2)
    outcomes: list[CompileOutcome] = []
    done = threading.Semaphore(0)

    def take(outcome: CompileOutcome) -> None:
        outcomes.append(outcome)
        done.release()

    for i in range(4):
        service.start("m", JsonSchema({"const": i}), take)
    for _ in range(4):
        assert done.acquire(timeout=30)
    service.close()
    assert all(isinstance(outcome, CompileSuccess) for outcome in outcomes)
    assert len(built) == 1
    assert built[0] != threading.current_thread().name
