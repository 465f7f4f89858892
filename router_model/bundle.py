"""From a finished training to an artefact: evidence, thresholds for the named targets, metrics, and its origin."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from router_model.artefact import (
    FORMAT_VERSION,
    Manifest,
    RecalibrationMeta,
    RouterArtefact,
    TrainingMetrics,
    map_metas,
)
from router_model.cascade import CascadeModel, answer_of
from router_model.cheap import NAMES
from router_model.escalation import has_failed
from router_model.evidence import Evidence, evidence_of
from router_model.features import FEATURE_SCHEMA_VERSION, Embed, Kind, extract_outcome
from router_model.folds import group_numbers, grouped_folds
from router_model.learned import LearnedRows
from router_model.logistic import Floats
from router_model.metrics import apgr, auroc, brier, cpt, ece, is_large_needed
from router_model.model import Predictions
from router_model.outcomes import Outcome
from router_model.recalibration import LabelledPredictions
from router_model.thresholds import CurvePoint
from router_model.training import Trained

MIN_PAIRS = 100
"""Rows with both scores that thresholds need at least; what so few can promise, their bounds say."""

N_FOLDS = 5

TARGETS = (("auto", 0.8), ("auto-quality", 0.95), ("auto-cost", 0.5))
"""Part of the gap between the models that each name recovers, with 95 % confidence on requests like the training data.
"""

SHARE_TARGETS = ("auto-cost",)
"""Targets that keep their large share where no quality can be promised: there, money comes first."""


def bundle(
    trained: Trained, outcomes: Sequence[Outcome], *, seed: int = 0, small_model: str = "", large_model: str = ""
) -> RouterArtefact:
    """The artefact of a router trained on `outcomes`.

    small_model, large_model: fingerprints of the pair that made them. ValueError: no outcome has both scores.
    """
    scores = score_table(outcomes)
    kind = trained.model.encoder.kind
    evidence = evidence_of(
        trained.held_out,
        scores,
        group_numbers([outcome.group for outcome in outcomes]),
        routes=[outcome.route for outcome in outcomes],
        tokens=token_table(outcomes),
        right=trained.held_out_right,
        failed=failure_table(outcomes),
        weights=weight_table(outcomes),
        has_prefill=kind is Kind.STATE,
        seed=seed,
    )
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        feature_schema=FEATURE_SCHEMA_VERSION,
        feature_names=NAMES,
        kind=kind,
        small_model=small_model,
        large_model=large_model,
        data_hash=data_hash(outcomes),
        n_rows=len(outcomes),
        n_groups=len({outcome.group for outcome in outcomes}),
        n_both=len(evidence.scores),
        seed=seed,
        l2=trained.l2,
        is_identified=evidence.curve().is_identified,
        targets=named_points(evidence),
        share_targets=SHARE_TARGETS,
        metrics=training_metrics(trained.held_out, scores),
        evidence=evidence.meta,
    )
    return RouterArtefact(
        model=trained.model,
        evidence=evidence,
        manifest=manifest,
        front=trained.front,
        cascade=trained.cascade,
        learned=LearnedRows.of(outcomes),
    )


def recalibrate(
    artefact: RouterArtefact, outcomes: Sequence[Outcome], *, seed: int = 0, embed: Embed | None = None
) -> RouterArtefact:
    """The same router with probabilities, distances and thresholds fitted to newer labels of its own pair.

    outcomes: rows that it was not trained on. One model's score is enough for its probabilities (rows count by their
    weight); both are needed for thresholds, and the MIN_PAIRS or more rows that have them are the new evidence. There,
    probabilities come from maps that were fitted without the row's group, and so do those of the small answers being
    right, as far as rows hold answers. The front model is left out: its bounds were
    those of the scores before. embed: the sentence encoder of a router that reads embeddings.

    ValueError: fewer than MIN_PAIRS rows with both scores or N_FOLDS groups, or features that the router cannot read.
    """
    scores = score_table(outcomes)
    weights = weight_table(outcomes)
    n_pairs = int((np.isfinite(scores).all(axis=1) & (weights > 0)).sum())
    if n_pairs < MIN_PAIRS:
        raise ValueError(
            f"{n_pairs} outcomes have the scores of both models, and thresholds need {MIN_PAIRS}: run the shadow job"
        )
    routes = [one.route for one in outcomes]
    groups = group_numbers([one.group for one in outcomes])
    seen = artefact.model.predict([extract_outcome(one, artefact.kind, embed) for one in outcomes], routes)
    labelled = LabelledPredictions(seen, scores, weights, routes)
    recalibration = labelled.fit()
    held_out = labelled.held_out(grouped_folds(groups, N_FOLDS, np.random.default_rng(seed)), recalibration)
    evidence = evidence_of(
        held_out,
        scores,
        groups,
        routes=routes,
        tokens=token_table(outcomes),
        right=right_table(artefact.cascade, outcomes, held_out),
        failed=failure_table(outcomes),
        weights=weights,
        has_prefill=artefact.kind is Kind.STATE,
        seed=seed,
    )
    manifest = msgspec.structs.replace(
        artefact.manifest,
        n_both=n_pairs,
        is_identified=evidence.curve().is_identified,
        targets=named_points(evidence),
        metrics=training_metrics(evidence.held_out, evidence.scores),
        evidence=evidence.meta,
        recalibration=RecalibrationMeta(
            small=map_metas(recalibration.small),
            large=map_metas(recalibration.large),
            radius=recalibration.radius,
            parent=artefact.hash,
            data_hash=data_hash(outcomes),
            n_rows=len(outcomes),
        ),
    )
    learned = None if artefact.learned is None else artefact.learned | LearnedRows.of(outcomes)
    return replace(
        artefact, evidence=evidence, manifest=manifest, front=None, recalibration=recalibration, learned=learned
    )


def named_points(evidence: Evidence) -> dict[str, CurvePoint]:
    """What each named target promises without prices."""
    return {name: evidence.curve(is_guarded=name not in SHARE_TARGETS).point_for(quality) for name, quality in TARGETS}


def score_table(outcomes: Sequence[Outcome]) -> Floats:
    """Scores [n, 2] of small and large, NaN where that model was not graded."""
    return np.array([(one.weak_score, one.strong_score) for one in outcomes], np.float64).reshape(-1, 2)


def token_table(outcomes: Sequence[Outcome]) -> Floats:
    """Tokens [n, 3]: prompt, output of small, output of large; NaN where they were not counted."""
    counted = [(one.facts.prompt_tokens or None, one.small_tokens, one.large_tokens) for one in outcomes]
    return np.array([[np.nan if n is None else n for n in row] for row in counted], np.float64).reshape(-1, 3)


def weight_table(outcomes: Sequence[Outcome]) -> Floats:
    """What each row counts [n]."""
    return np.array([one.weight for one in outcomes], np.float64)


def failure_table(outcomes: Sequence[Outcome]) -> NDArray[np.bool_]:
    """Whether the small model's answer failed [n], False where a row does not tell."""
    return np.array([has_failed(one) for one in outcomes], np.bool_)


def right_table(cascade: CascadeModel | None, outcomes: Sequence[Outcome], seen: Predictions) -> Floats:
    """Probability [n] that the small model's answer is right, NaN where there is no answer or nobody to judge it."""
    right = np.full(len(outcomes), np.nan)
    if cascade is not None:
        for i, one in enumerate(outcomes):
            if (answer := answer_of(one)) is not None:
                right[i] = cascade.p_right(float(seen.p_small[i]), float(seen.p_large[i]), answer)
    return right


def training_metrics(held_out: Predictions, scores: Floats) -> TrainingMetrics:
    """Metrics of held-out predictions for scores [n, 2]; of routing on the rows where both are known."""
    both, small, large = _known(scores[:, 0] + scores[:, 1]), _known(scores[:, 0]), _known(scores[:, 1])
    pairs, ranks = scores[both], held_out.score[both]
    return TrainingMetrics(
        small_quality=float(pairs[:, 0].mean()),
        large_quality=float(pairs[:, 1].mean()),
        apgr=_finite(apgr(ranks, pairs)),
        cpt50=_finite(cpt(ranks, pairs, 0.5)),
        cpt80=_finite(cpt(ranks, pairs, 0.8)),
        auroc_need=_finite(auroc(ranks, is_large_needed(pairs))),
        ece_small=ece(held_out.p_small[small], scores[small, 0]),
        ece_large=ece(held_out.p_large[large], scores[large, 1]),
        brier_small=brier(held_out.p_small[small], scores[small, 0]),
    )


def data_hash(outcomes: Sequence[Outcome]) -> str:
    """SHA-256 over every field of every outcome in order, hexadecimal."""
    digest = hashlib.sha256()
    for one in outcomes:
        scores = np.array([one.weak_score, one.strong_score, one.weight], "<f8").tobytes()
        state = b""
        if one.state is not None:
            state = one.state.values.astype("<f4").tobytes()
            state += np.array([*one.state.values.shape, one.state.entropy, one.state.margin], "<f8").tobytes()
        rest = [
            one.facts,
            [one.small_tokens, one.large_tokens],
            [one.subject, one.source, one.route, one.session],
            [one.weak_response, one.small_logprob_mean, one.small_logprob_min, one.small_valid],
            [one.action, one.propensity, one.cost_usd, one.cost_if_large_usd, one.threshold, one.decided_at],
        ]
        parts = (one.id.encode(), one.group.encode(), one.text.encode(), scores, state, one.features or b"")
        for part in (*parts, *map(msgspec.json.encode, rest)):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _known(values: Floats) -> NDArray[np.intp]:
    return np.flatnonzero(np.isfinite(values))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
