"""Decides what to draft: nothing that would make answers slower."""

from collections.abc import Callable, Sequence
from math import inf
from operator import mul

from engine.chunk_limit import Shape
from engine.cost_model import FEW_TOKENS, CostModel, RowShape, StepCost
from engine.speculation.acceptance import Acceptance
from engine.speculation.outlook import MARGIN, Outlook, StepPrices
from engine.speculation.proposer import MAX_NODES, Source
from engine.speculation.surcharge import Surcharge
from engine.time_fit import TimeFit

__all__ = ["Controller"]

HALF_LIFE_STEPS = 200.0
GUESSED_STEP_S, GUESSED_ROW_S, GUESSED_ENTRY_S, GUESSED_NODE_S, GUESSED_MASK_S = 50e-6, 20e-6, 5e-6, 5e-6, 20e-6
"""Of the host, until steps are measured: a step, each of its rows, having nodes, each node, and each mask of a node."""
ANCHOR_STEPS = 4.0
"""Steps that the guesses count for, for ever: enough to tell terms apart that no step has varied yet."""
OUTLIER = 4.0
"""Times its prediction that a measurement counts for at most: on a busy machine a single step may take fifty times as
long, which says nothing of the next one."""
RECENT_DECAY = 0.5 ** (1 / 8)
RECENT_WEIGHT = 0.5
"""Of recent steps beside the coming one, in what a token is worth. Half of a sum over some twelve steps did best where
easy and hard stretches of 20 steps alternate: 3 to 8 % more tokens per second than with the coming step alone."""
GUESSED_ANSWER, ANSWER_DECAY = 128.0, 0.5 ** (1 / 64)
"""Tokens of an answer before any is over, and how fast the mean of those that are forgets."""
PROBED_SHARE = 0.003
"""Of all time, what may be lost with drafts that do not seem to pay."""
FIRST_PROBES_STEPS = 2.0
"""Steps whose seconds are there for them from the start, when nothing is known."""
MOST_PROBES_S = 1.0
"""What is saved up for them at most, so that a change of load never meets a long series of them."""


class Controller:
    """Predicts what drafts cost and bring, and learns from every step.

    cost_model: of the target; whoever owns it lets it observe forward passes. draft_guess_s: seconds of a forward pass
    of the draft model by its own cost model, from (n_rows, n_tokens); None without a draft model.

    In a step: `outlook`, then nodes and rounds are taken, then `observe_step` for what the step took beside its forward
    pass, `observe_round` for each round of the draft model, `observe_outcome` for what all of it took.
    """

    def __init__(self, cost_model: CostModel, draft_guess_s: Callable[[int, int], float] | None = None) -> None:
        self.acceptance = Acceptance()
        self._cost_model, self._draft_guess_s = cost_model, draft_guess_s
        self._one = cost_model.step([Shape(0, 1, 1)])
        self._host, self._round = _host_fit(), _round_fit(draft_guess_s)
        self._surcharge = Surcharge()
        self._recent_tokens = self._recent_s = 0.0  # of recent steps, in units of the same steps without drafts
        self._answer_tokens = GUESSED_ANSWER
        self._probes_s: float | None = None  # until the first step

    def outlook(self, rows: Sequence[RowShape], n_streams: int) -> Outlook:
        """The coming step without drafts. rows: all rows that it will have; n_streams: those that yield a token."""
        cost = self._cost_model.step(rows)
        seconds = self._cost_model.seconds(cost) + self._host.predict((1.0, float(cost.n_rows), 0.0, 0.0, 0.0))
        if self._probes_s is None:
            self._probes_s = FIRST_PROBES_STEPS * seconds
        elif self._probes_s < MOST_PROBES_S:
            self._probes_s += PROBED_SHARE * seconds
        recent = (self._recent_tokens * n_streams, self._recent_s * seconds)
        return Outlook(float(n_streams), seconds, self._prices(cost, seconds), recent)

    def observe_step(self, n_rows: int, n_nodes: int, n_masked_nodes: int, host_s: float) -> None:
        """Learn what a step of the target took beside its forward pass: draws, masks, acceptance, bookkeeping."""
        features = (1.0, float(n_rows), float(n_nodes > 0), float(n_nodes), float(n_masked_nodes))
        self._host.observe(features, min(host_s, OUTLIER * self._host.predict(features)))

    def observe_outcome(self, outlook: Outlook, seconds: float) -> None:
        """Learn how long a step took in all, the rounds that were spent in it included. Only for steps whose rows were
        those of the outlook and whose tails were not cut: a prompt that joined would be taken for the cost of drafts.
        """
        plain_tokens, plain_s = outlook.plain_tokens, outlook.plain_s
        if plain_tokens <= 0.0 or plain_s <= 0.0:
            return
        self._recent_tokens = RECENT_WEIGHT * outlook.tokens / plain_tokens + RECENT_DECAY * self._recent_tokens
        self._recent_s = RECENT_WEIGHT * outlook.seconds / plain_s + RECENT_DECAY * self._recent_s
        prices, drafting_s, nodes_s = outlook.prices, outlook.drafting_s, 0.0
        if outlook.n_nodes:
            nodes_s = (outlook.seconds - plain_s - drafting_s - prices.surcharge_s) / prices.surcharge
        self._surcharge.observe(plain_s, nodes_s + drafting_s, seconds)

    def round_seconds(self, n_rows: int, n_tokens: int, n_masked: int) -> float:
        """Seconds of one round of the draft model: n_tokens tokens of n_rows requests, a draw for each row, n_masked of
        them under a mask; infinite where there is no draft model."""
        if self._draft_guess_s is None:
            return inf
        features = (self._draft_guess_s(n_rows, n_tokens), 1.0, float(n_rows), float(n_masked))
        return self._round.predict(features) * self._surcharge.factor

    def observe_round(self, n_rows: int, n_tokens: int, n_masked: int, seconds: float) -> None:
        """Learn what a round took, all in all."""
        if self._draft_guess_s is not None:
            features = (self._draft_guess_s(n_rows, n_tokens), 1.0, float(n_rows), float(n_masked))
            self._round.observe(features, min(seconds, OUTLIER * self._round.predict(features)))

    def worth_catching_up(self, n_tokens: int, n_left: int, n_streams: int) -> bool:
        """Whether the draft model should compute n_tokens tokens of a request, so that it can draft for it. n_left:
        tokens that the answer may still have at most; n_streams: requests that yield tokens with it, itself included.

        It is an investment into the rest of the answer, which saves the difference between the seconds of a token
        without drafts and with chains of the best length. The other streams are taken to be like this one: they share
        the seconds of steps and rounds in both cases.
        """
        price_s = self.round_seconds(1, n_tokens, 0)
        if price_s == inf:
            return False
        n_streams = max(1, n_streams)
        one = self._cost_model.step([Shape(n_tokens, 1, 1)])
        cost = StepCost._make(n_streams * x for x in one)._replace(weight_bytes=one.weight_bytes)
        plain_s = self._cost_model.seconds(cost) + self._host.predict((1.0, float(n_streams), 0.0, 0.0, 0.0))
        prices, round_s = self._prices(cost, plain_s), self.round_seconds(n_streams, n_streams, 0)
        p = self.acceptance.expected(Source.DRAFT_MODEL)
        drafted_s, tokens, reach = inf, 1.0, 1.0  # seconds per token of one stream's step
        for length in range(1, MAX_NODES + 1):
            reach *= p
            tokens += reach
            nodes_s = prices.entry_s + prices.nodes_s(0, length * n_streams, 0)
            token_s = (plain_s + length * round_s + nodes_s) / tokens
            if token_s >= drafted_s:
                break  # gains shrink from node to node while costs do not: behind the best length there is no better
            drafted_s = token_s
        # What the other sources achieve without a draft model is there already.
        plain_s /= max(1.0, self._recent_tokens / self._recent_s) if self._recent_s else 1.0
        expected_left = min(float(n_left), self._answer_tokens)
        return expected_left * (plain_s - drafted_s) / n_streams > MARGIN * price_s

    def observe_answer(self, n_tokens: int) -> None:
        """Learn how long answers are, from one that is over."""
        self._answer_tokens += (1.0 - ANSWER_DECAY) * (n_tokens - self._answer_tokens)

    def may_probe(self, seconds: float) -> bool:
        """Whether the draft model may work for `seconds` although it does not seem to pay, so that its acceptance is
        seen now and then: of bad luck that nobody looks at again it would never recover. Counts them as spent where it
        says so."""
        if self._probes_s is None or seconds > self._probes_s:
            return False
        self._probes_s -= seconds
        return True

    def _prices(self, cost: StepCost, plain_s: float) -> StepPrices:
        """Of nodes in a step of this cost, which takes plain_s without. The forward pass is a sum of terms of which one
        ends at FEW_TOKENS, so two differences say it all."""
        n_few, factor, host = max(0, FEW_TOKENS - cost.n_tokens), self._surcharge.factor, self._host.coefficients
        surprise_s = self._surcharge.entry * plain_s
        one, attention_flops = self._one, cost.attention_flops / max(1, cost.n_tokens)

        def seconds(n: int) -> float:
            """Of the forward pass with n nodes. They attend as far as other tokens do, and each page is as likely as
            any other to begin with one."""
            more = StepCost(
                n_rows=cost.n_rows,
                n_tokens=cost.n_tokens + n,
                n_logits=cost.n_logits + n,
                linear_flops=cost.linear_flops + n * one.linear_flops,
                attention_flops=cost.attention_flops + n * attention_flops,
                weight_bytes=cost.weight_bytes,
                embedding_bytes=cost.embedding_bytes,
                kv_read_bytes=cost.kv_read_bytes + n * one.kv_written_bytes,
                kv_written_bytes=cost.kv_written_bytes,
                logits_bytes=cost.logits_bytes,
            )
            return self._cost_model.seconds(more)

        behind_s = seconds(n_few)
        many_s = seconds(n_few + 1) - behind_s
        few_s = (behind_s - seconds(0)) / n_few if n_few else many_s
        return StepPrices(
            few_s=factor * (few_s + host[3]),
            many_s=factor * (many_s + host[3]),
            n_few=n_few,
            mask_s=factor * host[4],
            entry_s=factor * host[2] + surprise_s,
            surcharge=factor,
            surcharge_s=surprise_s,
        )


def _host_fit() -> TimeFit:
    """Terms: a step, its rows, whether it has nodes, the nodes, their masks."""
    fit = TimeFit(5, HALF_LIFE_STEPS)
    guesses = (GUESSED_STEP_S, GUESSED_ROW_S, GUESSED_ENTRY_S, GUESSED_NODE_S, GUESSED_MASK_S)
    shapes = ((1, 0, 0), (8, 0, 0), (1, 1, 0), (1, 8, 0), (1, 8, 8), (8, 8, 8), (8, 64, 0))
    steps = [(1.0, float(n_rows), float(n > 0), float(n), float(n_masked)) for n_rows, n, n_masked in shapes]
    fit.anchor([(step, sum(map(mul, step, guesses))) for step in steps], ANCHOR_STEPS)
    return fit


def _round_fit(guess_s: Callable[[int, int], float] | None) -> TimeFit:
    """Terms: the forward pass by the draft model's cost model, a round, its rows, their masks."""
    fit = TimeFit(4, HALF_LIFE_STEPS)
    if guess_s is not None:
        guesses = (1.0, GUESSED_STEP_S, GUESSED_ROW_S, GUESSED_MASK_S)
        shapes = ((1, 1, 0), (1, 1, 1), (1, 64, 0), (8, 8, 0), (8, 8, 8))
        rounds = [(guess_s(n_rows, n), 1.0, float(n_rows), float(n_masked)) for n_rows, n, n_masked in shapes]
        fit.anchor([(features, sum(map(mul, features, guesses))) for features in rounds], ANCHOR_STEPS)
    return fit
