"""A target that knows its answer: how many steps it takes when proposers draft."""

from collections.abc import Callable, Sequence

from engine.speculation.proposer import Proposer, Situation

__all__ = ["steps_of"]


def steps_of(
    proposer: Proposer,
    prompt: Sequence[int],
    answer: Sequence[int],
    budget: int,
    *,
    prediction: Sequence[int] = (),
    forced_text: Callable[[Sequence[int]], bytes] = lambda _: b"",
) -> int:
    """Steps until the target has said `answer`; each gives what was drafted rightly, and one token more.

    forced_text: by the part of the answer that was said, what the grammar forces then.
    """
    tokens, n_steps = list(prompt), 0
    while len(tokens) < len(prompt) + len(answer):
        rest = answer[len(tokens) - len(prompt) :]
        forced = forced_text(tokens[len(prompt) :])
        tree = proposer.propose(Situation("dictated", tokens, len(prompt), (), prediction, forced), budget)
        assert len(tree) <= budget
        right = 0
        while right < min(len(tree), len(rest)) and tree.tokens[right] == rest[right]:
            right += 1
        tokens += rest[: right + 1]
        n_steps += 1
    proposer.forget("dictated")
    return n_steps
