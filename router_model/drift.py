"""Drift: whether traffic is still what the evidence was, and the probabilities still mean what they say.

Three watches: a CUSUM on predicted minus observed scores of graded answers (calibration), the share of requests out of
domain, and the population stability index (PSI) of the rank, by kind of traffic. While one of them alarms, nothing is
promised; each ends by itself when traffic is again as it was, and all of them with a new artefact.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from router_model.evidence import Evidence
from router_model.logistic import Floats
from router_model.options import Action
from router_model.score import EDGE

N_BINS = 5
"""Few bins, since each adds noise, and what a router that was trained on little thinks of new rows differs from its
evidence most at the ends.
"""

WINDOW = 250
"""Recent requests of a route whose ranks are compared with the evidence: once traffic has changed, a longer memory of
how it was would hide that for as long.
"""

FAR_WINDOW = 1_000
"""Recent requests of all routes of which the share out of domain is taken."""

MIN_REQUESTS = 100
"""Fewer than this say nothing of a distribution."""

EVERY = 25
"""Requests between two looks."""

MAX_PSI = 0.25
"""Beyond this, once noise is taken off, a distribution counts as another one, by the usual convention for scorecards.

Noise alone gives n requests against m rows of evidence about (N_BINS - 1) * (1 / n + 1 / m); twice that is taken off.
Then the first 100 requests of unshifted traffic alarm with probability 1e-6 (n * PSI is about chi-square), and later
ones less often. A distribution that moves by its deviation has a PSI of about 1.
"""

MAX_OOD_SHARE = 0.2
"""Training data has 1 % beyond the edge, by its definition."""

MIN_ROUTE_ROWS = 200
"""A route with fewer rows of evidence is compared with all of it."""

MAX_ROUTES = 32
"""Routes that are watched apart; clients name them, so their number is bounded, and the rest is one."""

ALLOWANCE = 0.05
"""Bias that is not worth an alarm; the CUSUM is fastest for twice this much. Two standard errors of the evidence's own
mean are added: no more was known when the probabilities were calibrated.
"""

ALARM = 15.0
"""Sum of bias at which the CUSUM alarms, with much evidence: without drift about once in 70,000 graded answers
(Siegmund's approximation, variance 0.2), with a bias of 0.2 after 100, of 0.1 after 300.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftState:
    """reasons: what alarms, as `calibration_small`, `calibration_large`, `out_of_domain` and `shift:ROUTE`.

    bias: CUSUM by model, at most 2 * ALARM. ood_share: of recent requests. psi: by route, where there were enough.
    """

    reasons: tuple[str, ...] = ()
    bias: tuple[tuple[str, float], ...] = ()
    ood_share: float = 0.0
    psi: tuple[tuple[str, float], ...] = ()

    def concerns(self, route: str) -> bool:
        """Whether a request of that route is without promise."""
        return bool(self.concerning({route}))

    def concerning(self, routes: Collection[str]) -> tuple[str, ...]:
        """The reasons that take the promise from requests of these routes. Clients name routes, each its own: what
        alarms in another's is nothing that they should be told.
        """
        return tuple(one for one in self.reasons if not one.startswith("shift:") or one[len("shift:") :] in routes)


class _Window:
    """Recent requests of one route against the evidence's bins."""

    def __init__(self, ranks: Floats) -> None:
        self._edges = np.unique(np.quantile(ranks, np.linspace(0, 1, N_BINS + 1)[1:-1]))
        bins = np.searchsorted(self._edges, ranks, side="right")
        self._expected = np.maximum(np.bincount(bins, minlength=len(self._edges) + 1) / len(ranks), 1e-4)
        self._n_rows = len(ranks)
        self._counts = np.zeros(len(self._expected))
        self._recent: deque[Floats] = deque()

    def saw(self, low: float, high: float) -> None:
        """Note a rank between two bounds: each bin that it may lie in gets the part that the evidence has there."""
        first, last = np.searchsorted(self._edges, [low, high], side="right")
        part = np.zeros(len(self._expected))
        part[first : last + 1] = self._expected[first : last + 1]
        part /= part.sum()
        self._recent.append(part)
        self._counts += part
        if len(self._recent) > WINDOW:
            self._counts -= self._recent.popleft()

    @property
    def psi(self) -> float | None:
        """Sum over bins of (seen - expected) * log(seen / expected), less noise; None until MIN_REQUESTS."""
        n = len(self._recent)
        if n < MIN_REQUESTS:
            return None
        seen = (np.maximum(self._counts, 0.0) + 0.5) / (n + 0.5 * len(self._counts))
        raw = float(((seen - self._expected) * np.log(seen / self._expected)).sum())
        return max(raw - 2 * (len(self._counts) - 1) * (1 / n + 1 / self._n_rows), 0.0)


class DriftMonitor:
    """Watches one artefact's traffic. Used from one thread."""

    def __init__(self, evidence: Evidence, ranks: Floats) -> None:
        """ranks [n]: of the evidence's rows, as they are compared with thresholds."""
        self._routes = np.array(evidence.routes, np.str_)
        self._ranks = ranks
        self._windows: dict[str, _Window] = {}
        self._far: deque[bool] = deque(maxlen=FAR_WINDOW)
        p = np.stack([evidence.held_out.p_small, evidence.held_out.p_large], axis=1)
        errors = np.sqrt(((evidence.scores - p) ** 2).mean(axis=0) / len(np.unique(evidence.groups)))
        self._allowances = dict(zip(Action, (ALLOWANCE + 2 * errors).tolist(), strict=True))
        self._bias = {(action, sign): 0.0 for action in Action for sign in (1, -1)}
        self._state = DriftState()
        self._n = 0

    @property
    def state(self) -> DriftState:
        """What alarms now."""
        return self._state

    def saw_request(self, low: float, high: float, ood: float | None, route: str) -> None:
        """Note a request's rank, or the bounds that are known of it, and its distance (None: not computed)."""
        name = route if route in self._windows or len(self._windows) < MAX_ROUTES else ""
        if name not in self._windows:
            own = self._ranks[self._routes == name]
            self._windows[name] = _Window(own if len(own) >= MIN_ROUTE_ROWS else self._ranks)
        is_far = ood is not None and ood > EDGE
        self._windows[name].saw(low, high)
        self._far.append(is_far)
        self._n += 1
        if self._n % EVERY == 0:
            self._state = self._look()

    def saw_score(self, action: Action, p: float, score: float, weight: float = 1.0) -> None:
        """Note a graded answer: what was predicted of it, its score, and what that counts, all 0 to 1."""
        for sign in (1, -1):
            grown = self._bias[action, sign] + weight * (sign * (p - score) - self._allowances[action])
            self._bias[action, sign] = float(np.clip(grown, 0.0, 2 * ALARM))  # the bound lets an alarm end
        self._state = self._look()

    def _look(self) -> DriftState:
        bias = {action: max(self._bias[action, 1], self._bias[action, -1]) for action in Action}
        psi = {route: window.psi for route, window in self._windows.items() if window.psi is not None}
        ood_share = sum(self._far) / len(self._far) if len(self._far) >= MIN_REQUESTS else 0.0
        reasons = [f"calibration_{action.value}" for action in Action if bias[action] >= ALARM]
        reasons += ["out_of_domain"] if ood_share > MAX_OOD_SHARE else []
        reasons += [f"shift:{route}" for route, value in psi.items() if value > MAX_PSI]
        return DriftState(
            reasons=tuple(reasons),
            bias=tuple((action.value, bias[action]) for action in Action),
            ood_share=ood_share,
            psi=tuple(psi.items()),
        )
