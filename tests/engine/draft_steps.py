"""Steps of draws without a model: logits are a function of the tokens before them, and so are masks."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from engine.detokenizer import IncrementalDecoder
from engine.draws import StepDraws
from engine.generation import Generation
from engine.guarded_matcher import GuardedMatcher, TokenMatcher
from engine.plan import Row, StepPlan
from engine.request import Request, SamplingParams
from engine.sampler import Sampler
from engine.speculation.config import Verification
from engine.speculation.draft import Draft
from engine.speculation.proposer import DraftTree, Source
from kernels import kernels_for

VOCAB = 40
END = 3
CPU = torch.device("cpu")
Logits = Callable[[tuple[int, ...]], torch.Tensor]


class Letters:
    """A tokenizer of one letter a token."""

    def push(self, tokens: Sequence[int]) -> str:
        return "".join(chr(97 + token) for token in tokens)

    def flush(self) -> str:
        return ""


def random_logits_of(seed: int, vocab: int = VOCAB, sharpness: float = 2.0) -> Logits:
    """A model without reason: other tokens before, other logits."""
    known: dict[tuple[int, ...], torch.Tensor] = {}

    def logits(tokens: tuple[int, ...]) -> torch.Tensor:
        if tokens not in known:
            generator = torch.Generator().manual_seed(random.Random(f"{seed} {tokens}").getrandbits(60))
            known[tokens] = torch.randn(vocab, generator=generator) * sharpness
        return known[tokens]

    return logits


class ScatteredLanguage:
    """A matcher whose masks follow from the tokens so far, without any system; the end may come anywhere."""

    def __init__(self, seed: int, share: float = 0.4) -> None:
        self._seed, self._share = seed, share
        self.taken: list[int] = []

    def allowed(self) -> set[int]:
        if self.is_terminated:
            return set()
        chance = random.Random(f"{self._seed} {self.taken}")
        return {token for token in range(VOCAB) if chance.random() < self._share} | {5}

    def fill_mask(self, row: torch.Tensor) -> None:
        row.zero_()
        for token in self.allowed():
            row.numpy().view(np.uint32)[token // 32] |= np.uint32(1 << token % 32)

    def advance(self, token_id: int) -> bool:
        if token_id not in self.allowed():
            return False
        self.taken.append(token_id)
        return True

    def rollback(self, n: int) -> None:
        assert 0 <= n <= len(self.taken)
        del self.taken[len(self.taken) - n :]

    def forced(self) -> int | None:
        return None

    def forced_bytes(self) -> bytes:
        return b""

    def trial(self, tail: Sequence[int]) -> tuple[torch.Tensor, int]:
        rows, n = [torch.zeros(2, dtype=torch.int32)], 0
        self.fill_mask(rows[0])
        for token in tail:
            if not self.advance(token):
                break
            n += 1
            rows.append(torch.zeros(2, dtype=torch.int32))
            self.fill_mask(rows[-1])
        self.rollback(n)
        return torch.stack(rows), n

    @property
    def is_complete(self) -> bool:
        return True

    @property
    def is_terminated(self) -> bool:
        return bool(self.taken) and self.taken[-1] == END


@dataclass
class Stepper:
    """Runs the draws of some requests, step by step."""

    logits: Logits
    vocab: int = VOCAB
    verification: Verification = "coupled"
    generations: dict[str, Generation] = field(default_factory=dict)
    n_steps: int = 0

    def __post_init__(self) -> None:
        self.sampler = Sampler(kernels_for(CPU), self.vocab, CPU, 8)

    def add(
        self, name: str, prompt: Sequence[int], *, seed: int = 0, matcher: TokenMatcher | None = None, **params: Any
    ) -> Generation:
        request = Request(name, list(prompt), n_prompt=len(prompt))
        guarded = None if matcher is None else GuardedMatcher(matcher, frozenset([END]), self.vocab, slow_mask_s=60)
        made: Any = Letters()
        decoder: IncrementalDecoder = made
        generation = Generation(
            name,
            request,
            SamplingParams(**params),
            seed=seed,
            decoder=decoder,
            end_ids=frozenset([END]),
            window=200,
            matcher=guarded,
        )
        self.generations[name] = generation
        return generation

    def step(self, drafts: Mapping[str, Draft] | None = None, cut: int | None = None) -> StepDraws:
        """One step of all requests that are not over. cut: nodes of each draft that the step has room for."""
        rows, flat = [], list[torch.Tensor]()
        for name, generation in self.generations.items():
            if generation.reason is not None:
                continue
            request, draft = generation.request, (drafts or {}).get(name)
            generation.draft = draft
            request.tail = [] if draft is None else list(draft.tree.tokens[:cut])
            request.tail_parents = [] if draft is None or draft.tree.is_chain else list(draft.tree.parents)
            parents = () if draft is None else draft.tree.parents[:cut]
            n_tail, known = len(request.tail), tuple(request.tokens)
            tokens = (known[-1], *request.tail)
            rows.append(Row(name, len(known) - 1, tokens, (), 1 + n_tail, parents=tuple(request.tail_parents[:n_tail])))
            paths = [known]
            for token, parent in zip(request.tail, parents, strict=True):
                paths.append((*paths[parent + 1], token))
            flat += [self.logits(path) for path in paths]
        self.n_steps += 1
        requests = {name: generation.request for name, generation in self.generations.items()}
        plan = StepPlan(self.n_steps, tuple(rows))
        draws = StepDraws(plan, requests, self.generations, {}, self.sampler, self.verification)
        draws.fill_masks()
        draws.draw(torch.stack(flat) if flat else torch.zeros(0, self.vocab))
        draws.read()
        draws.accept()
        for generation in self.generations.values():
            generation.request.tokens += generation.uncommitted()
        return draws

    def finish(self) -> None:
        """Step without drafts until all is over."""
        while any(generation.reason is None for generation in self.generations.values()):
            self.step()


def draft_of(tokens: Sequence[int], parents: Sequence[int], masks: np.ndarray | None = None) -> Draft:
    """A draft of two sources in turn."""
    n = len(tokens)
    sources = tuple((Source.NGRAM, Source.DRAFT_MODEL)[node % 2] for node in range(n))
    return Draft(DraftTree(tuple(tokens), tuple(parents), (0.5,) * n, sources), masks)
