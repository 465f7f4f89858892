"""How likely a proposed token is to be accepted, learned from those that were."""

from bisect import bisect_right

from engine.speculation.proposer import Source

__all__ = ["Acceptance", "Trust"]

EDGES = (0.05, 0.2, 0.4, 0.6, 0.75, 0.85, 0.92, 0.97, 0.995)
"""Where the bins of belief end. They are finer towards 1: a long path is the product of many beliefs."""
PRIOR = 4.0
"""Observations that a proposer's own belief counts for in each bin, for ever."""
DECAY = 0.5 ** (1 / 128)
"""Of a bin and of a source's mean, at each observation."""
MEAN_PRIOR = 0.6
"""Mean acceptance of a source that nothing is known of."""
TRUST_PRIOR = 8.0
"""Observations by which a request is taken for one like all others."""
TRUST_DECAY = 0.5 ** (1 / 64)


class Trust:
    """How one request treats one source: what it accepted beside what was expected of it. Starts as all others do.

    n: observations, accepted: how many of them were, expected: how many should have been; all fade.
    """

    __slots__ = ("accepted", "expected", "n")

    def __init__(self) -> None:
        self.n = self.accepted = self.expected = 0.0

    def adjust(self, probability: float) -> float:
        """The probability for all requests, as it is for this one.

        Of a request that accepts less than expected the acceptances are scaled by observed / expected, of one that
        accepts more the rejections: so it never leaves 0 to 1, and never reaches 1 because of a lucky run.
        """
        accepted, expected = self.accepted, self.expected
        if accepted < expected:
            return probability * (accepted + TRUST_PRIOR) / (expected + TRUST_PRIOR)
        n = self.n
        return 1.0 - (1.0 - probability) * (n - accepted + TRUST_PRIOR) / (n - expected + TRUST_PRIOR)

    def observe(self, probability: float, is_accepted: bool) -> None:
        """Learn from a node that had this probability for all requests."""
        self.n = self.n * TRUST_DECAY + 1.0
        self.accepted = self.accepted * TRUST_DECAY + is_accepted
        self.expected = self.expected * TRUST_DECAY + probability


class _Share:
    """How many of the recent observations were acceptances."""

    __slots__ = ("accepted", "n")

    def __init__(self) -> None:
        self.n = self.accepted = 0.0

    def given(self, prior: float) -> float:
        """The share, with a few more observations that say `prior`."""
        return (self.accepted + PRIOR * prior) / (self.n + PRIOR)

    def observe(self, is_accepted: bool) -> None:
        self.n = self.n * DECAY + 1.0
        self.accepted = self.accepted * DECAY + is_accepted


class Acceptance:
    """Turns what a proposer believes into the probability that a node is accepted, given that its parent was.

    Beliefs of one source fall into bins, each of which remembers what came of the recent ones in it (histogram binning:
    Zadrozny and Elkan, 2001, "Obtaining calibrated probability estimates from decision trees and naive Bayesian
    classifiers"). What a belief means depends on the source, on the temperature and on how drafts are verified: a token
    that was drawn with a small probability is often accepted all the same, as the target draws with the same noise.

    A node whose parent was rejected was not compared with anything: it must not be observed.
    """

    def __init__(self) -> None:
        self._bins = {source: tuple(_Share() for _ in range(len(EDGES) + 1)) for source in Source}
        self._means = {source: _Share() for source in Source}

    def estimate(self, source: Source, belief: float, trust: Trust) -> float:
        """Probability from 0 to 1 that a node of this belief is accepted, if its parent is."""
        return trust.adjust(self._bins[source][bisect_right(EDGES, belief)].given(belief))

    def expected(self, source: Source, trust: Trust | None = None) -> float:
        """The same of a node that is not proposed yet, for a request or (None) for any."""
        mean = self._means[source].given(MEAN_PRIOR)
        return mean if trust is None else trust.adjust(mean)

    def observe(self, source: Source, belief: float, is_accepted: bool, trust: Trust) -> None:
        """Learn from a node whose parent was accepted."""
        share = self._bins[source][bisect_right(EDGES, belief)]
        trust.observe(share.given(belief), is_accepted)
        share.observe(is_accepted)
        self._means[source].observe(is_accepted)
