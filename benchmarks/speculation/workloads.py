"""What is asked: hand-written cases, free text, and documents to copy with edits."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.speculation.copier import CONTEXT, MARK
from benchmarks.speculation.side import Ask
from bundled_models.cases import HANDWRITTEN, MAX_TOKENS, CaseKind, written
from bundled_models.evaluation import constraint_of
from engine.request import SamplingParams
from engine.tokenizer import Tokenizer

__all__ = ["Edit", "asks_of", "edits", "free", "grouped", "with_drift"]

CALLS: tuple[CaseKind, ...] = ("call", "calls")
N_PROMPT = 32


def asks_of(tokenizer: Tokenizer, kinds: Sequence[CaseKind], n: int, temperature: float = 0.0) -> list[Ask]:
    """n hand-written cases of these kinds, spread evenly over the file, under the constraint the gateway would set."""
    cases = [case for case in written(HANDWRITTEN) if case.kind in kinds]
    chosen = [cases[index * len(cases) // n] for index in range(min(n, len(cases)))]
    return [
        Ask(
            case.id,
            tokenizer.encode(case.prompt),
            SamplingParams(temperature=temperature, seed=7 + number, max_tokens=MAX_TOKENS),
            constraint_of(case),
        )
        for number, case in enumerate(chosen)
    ]


def free(asks: Sequence[Ask], n_tokens: int, temperature: float = 0.0) -> list[Ask]:
    """The same prompts, answered by text of exactly so many tokens that nothing restricts."""
    return [
        replace(
            ask,
            name=f"{ask.name}, free",
            params=SamplingParams(temperature=temperature, seed=ask.params.seed, max_tokens=n_tokens, ignore_eos=True),
            constraint=None,
        )
        for ask in asks
    ]


def random_prompts(n: int, n_tokens: int, temperature: float, vocab_size: int) -> list[Ask]:
    """Prompts of random tokens, for models of random weights."""
    source = random.Random(3)
    return [
        Ask(
            f"random {number}",
            [source.randrange(300, vocab_size) for _ in range(N_PROMPT)],
            SamplingParams(temperature=temperature, seed=number, max_tokens=n_tokens, ignore_eos=True),
        )
        for number in range(n)
    ]


def grouped(asks: Sequence[Ask], batch: int) -> list[list[Ask]]:
    """Jobs of `batch` requests, each request in one of them, without those that fill no job."""
    return [list(asks[at : at + batch]) for at in range(0, len(asks) - batch + 1, batch)]


def with_drift(answer: Sequence[int], share: float, vocab_size: int, seed: int) -> list[int]:
    """An answer of which a share of the tokens, at least one, is another token."""
    source, drifted = random.Random(seed), list(answer)
    for at in source.sample(range(len(drifted)), max(1, round(share * len(drifted)))):
        drifted[at] = (drifted[at] + source.randrange(1, vocab_size)) % vocab_size
    return drifted


@dataclass(frozen=True, slots=True)
class Edit:
    """A document to write anew with edits. right: what the answer should be; n_new: how many of its tokens are not the
    document's."""

    ask: Ask
    right: tuple[int, ...]
    n_new: int


def edits(tokenizer: Tokenizer, n: int, length: int, between: int, temperature: float = 0.0) -> list[Edit]:
    """n documents of `length` tokens, one edit after every `between` of them on average: a token becomes one to three
    others. The prompt is the document, then of each edit the passage as it shall be, with CONTEXT tokens around it,
    then the first words of the answer.

    Documents are sentences of the hand-written cases, without those that would bring CONTEXT tokens a second time,
    since the model that copies looks no further back. Raises ValueError where there are not enough.
    """
    source, found = random.Random(5), list[Edit]()
    for document in _passages(tokenizer, length):
        if len(found) == n:
            break
        spare = sorted(set(document))
        prompt, seen, right = list(document), list(document), list[int]()
        n_new, done, at = 0, 0, between
        while at < length - CONTEXT:
            before, behind = document[at - CONTEXT : at], document[at + 1 : at + 1 + CONTEXT]
            new = source.sample(spare, source.choice((1, 2, 3)))
            beyond = [*seen, MARK, *before[1:], *new, *behind[:-1]]  # what the edit brings that the document has not
            if _repeats(beyond):
                continue
            seen = beyond
            prompt += [MARK, *before, *new, *behind]
            right += [*document[done:at], *new]
            n_new, done = n_new + len(new), at + 1
            at += source.randrange(between - between // 2, between + between // 2 + 1)
        right += document[done:]
        params = SamplingParams(temperature=temperature, seed=1, max_tokens=len(right) - CONTEXT, ignore_eos=True)
        ask = Ask(f"document {len(found)}", [*prompt, MARK, *document[:CONTEXT]], params)
        found.append(Edit(ask, tuple(right[CONTEXT:]), n_new))
    if len(found) < n:
        raise ValueError(
            f"only {len(found)} documents have {length} tokens and repeat nothing: ask for fewer or shorter ones"
        )
    return found


def _passages(tokenizer: Tokenizer, length: int) -> Iterator[list[int]]:
    passage = list[int]()
    for case in written(HANDWRITTEN):
        longer = [*passage, *tokenizer.encode(case.text + "\n")]
        if _repeats(longer):
            continue
        passage = longer
        if len(passage) >= length:
            yield passage[:length]
            passage = []


def _repeats(tokens: Sequence[int]) -> bool:
    """Whether any CONTEXT tokens come twice, but for those around a MARK."""
    runs = [tuple(tokens[at : at + CONTEXT]) for at in range(len(tokens) - CONTEXT + 1)]
    clear = [run for run in runs if MARK not in run]
    return len(set(clear)) < len(clear)
