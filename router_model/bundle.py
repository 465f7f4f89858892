"""From a finished training to an artefact: thresholds for the named targets, metrics, and where it all came from."""

import hashlib
import math
from collections.abc import Sequence

import msgspec
import numpy as np

from router_model.artefact import FORMAT_VERSION, Manifest, RouterArtefact, TrainingMetrics
from router_model.cheap import NAMES
from router_model.features import FEATURE_SCHEMA_VERSION
from router_model.heads import Labels
from router_model.metrics import apgr, auroc, brier, cpt, ece, is_large_needed
from router_model.model import Predictions
from router_model.outcomes import Outcome
from router_model.training import Trained, labels_of

TARGETS = (("auto", 0.8), ("auto-quality", 0.95), ("auto-cost", 0.5))
"""Part of the gap between the models that each name recovers, with 95 % confidence on requests like the training data.
"""


def bundle(
    trained: Trained, outcomes: Sequence[Outcome], *, seed: int = 0, small_model: str = "", large_model: str = ""
) -> RouterArtefact:
    """The artefact of a router trained on `outcomes`.

    small_model, large_model: fingerprints of the pair that made them.
    """
    labels = labels_of(outcomes)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        feature_schema=FEATURE_SCHEMA_VERSION,
        feature_names=NAMES,
        kind=trained.model.encoder.kind,
        small_model=small_model,
        large_model=large_model,
        data_hash=data_hash(outcomes),
        n_rows=len(outcomes),
        n_groups=len({outcome.group for outcome in outcomes}),
        seed=seed,
        l2=trained.l2,
        radius=trained.model.radius,
        large_prior=trained.model.large_prior,
        small_method=trained.model.small_map.method,
        large_method=trained.model.large_map.method,
        is_identified=trained.curve.is_identified,
        targets={name: trained.curve.point_for(quality) for name, quality in TARGETS},
        metrics=training_metrics(trained.held_out, labels),
    )
    return RouterArtefact(trained.model, trained.curve, manifest)


def training_metrics(held_out: Predictions, labels: Labels) -> TrainingMetrics:
    """Metrics of held-out predictions."""
    scores = labels.scores
    small, large = scores.mean(axis=0)
    return TrainingMetrics(
        small_quality=float(small),
        large_quality=float(large),
        apgr=_finite(apgr(held_out.score, scores)),
        cpt50=_finite(cpt(held_out.score, scores, 0.5)),
        cpt80=_finite(cpt(held_out.score, scores, 0.8)),
        auroc_need=_finite(auroc(held_out.score, is_large_needed(scores))),
        ece_small=ece(held_out.p_small, scores[:, 0]),
        ece_large=ece(held_out.p_large, scores[:, 1]),
        brier_small=brier(held_out.p_small, scores[:, 0]),
    )


def data_hash(outcomes: Sequence[Outcome]) -> str:
    """SHA-256 over every field of every outcome in order, hexadecimal."""
    digest = hashlib.sha256()
    for one in outcomes:
        facts = msgspec.json.encode(one.facts)
        scores = np.array([one.weak_score, one.strong_score], "<f8").tobytes()
        tokens = msgspec.json.encode([one.small_tokens, one.large_tokens])
        state = b""
        if one.state is not None:
            state = one.state.values.astype("<f4").tobytes()
            state += np.array([*one.state.values.shape, one.state.entropy, one.state.margin], "<f8").tobytes()
        for part in (one.id.encode(), one.group.encode(), one.text.encode(), facts, scores, tokens, state):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
