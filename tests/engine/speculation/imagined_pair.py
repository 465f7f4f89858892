"""A target and its draft model on an imagined machine: seconds are sums, tokens are accepted by the throw of a coin."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from engine.chunk_limit import Shape
from engine.cost_model import CostModel
from engine.speculation.acceptance import Trust
from engine.speculation.controller import Controller
from engine.speculation.proposer import Source
from tests.engine.costs import linear_cost_model

__all__ = ["Coin", "ImaginedPair", "Yield"]

Coin = Callable[[int, random.Random], tuple[float, float]]
"""From a step's index: how sure the draft model is of a node, and how probable its acceptance is."""
MOST_ROUNDS = 16


@dataclass(slots=True)
class Yield:
    """What came of a series of steps."""

    tokens: int = 0
    seconds: float = 0.0
    nodes: int = 0
    rounds: int = 0
    probes: int = 0

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True)
class ImaginedPair:
    """Seconds of a step of the target and of a round of the draft model, and what they are each time off (noise: its
    standard deviation as a share)."""

    step_s: float = 0.010
    token_s: float = 0.0002
    host_s: float = 0.0005
    host_node_s: float = 0.00002
    round_s: float = 0.001
    round_row_s: float = 0.00005
    noise: float = 0.05

    def cost_model(self) -> CostModel:
        """Of the target, calibrated to what it takes here."""
        model = linear_cost_model()
        plans = [[Shape(start, 1, 1)] * n for n in (1, 2, 4, 8, 40) for start in (1, 99)]
        plans += [[Shape(start, n, n_logits)] for n in (2, 4, 16, 64) for start in (0, 100) for n_logits in (0, 1)]
        model.calibrate([(model.step(plan), self.forward_s(sum(row.n for row in plan))) for plan in plans])
        return model

    def forward_s(self, n_tokens: int) -> float:
        """Of the target's forward pass."""
        return self.step_s + self.token_s * n_tokens

    def verify_s(self, n_streams: int, n_nodes: int) -> float:
        """Of a whole step of the target."""
        return self.forward_s(n_streams + n_nodes) + self.host_s + self.host_node_s * n_nodes

    def drafting_s(self, n_rows: int) -> float:
        """Of a round."""
        return self.round_s + self.round_row_s * n_rows

    def fixed_rate(self, n_streams: int, length: int, p: float) -> float:
        """Tokens per second with chains of one length whose nodes are accepted with probability p (Leviathan, Kalman
        and Matias, 2023, "Fast Inference from Transformers via Speculative Decoding")."""
        tokens = n_streams * sum(p**k for k in range(length + 1))
        return tokens / (self.verify_s(n_streams, n_streams * length) + length * self.drafting_s(n_streams))

    def best_rate(self, n_streams: int, p: float) -> float:
        """With the best length, none included."""
        return max(self.fixed_rate(n_streams, length, p) for length in range(MOST_ROUNDS + 1))

    def controller(self) -> Controller:
        """One that has seen no step here, and takes the draft model for twice as fast as it is."""
        return Controller(self.cost_model(), lambda n_rows, n_tokens: 0.5 * self.drafting_s(max(n_rows, n_tokens)))

    def run(
        self,
        controller: Controller,
        coin: Coin,
        *,
        n_streams: int,
        n_steps: int,
        rng: random.Random,
        surprise_s: Callable[[int], float] | None = None,
    ) -> Yield:
        """Drafts and verifies as the controller says. surprise_s: seconds of a forward pass that nobody predicted, from
        its nodes."""
        total, trusts = Yield(), [Trust() for _ in range(n_streams)]
        rows, acceptance = [Shape(100, 1, 1)] * n_streams, controller.acceptance

        def off() -> float:
            return max(0.5, rng.gauss(1.0, self.noise))

        for step in range(n_steps):
            outlook, seconds, n_rounds, is_probe = controller.outlook(rows, n_streams), 0.0, 0, False
            drafting, reaches = list(range(n_streams)), [1.0] * n_streams
            nodes: list[tuple[int, float, float]] = []
            while drafting and n_rounds < MOST_ROUNDS:
                gain = sum(reaches[i] * acceptance.expected(Source.DRAFT_MODEL, trusts[i]) for i in drafting)
                round_s = controller.round_seconds(len(drafting), len(drafting), 0)
                if not outlook.worth(gain, round_s, n_nodes=len(drafting)):
                    one = step % n_streams
                    gain = acceptance.expected(Source.DRAFT_MODEL, trusts[one])
                    loss_s = outlook.loss(gain, controller.round_seconds(1, 1, 0), n_nodes=1)
                    is_probe = n_rounds == 0 and controller.may_probe(loss_s)
                    if not is_probe:
                        break
                    drafting = [one]
                    total.probes += 1
                n_rounds += 1
                measured = self.drafting_s(len(drafting)) * off()
                outlook.spend(measured)
                controller.observe_round(len(drafting), len(drafting), 0, measured)
                seconds += measured
                kept = []
                for i in drafting:
                    belief, p = coin(step, rng)
                    reach = reaches[i] * acceptance.estimate(Source.DRAFT_MODEL, belief, trusts[i])
                    if is_probe:
                        outlook.add(reach, is_masked=False)
                    elif not outlook.take(reach, is_masked=False):
                        continue
                    reaches[i] = reach
                    kept.append(i)
                    nodes.append((i, belief, p))
                drafting = [] if is_probe else kept
                if is_probe:
                    break
            if not outlook.pays and not is_probe:
                outlook.drop()
                nodes = []
            host_s = (self.host_s + self.host_node_s * len(nodes)) * off()
            forward_s = self.forward_s(n_streams + len(nodes)) * off()
            if surprise_s is not None:
                forward_s += surprise_s(len(nodes))
            seconds += host_s + forward_s
            controller.observe_step(n_streams, len(nodes), 0, host_s)
            controller.observe_outcome(outlook, seconds)
            is_open = [True] * n_streams
            for i, belief, p in nodes:
                if is_open[i]:
                    is_open[i] = rng.random() < p
                    acceptance.observe(Source.DRAFT_MODEL, belief, is_open[i], trusts[i])
                    total.tokens += is_open[i]
            total.tokens += n_streams
            total.seconds += seconds
            total.nodes += len(nodes)
            total.rounds += n_rounds
        return total
