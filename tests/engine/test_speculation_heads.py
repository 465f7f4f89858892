"""A proposer from outside that reads the target's hidden states, as Medusa's heads do (Cai et al., 2024)."""

from pathlib import Path

import pytest
import torch

from engine.core import EngineCore
from engine.speculation.config import SpeculationConfig
from engine.speculation.proposer import DraftTree, Situation, Source
from tests.engine.answers import SUBMITS, assert_same
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import MODEL, Seen, build_core, engine_config, instance_of, is_idle, run


class Heads:
    """Two heads on the hidden state that the newest token was drawn from: what may come after that token, two guesses,
    and two more after each. The first is random, the second as well, unless `is_oracle`: then the tree holds what the
    target says next in one of its branches.
    """

    source, wants_hidden = Source.HEADS, True

    def __init__(self, hidden_size: int, vocab_size: int) -> None:
        generator = torch.Generator().manual_seed(5)
        self._heads = torch.randn(2, vocab_size, hidden_size, generator=generator)
        self.right: dict[tuple[int, ...], list[int]] = {}  # by prompt, the answer that one branch is to hold
        self.seen: list[tuple[tuple[int, ...], torch.Tensor]] = []  # tokens, and the state they were given with
        self.n_without = 0

    def propose(self, situation: Situation, budget: int) -> DraftTree:
        if situation.drafted or situation.hidden is None or budget < 2:
            self.n_without += situation.hidden is None
            return DraftTree()
        self.seen.append((tuple(situation.tokens), situation.hidden.clone()))
        [first, second] = (self._heads @ situation.hidden.float()).topk(2).indices.tolist()
        prompt = tuple(situation.tokens[: situation.n_prompt])
        done = len(situation.tokens) - situation.n_prompt
        for level, token in zip((first, second), self.right.get(prompt, [])[done : done + 2], strict=False):
            if token not in level:
                level[1] = token
        tokens, parents = [*first, *second, *second], [-1, -1, 0, 0, 1, 1]
        return DraftTree(tuple(tokens), tuple(parents), (0.6, 0.5, 0.6, 0.5, 0.6, 0.5), (self.source,) * 6)

    def forget(self, request_id: str) -> None:
        """Nothing is kept."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    build_checkpoint(folder, seed=1)
    return folder


@pytest.fixture(scope="module")
def plain(folder: Path) -> dict[str, Seen]:
    return {each.id: run(build_core(engine_config(folder)), each)[0] for each in SUBMITS}


def core_with(folder: Path, heads: Heads, *sources: Source, is_adaptive: bool = False, depth: int = 0) -> EngineCore:
    speculation = SpeculationConfig(sources, is_adaptive=is_adaptive, width=2)
    return build_core(engine_config(folder), proposers={MODEL: [heads]}, speculation=speculation, overlap_depth=depth)


@pytest.mark.parametrize("sources", [(), (Source.FORCED, Source.NGRAM)])
@pytest.mark.parametrize("depth", [0, 1])
def test_trees_of_heads_are_verified_and_change_nothing(
    folder: Path, plain: dict[str, Seen], sources: tuple[Source, ...], depth: int
) -> None:
    heads = Heads(64, 512)
    heads.right = {
        tuple(each.tokens or ()): plain[each.id].finished.token_ids for each in SUBMITS if each.id != "greedy"
    }
    core = core_with(folder, heads, *sources, depth=depth)
    for each, seen in zip(SUBMITS, run(core, *SUBMITS), strict=True):
        assert_same(seen, plain[each.id])
    counts = instance_of(core).counters.drafts[Source.HEADS]
    assert counts.drafted > counts.accepted > 20
    assert is_idle(core)


@pytest.mark.parametrize("is_right", [True, False])
def test_heads_read_the_state_that_the_newest_token_was_drawn_from(
    folder: Path, plain: dict[str, Seen], is_right: bool
) -> None:
    """Whether the tokens before it were drafted or not: the model's own head says that token again."""
    heads = Heads(64, 512)
    asked = [each for each in SUBMITS if each.id in ("greedy", "shared")]
    if is_right:
        heads.right = {tuple(each.tokens or ()): plain[each.id].finished.token_ids for each in asked}
    core = core_with(folder, heads)
    run(core, *asked)
    runner = instance_of(core)._runner
    assert len(heads.seen) > 8
    assert heads.n_without == 0
    for tokens, hidden in heads.seen:
        with torch.inference_mode():
            [logits] = runner.model.logits(hidden[None], runner.kernels)
        assert int(logits.argmax()) == tokens[-1]


def test_no_state_is_kept_where_no_proposer_reads_it(folder: Path) -> None:
    core = build_core(engine_config(folder), speculation=SpeculationConfig())
    assert not instance_of(core)._runner.keeps_hidden


class Madman:
    """Says any numbers."""

    source, wants_hidden = Source.HEADS, False

    def propose(self, situation: Situation, budget: int) -> DraftTree:
        strange = [512, 10**9, -1, -5, 2, 9, 40][len(situation.tokens) % 7]
        return DraftTree((9, strange, 10, strange)[:budget], (-1, 0, 1, -1)[:budget], (0.5,) * 4, (self.source,) * 4)

    def forget(self, request_id: str) -> None:
        """Nothing is kept."""


def test_a_proposer_may_say_any_numbers(folder: Path, plain: dict[str, Seen]) -> None:
    speculation = SpeculationConfig((), is_adaptive=False, width=2)
    core = build_core(engine_config(folder), proposers={MODEL: [Madman()]}, speculation=speculation)
    for each, seen in zip(SUBMITS, run(core, *SUBMITS), strict=True):
        assert_same(seen, plain[each.id])
    assert instance_of(core).counters.drafts[Source.HEADS].drafted > 20
    assert is_idle(core)
