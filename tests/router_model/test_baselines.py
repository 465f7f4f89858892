import numpy as np

from router_model.artefact import RouterArtefact
from router_model.baselines import knn_scores, knn_scores_by_folds
from router_model.features import Kind, extract_outcome
from tests.router_model.worlds import make_outcomes


def test_neighbours_by_folds_are_those_of_the_other_folds(artefact: RouterArtefact) -> None:
    rows = make_outcomes(200, with_state=True, seed=3)
    features = [extract_outcome(one, Kind.STATE) for one in rows]
    labels = np.array([(one.weak_score, one.strong_score) for one in rows])
    folds = np.arange(len(rows)) % 4
    encoder = artefact.model.encoder
    scores = knn_scores_by_folds(encoder, features, labels, folds)
    for fold in range(4):
        held, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        known, asked = [features[i] for i in rest], [features[i] for i in held]
        np.testing.assert_allclose(scores[held], knn_scores(encoder, known, labels[rest], asked))
        # What a row is called right or wrong has no say in its own score.
        others = labels.copy()
        others[held] = 1 - others[held]
        np.testing.assert_array_equal(knn_scores_by_folds(encoder, features, others, folds)[held], scores[held])
