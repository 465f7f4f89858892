"""What the coming step is expected to yield and to take, and what still pays in it."""

from dataclasses import dataclass

__all__ = ["Outlook", "StepPrices", "Unlimited"]

MARGIN = 1.03
"""How many times its seconds an increment must be worth: predictions err, and drafts must not make anything slower."""

LEAST_LOSS = 0.1
"""The share of what a probe takes that is taken for lost even where it seems to pay nearly."""


@dataclass(frozen=True, slots=True)
class StepPrices:
    """What is added to the seconds of a step of the target. few_s, many_s: by a node that is one of the first n_few,
    and by one after them; mask_s: by the mask of a node, beside that; entry_s: by having any node at all.
    surcharge, surcharge_s: what the others were multiplied by, and what was added to entry_s (`Surcharge`).
    """

    few_s: float
    many_s: float
    n_few: int = 0
    mask_s: float = 0.0
    entry_s: float = 0.0
    surcharge: float = 1.0
    surcharge_s: float = 0.0

    def nodes_s(self, n_before: int, n: int, n_masked: int) -> float:
        """Of n nodes more, n_masked of them with a mask, where there are n_before; without entry_s."""
        n_few = min(n, max(0, self.n_few - n_before))
        return n_few * self.few_s + (n - n_few) * self.many_s + n_masked * self.mask_s


class Outlook:
    """The coming step by prediction. tokens: expected yield, at first one for each stream; seconds: how long it will
    take, at first without drafts. Both grow by what is added.

    Tokens per second are a ratio, which the greatest sum of tokens does not make the greatest: an increment pays if and
    only if what it yields per second is more than the whole yields per second without it (Dinkelbach, 1967, "On
    nonlinear fractional programming"). A token that is accepted now need not be computed in the next steps, so what it
    is worth is the rate of those, too: `recent` tokens in so many seconds, which are added to both sides.

    plain_tokens, plain_s: what both began with. n_nodes: nodes to verify, n_masked of them under a mask of their own.
    drafting_s: seconds that were spent on finding them.
    """

    __slots__ = (
        "_recent_s", "_recent_tokens", "drafting_s", "n_masked", "n_nodes", "plain_s", "plain_tokens", "prices",
        "seconds", "tokens",
    )  # fmt: skip

    def __init__(
        self, tokens: float, seconds: float, prices: StepPrices, recent: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        self.tokens = self.plain_tokens = tokens
        self.seconds = self.plain_s = seconds
        self.prices = prices
        self._recent_tokens, self._recent_s = recent
        self.n_nodes = self.n_masked = 0
        self.drafting_s = 0.0

    def take(self, reach: float, *, is_masked: bool) -> bool:
        """Add a node to verify if it pays. reach: the probability that it is accepted, the product along its path."""
        seconds = self._node_s(is_masked)
        if reach * (self.seconds + self._recent_s) <= MARGIN * seconds * (self.tokens + self._recent_tokens):
            return False
        self._add(reach, seconds, is_masked)
        return True

    def add(self, reach: float, *, is_masked: bool) -> None:
        """Add a node whether it pays or not: one that must be verified, or that a probe is to observe."""
        self._add(reach, self._node_s(is_masked), is_masked)

    def worth(self, gain: float, seconds: float, *, n_nodes: int = 0, n_masked: int = 0) -> bool:
        """Whether `gain` more expected tokens pay for `seconds` and for the verification of n_nodes nodes, of which
        n_masked have a mask: those that a round of the draft model is to bring. Adds nothing."""
        seconds = self._with_nodes(seconds, n_nodes, n_masked)
        return gain * (self.seconds + self._recent_s) > MARGIN * seconds * (self.tokens + self._recent_tokens)

    def loss(self, gain: float, seconds: float, *, n_nodes: int = 0, n_masked: int = 0) -> float:
        """Seconds that the same would lose, by expectation: what `Controller.may_probe` is to be asked for. A part of
        them at the least, since it is the expectation that is in doubt."""
        seconds = self._with_nodes(seconds, n_nodes, n_masked)
        saved_s = gain * (self.seconds + self._recent_s) / (self.tokens + self._recent_tokens)
        return max(LEAST_LOSS * seconds, seconds - saved_s)

    def least_reach(self, *, is_masked: bool) -> float:
        """The reach above which a node pays now; where it is 1 or more, nobody needs to be asked for any."""
        price = self._node_s(is_masked)
        return MARGIN * price * (self.tokens + self._recent_tokens) / (self.seconds + self._recent_s)

    def spend(self, seconds: float) -> None:
        """Count seconds that went into finding nodes, as measured: a round of the draft model."""
        self.seconds += seconds
        self.drafting_s += seconds

    @property
    def pays(self) -> bool:
        """Whether verifying what was added beats leaving it all out (then call `drop`). No single node is charged with
        what having any costs, so that many small gains can pay for it together."""
        return self.tokens * (self.plain_s + self.drafting_s) >= self.plain_tokens * self.seconds

    def drop(self) -> None:
        """Leave all nodes out. What was spent on finding them stays spent."""
        self.tokens, self.seconds = self.plain_tokens, self.plain_s + self.drafting_s
        self.n_nodes = self.n_masked = 0

    def _add(self, reach: float, seconds: float, is_masked: bool) -> None:
        if not self.n_nodes:
            seconds += self.prices.entry_s
        self.tokens += reach
        self.seconds += seconds
        self.n_nodes += 1
        self.n_masked += is_masked

    def _with_nodes(self, seconds: float, n_nodes: int, n_masked: int) -> float:
        if n_nodes and not self.n_nodes:
            seconds += self.prices.entry_s
        return seconds + self.prices.nodes_s(self.n_nodes, n_nodes, n_masked)

    def _node_s(self, is_masked: bool) -> float:
        prices = self.prices
        seconds = prices.few_s if self.n_nodes < prices.n_few else prices.many_s
        return seconds + prices.mask_s if is_masked else seconds


class Unlimited(Outlook):
    """Takes everything and finds that it pays: for drafts that are as long and as wide as they may be."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(0.0, 0.0, StepPrices(0.0, 0.0))

    def take(self, reach: float, *, is_masked: bool) -> bool:
        """Add a node."""
        self.add(reach, is_masked=is_masked)
        return True

    def worth(self, gain: float, seconds: float, *, n_nodes: int = 0, n_masked: int = 0) -> bool:  # noqa: ARG002
        """True."""
        return True

    def loss(self, gain: float, seconds: float, *, n_nodes: int = 0, n_masked: int = 0) -> float:  # noqa: ARG002
        """0.0."""
        return 0.0

    def least_reach(self, *, is_masked: bool) -> float:  # noqa: ARG002
        """0.0."""
        return 0.0

    @property
    def pays(self) -> bool:
        """True."""
        return True
