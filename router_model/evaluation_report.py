"""The evaluation of an artefact on outcomes that it was not trained on: everything that is known of it, in one report.

rows with both scores ─► rankings beside baselines, promises, calibration, drift
rows of a log         ─► off-policy values of the artefact's targets beside what was logged
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from router_model.artefact import RouterArtefact
from router_model.baselines import (
    knn_scores,
    knn_scores_by_folds,
    length_scores,
    oracle_scores,
    random_scores,
    subject_scores,
)
from router_model.bundle import failure_table, right_table
from router_model.candidates import Candidate, large_probability
from router_model.escalation import second_ranks
from router_model.evaluation import (
    Calibration,
    Draws,
    Measured,
    RoutingQuality,
    apgr_differences,
    bootstrap,
    calibration,
    measured,
    routing_quality,
)
from router_model.features import Features
from router_model.folds import group_numbers, grouped_folds
from router_model.logistic import Floats
from router_model.model import Predictions
from router_model.off_policy import Unidentifiable
from router_model.options import Action, RouteOptions
from router_model.outcomes import Outcome, OutcomeError
from router_model.policy import Policy
from router_model.policy_log import LoggedDecision, PolicyLog
from router_model.policy_value import PolicyValue, policy_values
from router_model.promises import ShareKept, TargetKept, shares_kept, targets_kept
from router_model.score import EDGE
from router_model.serving import drift_reasons, planner_of

ROUTER, WITH_ANSWER = "router", "router + answer"
KNN, KNN_BY_FOLDS = "kNN", "kNN, folds of these rows"
N_FOLDS = 5
MIN_KNN_ROWS = 100
"""Fewer rows with both scores give no nearest neighbours of their own that would be worth beating."""

FIRST = 10.0
"""Added to the gain of an answer that failed, so that it goes to the large model before all others."""


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """What alarms after all rows: by the requests alone, and once every grade had been told as well."""

    by_requests: tuple[str, ...]
    by_grades: tuple[str, ...]


class OffPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a log. n: decisions; fixed: those without an alternative, in no estimate. policies: as logged, the
    models alone, random at the logged share, the artefact's targets, and the candidates; their reward is the score.
    """

    n: int
    fixed: int
    policies: list[PolicyValue]


class EvaluationReport(msgspec.Struct, frozen=True, kw_only=True):
    """An artefact on files of outcomes; see docs/routing_evaluation.md for every key.

    routers: by name. `router + answer` is there where rows hold the small model's answer (n_answers of them) and the
    artefact judges answers; `kNN` and `subject` where training rows were given, else `kNN, folds of these rows`, each
    row asked of the others, or in `left_out` why not. apgr_over: APGR of the router less that of each other, paired.
    answer_over_router: APGR of `router + answer` less the router's. What needs both models'
    scores is None or empty without such rows; off_policy is None without rows of a log.
    """

    artefact_hash: str
    data_files: list[str]
    n_rows: int
    n_both: int
    n_groups: int
    n_answers: int
    out_of_domain_share: Measured
    small_quality: float | None = None
    large_quality: float | None = None
    routers: dict[str, RoutingQuality] = {}
    left_out: dict[str, str] = {}
    apgr_over: dict[str, Measured] = {}
    answer_over_router: Measured | None = None
    calibration_small: Calibration | None
    calibration_large: Calibration | None
    calibration_answer: Calibration | None
    targets: dict[str, TargetKept] = {}
    shares: list[ShareKept] = []
    drift: Drift | None = None
    off_policy: OffPolicy | None


class Rows:
    """Outcomes with what the artefact makes of them."""

    def __init__(self, artefact: RouterArtefact, outcomes: Sequence[Outcome], features: Sequence[Features]) -> None:
        """features: of the outcomes, of the artefact's kind."""
        self.artefact, self.outcomes, self.features = artefact, outcomes, features
        self.routes = [one.route for one in outcomes]
        self.seen: Predictions = artefact.predict(features, self.routes)
        self.scores: Floats = np.array([(one.weak_score, one.strong_score) for one in outcomes], np.float64)
        self.groups = group_numbers([one.group for one in outcomes])
        self.right = right_table(artefact.cascade, outcomes, self.seen)

    def take(self, rows: Sequence[int]) -> "Rows":
        """Those of some rows."""
        return Rows(self.artefact, [self.outcomes[i] for i in rows], [self.features[i] for i in rows])

    def log(self) -> PolicyLog:
        """The rows that are logged decisions, in order of time."""
        return PolicyLog.of([one for i in range(len(self.outcomes)) if (one := _decision(self, i)) is not None])

    @property
    def answer_scores(self) -> Floats:
        """The ranking that also reads the small model's answer, where there is one."""
        failed = failure_table(self.outcomes)
        gain = np.where(np.isfinite(self.right), self.seen.p_large - self.right, self.seen.score)
        scores: Floats = np.where(failed, gain + FIRST, gain)
        return scores

    @property
    def second_ranks(self) -> Floats | None:
        """What the small answers are judged by, without prices; None where nobody can judge any."""
        if not np.isfinite(self.right).any():
            return None
        return second_ranks(self.seen.p_large - self.right, failure_table(self.outcomes))


def evaluation_report(
    rows: Rows,
    train: Rows | None,
    *,
    data_files: Sequence[str],
    candidates: Sequence[Candidate] = (),
    seed: int = 0,
) -> EvaluationReport:
    """Measure everything. train: the artefact's own training rows, for baselines that have to be fitted. candidates:
    valued on the rows of a log.

    ValueError: a candidate that the artefact cannot answer. OutcomeError: no row has both scores, and none is a logged
    decision.
    """
    rng = np.random.default_rng(seed)
    both_numbers = np.flatnonzero(np.isfinite(rows.scores).all(axis=1)).tolist()
    off_policy = _off_policy(rows, candidates, rng)
    if not both_numbers and off_policy is None:
        raise OutcomeError("no row has both models' scores, and none is a logged decision: there is nothing to score")
    draws = bootstrap(rows.groups, rng)
    report = EvaluationReport(
        artefact_hash=rows.artefact.hash,
        data_files=list(data_files),
        n_rows=len(rows.outcomes),
        n_both=len(both_numbers),
        n_groups=int(rows.groups.max()) + 1,
        n_answers=int(np.isfinite(rows.right).sum()),
        out_of_domain_share=measured(lambda some: float((rows.seen.ood[some] > EDGE).mean()), draws),
        calibration_small=_calibration(rows.seen.p_small, rows.scores[:, 0], rows, rng),
        calibration_large=_calibration(rows.seen.p_large, rows.scores[:, 1], rows, rng),
        calibration_answer=_calibration(rows.right, rows.scores[:, 0], rows, rng),
        off_policy=off_policy,
    )
    if not both_numbers:
        return report
    both = rows.take(_as_served(rows.outcomes, both_numbers, rng))
    return _with_routing(report, both, train, bootstrap(both.groups, rng), seed)


def _as_served(outcomes: Sequence[Outcome], numbers: list[int], rng: np.random.Generator) -> list[int]:
    """The rows in the order in which they are served: that of their decisions, else a random one.

    Files of outcomes are often sorted by subject, which to whoever watches for drift is one drift after another.
    """
    times = [at.timestamp() for i in numbers if (at := outcomes[i].decided_at) is not None]
    if len(times) == len(numbers):
        return [numbers[k] for k in np.argsort(times, kind="stable").tolist()]
    return [int(i) for i in rng.permutation(numbers)]


def _with_routing(
    report: EvaluationReport, both: Rows, train: Rows | None, draws: Draws, seed: int
) -> EvaluationReport:
    """The report with everything that needs both models' scores."""
    labels = both.scores
    rivals, left_out = _rivals(both, train, seed)
    small, large = labels.mean(axis=0)
    over = apgr_differences(both.seen.score, rivals, labels, draws)
    by_requests, by_grades = drift_reasons(both.artefact, both.seen, labels, both.routes)
    return msgspec.structs.replace(
        report,
        small_quality=float(small),
        large_quality=float(large),
        routers={
            name: routing_quality(one, labels, draws) for name, one in ({ROUTER: both.seen.score} | rivals).items()
        },
        left_out=left_out,
        apgr_over=over,
        answer_over_router=_negated(over.get(WITH_ANSWER)),
        targets=targets_kept(
            both.artefact, both.seen, labels, both.routes, draws, both.second_ranks, groups=both.groups
        ),
        shares=shares_kept(both.artefact, both.seen),
        drift=Drift(by_requests=by_requests, by_grades=by_grades),
    )


def _rivals(both: Rows, train: Rows | None, seed: int) -> tuple[dict[str, Floats], dict[str, str]]:
    """What the router is measured beside, and what could not be, with the reason."""
    left_out: dict[str, str] = {}
    rivals: dict[str, Floats] = {}
    if np.isfinite(both.right).any():
        rivals[WITH_ANSWER] = both.answer_scores
    rivals |= {"random": random_scores(both.outcomes), "length": length_scores(both.outcomes)}
    if train is not None:
        known = [i for i, pair in enumerate(train.scores) if np.isfinite(pair).all()]
        labels = train.scores[known]
        features, outcomes = [train.features[i] for i in known], [train.outcomes[i] for i in known]
        rivals[KNN] = knn_scores(both.artefact.model.encoder, features, labels, both.features)
        rivals["subject"] = subject_scores(outcomes, labels, both.outcomes)
    elif len(both.outcomes) < MIN_KNN_ROWS or len(set(both.groups.tolist())) < N_FOLDS:
        left_out[KNN_BY_FOLDS] = (
            f"it needs {MIN_KNN_ROWS} rows with both scores in {N_FOLDS} groups, or the training rows (--train)"
        )
    else:
        # Of a generator of its own, so that no other figure depends on whether training rows were given.
        folds = grouped_folds(both.groups, N_FOLDS, np.random.default_rng(seed))
        rivals[KNN_BY_FOLDS] = knn_scores_by_folds(both.artefact.model.encoder, both.features, both.scores, folds)
    return rivals | {"oracle": oracle_scores(both.scores)}, left_out


def _calibration(p: Floats, targets: Floats, rows: Rows, rng: np.random.Generator) -> Calibration | None:
    known = np.isfinite(p) & np.isfinite(targets)
    if not known.any():
        return None
    draws: Draws = bootstrap(rows.groups[known], rng)
    return calibration(p[known], targets[known], draws)


def _off_policy(rows: Rows, candidates: Sequence[Candidate], rng: np.random.Generator) -> OffPolicy | None:
    log = rows.log()
    if not len(log):
        return None
    open_ = log.take(log.has_alternative).for_grades()
    share = float(open_.went_large.mean()) if len(open_) else 0.0
    asked: dict[str, Floats | Unidentifiable] = {
        "all small": np.zeros(len(open_)),
        "all large": np.ones(len(open_)),
        f"random {share:.0%} large": np.full(len(open_), share),
    }
    planner = planner_of(rows.artefact)
    for name in rows.artefact.manifest.targets:
        plan = planner.plan(RouteOptions(target=name))
        far = open_.ood > EDGE if plan.is_quality else False
        asked[f"target {name}"] = ((open_.gain >= plan.point.threshold) | far).astype(np.float64)
    policy = Policy(artefact=rows.artefact) if any(one.needs_artefact for one in candidates) else None
    for one in candidates:
        try:
            asked[one.name] = large_probability(one, open_, policy)
        except Unidentifiable as error:
            asked[one.name] = error
    values = policy_values(open_, open_.score, asked, rng)
    return OffPolicy(n=len(log), fixed=len(log) - len(open_), policies=values)


def _decision(rows: Rows, i: int) -> LoggedDecision | None:
    """The row as a logged decision; None for one that is no decision, or whose answer was not graded."""
    one, seen = rows.outcomes[i], rows.seen
    action, propensity, reward = one.action, one.propensity, float("nan")
    if one.choice is not None:
        action, propensity, reward = one.choice.action, one.choice.propensity, one.choice.reward
    elif action is not None:
        reward = one.weak_score if action is Action.SMALL else one.strong_score
    if action is None or propensity is None:
        return None
    return LoggedDecision(
        action=action,
        propensity=propensity,
        cluster=one.group,
        score=reward,
        graded_prob=1.0 if one.choice is None else one.choice.graded_prob,
        p_small=float(seen.p_small[i]),
        p_large=float(seen.p_large[i]),
        gain=float(seen.score[i]),
        ood=float(seen.ood[i]),
        threshold=float("nan") if one.threshold is None else one.threshold,
        features=rows.features[i],
        options=RouteOptions(route=one.route),
        cost_small_usd=_cost(one, Action.SMALL, action),
        cost_large_usd=_cost(one, Action.LARGE, action),
        at_s=0.0 if one.decided_at is None else one.decided_at.timestamp(),
    )


def _cost(one: Outcome, of: Action, action: Action) -> float:
    """What the row says of a model's cost, USD: of the action what it cost, of the large model what it would have."""
    cost = one.cost_usd if of is action else one.cost_if_large_usd if of is Action.LARGE else None
    return float("nan") if cost is None else cost


def _negated(one: Measured | None) -> Measured | None:
    if one is None or one.value is None or one.lower is None or one.upper is None:
        return one
    return Measured(-one.value, -one.upper, -one.lower)
