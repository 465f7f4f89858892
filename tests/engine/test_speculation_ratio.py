"""Verification by ratio over a real model, against all answers and their probabilities."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from engine.speculation.config import SpeculationConfig
from engine.speculation.proposer import Source
from tests.engine.answers import SHARED
from tests.engine.checkpoints import END_ID
from tests.engine.drafted import Checkpoints, build_checkpoints, config_of, drafted_core
from tests.engine.harness import build_core, instance_of, run, submit
from tests.engine.recorder import Recorder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    return build_checkpoints(tmp_path_factory.mktemp("speculation"))


@pytest.mark.parametrize("width", [1, 2])
def test_ratio_verification_keeps_the_distribution_of_answers(folders: Checkpoints, width: int) -> None:
    """20, over all answers of four tokens that a top_k of 2 leaves: the seed's tokens change, their frequencies do
    not."""
    n, prompt = 2000, SHARED[:7]
    params: dict[str, Any] = {"max_tokens": 4, "temperature": 1.5, "top_k": 2, "ignore_eos": True}
    speculation = SpeculationConfig(
        (Source.DRAFT_MODEL,), verification="ratio", is_adaptive=False, max_draft=3, width=width
    )
    core = drafted_core(
        folders, speculation, "near", limits={"n_blocks": 400, "max_waiting_requests": n}, small={"n_blocks": 400}
    )
    seen = run(core, *[submit(str(seed), prompt, seed=seed, **params) for seed in range(n)])
    counts = Counter(tuple(each.finished.token_ids) for each in seen)
    expected = probabilities(folders, prompt)
    assert counts.keys() <= expected.keys()
    drafts = instance_of(core).counters.drafts["draft_model"]
    assert drafts.drafted - drafts.accepted > 50, "drafts were rejected"
    statistic = sum((counts[answer] - n * p) ** 2 / (n * p) for answer, p in expected.items() if n * p >= 5)
    assert statistic < 45, "of 15 degrees of freedom, where one in ten thousand is above 45"


def probabilities(folders: Checkpoints, prompt: Sequence[int]) -> dict[tuple[int, ...], float]:
    """Of each answer of four tokens, by the model's own logits."""
    core = build_core(config_of(folders.target))
    found: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(4):
        recorder, longer = Recorder(core), dict[tuple[int, ...], float]()
        for answer, p in found.items():
            run(core, submit(str(answer), [*prompt, *answer], max_tokens=1, ignore_eos=True))
            [logits] = recorder.of(str(answer)).values()
            logits[END_ID] = float("-inf")
            best = logits.topk(2)
            for token, share in zip(best.indices.tolist(), (best.values / 1.5).softmax(0).tolist(), strict=True):
                longer[*answer, token] = p * share
        found = longer
    return found
