"""Small worlds with a known truth: prompts whose text and prefill state say which model gets them right."""

import numpy as np

from router_model.facts import RequestFacts
from router_model.forest import ForestSize
from router_model.outcomes import Outcome
from router_model.prefill import PrefillState
from router_model.training import TrainingOptions

QUICK = TrainingOptions(l2_grid=(30.0,), forest=ForestSize(n_trees=8, min_leaf=10))
"""For tests that need a router, but not a good one."""

TOPICS = ("weather", "calendar", "finance", "travel", "recipes", "music")


def make_outcomes(n: int, *, with_state: bool, seed: int = 0, is_shifted: bool = False) -> list[Outcome]:
    """Outcomes whose difficulty (0 to 1) shows in the text's length, in the number of tools and in the state's first
    number.

    The small model is right with probability 0.95 - 0.7 * difficulty, the large one with 0.97 - 0.1 * difficulty.
    is_shifted moves every state and every text far from where it was.
    """
    rng = np.random.default_rng(seed)
    outcomes = []
    for i in range(n):
        difficulty = rng.random()
        topic = TOPICS[int(rng.integers(len(TOPICS)))]
        clauses = [f"check the {topic} for day {rng.integers(30)}" for _ in range(1 + int(4 * difficulty))]
        text = " and then ".join(clauses)
        state = None
        if with_state:
            values = rng.normal(size=(2, 2, 8)).astype(np.float32) + (8 if is_shifted else 0)
            values[:, :, 0] += 6 * difficulty
            state = PrefillState(values, entropy=1 + difficulty, margin=3 - difficulty)
        if is_shifted:
            text = " ".join("".join(chr(0x430 + int(c)) for c in rng.integers(0, 32, 9)) for _ in range(60))
        outcomes.append(
            Outcome(
                id=f"row-{seed}-{i}",
                group=f"group-{seed}-{i // 2}",
                text=text,
                weak_score=float(rng.random() < 0.95 - 0.7 * difficulty),
                strong_score=float(rng.random() < 0.97 - 0.1 * difficulty),
                facts=RequestFacts(n_tools=1 + int(5 * difficulty), prompt_tokens=40),
                state=state,
                small_tokens=int(10 + 40 * difficulty),
                large_tokens=int(20 + 60 * difficulty),
            )
        )
    return outcomes
