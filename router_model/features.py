"""The feature schema: what a trained router may read of a request, in one versioned form.

A router is of one kind. `state` reads the small model's prefill (hidden state, first-token entropy and margin) and the
cheap features; `text` reads hashed n-grams of the text and the cheap features, and needs no model: public outcome files
hold nothing else.
"""

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_model.cheap import cheap_features
from router_model.facts import RequestFacts
from router_model.ngrams import hashed_ngrams
from router_model.outcomes import Outcome
from router_model.prefill import PrefillState
from router_model.sparse import SparseRow

FEATURE_SCHEMA_VERSION = 1
"""Raised with every change of meaning, order or number of features; an artefact of another version is refused."""


class Kind(enum.StrEnum):
    """Which part of the schema a router reads."""

    STATE = "state"
    TEXT = "text"


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """One request's features. What the kind does not read is None.

    cheap: float32 [len(cheap.NAMES)]. state: float32 [n_layers * 2 * hidden], each of the n_layers * 2 vectors scaled
    to length 1, so that no layer outweighs another. first_token: float32 [2], entropy and margin. ngrams: hashed
    counts.
    """

    kind: Kind
    cheap: NDArray[np.float32]
    state: NDArray[np.float32] | None = None
    first_token: NDArray[np.float32] | None = None
    ngrams: SparseRow | None = None


def extract(text: str, facts: RequestFacts, state: PrefillState | None = None) -> Features:
    """Features of a request: of kind `state` where its prefill state is given, else of kind `text`.

    text: the conversation's messages joined by newlines. The whole conversation counts, not the last message ("yes").
    """
    cheap = cheap_features(text, facts)
    if state is None:
        return Features(Kind.TEXT, cheap, ngrams=hashed_ngrams(text))
    lengths = np.linalg.norm(state.values, axis=2, keepdims=True)
    values = (state.values / np.maximum(lengths, 1e-12)).astype(np.float32).ravel()
    return Features(Kind.STATE, cheap, values, np.array([state.entropy, state.margin], np.float32))


def extract_outcome(outcome: Outcome, kind: Kind) -> Features:
    """Features of a recorded outcome, as `extract` gives them. ValueError: kind `state`, and it has no state."""
    if kind is Kind.STATE and outcome.state is None:
        raise ValueError(
            f"outcome {outcome.id} has no prefill state: train a text router, or record states for every row"
        )
    return extract(outcome.text, outcome.facts, outcome.state if kind is Kind.STATE else None)
