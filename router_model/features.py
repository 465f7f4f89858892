"""The feature schema: what a trained router may read of a request, in one versioned form.

A router is of one kind, and every kind has the cheap features:

- `state` reads the small model's prefill (hidden state, first-token entropy and margin);
- `embedding` reads a sentence embedding made by an encoder that the operator brings;
- `text` reads static word vectors, and needs no model: public outcome files hold nothing else.
"""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from router_model.cheap import NAMES, cheap_features, clipped
from router_model.facts import RequestFacts
from router_model.outcomes import Outcome
from router_model.prefill import PrefillState
from router_model.question import Question
from router_model.static_embedding import StaticVectors, static_embedding

FEATURE_SCHEMA_VERSION = 2
"""Raised with every change of meaning, order or number of features; an artefact of another version is refused."""

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""A sentence encoder: n texts to float32 [n, width]."""


class Kind(enum.StrEnum):
    """Which part of the schema a router reads."""

    STATE = "state"
    EMBEDDING = "embedding"
    TEXT = "text"


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """One request's features. What the kind does not read is None.

    cheap: float32 [len(cheap.NAMES)]. state: float32 [n_layers * 2, hidden], each vector scaled to length 1, so that no
    layer outweighs another. first_token: float32 [2], entropy and margin. embedding: float32 [width], of length 1.
    vectors: static word vectors of the question.
    """

    kind: Kind
    cheap: NDArray[np.float32]
    state: NDArray[np.float32] | None = None
    first_token: NDArray[np.float32] | None = None
    embedding: NDArray[np.float32] | None = None
    vectors: StaticVectors | None = None

    def pack(self) -> bytes:
        """A short form for decision rows: 0.2 KB, and one byte for each number of the wide parts.

        No word can be read from it, but word vectors, embeddings and states do tell what a text is about.
        """
        dense = {"state": self.state, "embedding": self.embedding}
        if self.vectors is not None:
            dense |= {"stem": self.vectors.stem, "options": self.vectors.options}
        return _ENCODER.encode(
            _Packed(
                FEATURE_SCHEMA_VERSION,
                self.kind,
                _halves(self.cheap),
                b"" if self.first_token is None else _halves(self.first_token),
                b"" if self.vectors is None else _halves(self.vectors.shape),
                {name: _Quantised.of(np.atleast_2d(part)) for name, part in dense.items() if part is not None},
            )
        )

    def with_state(self, state: PrefillState) -> "Features":
        """The same request, of kind `state`, once its prefill is there; the cheap features are not computed again."""
        values = state.values.reshape(-1, state.values.shape[2])
        first_token = np.array([state.entropy, state.margin], np.float32)
        return Features(Kind.STATE, self.cheap, _unit(values), first_token=first_token)

    @classmethod
    def unpack(cls, data: bytes) -> "Features":
        """The opposite of `pack`, within the rounding. ValueError: not packed features, or of another version."""
        try:
            packed = _DECODER.decode(data)
        except msgspec.DecodeError as error:
            raise ValueError(f"these are no packed features ({error})") from error
        if packed.version != FEATURE_SCHEMA_VERSION:
            raise ValueError(
                f"the row has features of schema {packed.version}, this version reads {FEATURE_SCHEMA_VERSION}: "
                "leave out rows that were logged before"
            )
        try:
            features = packed.features()
        except (ValueError, IndexError) as error:
            raise ValueError(f"these packed features are damaged ({error})") from error
        if len(features.cheap) != len(NAMES):
            raise ValueError(f"the row has {len(features.cheap)} cheap features, not {len(NAMES)}")
        return features


class _Quantised(msgspec.Struct, frozen=True, array_like=True):
    """Vectors as int8 and a scale for each: shape [n, width], scales little-endian float32 [n], data [n * width]."""

    shape: tuple[int, int]
    scales: bytes
    data: bytes

    @classmethod
    def of(cls, vectors: NDArray[np.float32]) -> "_Quantised":
        scales = np.maximum(np.abs(vectors).max(axis=1), 1e-12) / 127
        data = np.round(vectors / scales[:, None]).astype(np.int8)
        return cls((vectors.shape[0], vectors.shape[1]), scales.astype("<f4").tobytes(), data.tobytes())

    def values(self) -> NDArray[np.float32]:
        """The vectors [n, width]. ValueError: the sizes disagree."""
        scales = np.frombuffer(self.scales, "<f4")
        values: NDArray[np.float32] = np.frombuffer(self.data, np.int8).reshape(self.shape) * scales[:, None]
        if not np.isfinite(values).all():
            raise ValueError("a scale is not finite")
        return values


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    """The packed form: numbers in float16, wide parts quantised."""

    version: int
    kind: Kind
    cheap: bytes
    first_token: bytes
    shape: bytes
    dense: dict[str, _Quantised]

    def features(self) -> Features:
        """The features. ValueError or IndexError: sizes disagree, or a number is not finite."""
        dense = {name: part.values() for name, part in self.dense.items()}
        vectors = None
        if {"stem", "options"} <= dense.keys():
            vectors = StaticVectors(dense["stem"][0], dense["options"][0], _singles(self.shape))
        return Features(
            self.kind,
            _singles(self.cheap),
            dense.get("state"),
            _singles(self.first_token) if self.first_token else None,
            dense["embedding"][0] if "embedding" in dense else None,
            vectors,
        )


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Packed)


def extract(
    text: str,
    facts: RequestFacts,
    state: PrefillState | None = None,
    embedding: NDArray[np.float32] | None = None,
) -> Features:
    """Features of a request: of kind `state` or `embedding` where that is given, else of kind `text`.

    text: the conversation's messages joined by newlines. The whole conversation counts, not the last message ("yes").
    embedding: float32 [width] of that text. NoStaticEmbedding: kind `text` without its word vectors installed.
    """
    question = Question.of(clipped(text))
    cheap = cheap_features(text, facts, question)
    if state is not None:
        return Features(Kind.STATE, cheap).with_state(state)
    if embedding is not None:
        return Features(Kind.EMBEDDING, cheap, embedding=_unit(embedding[None])[0])
    return Features(Kind.TEXT, cheap, vectors=static_embedding().embed(question))


def extract_cheap(text: str, facts: RequestFacts) -> Features:
    """The cheap features alone, which is all that a front model reads: of no use to a router."""
    return Features(Kind.TEXT, cheap_features(text, facts))


def extract_outcome(outcome: Outcome, kind: Kind, embed: Embed | None = None) -> Features:
    """Features of a recorded outcome, as `extract` gives them, or those that were logged in place of its text.

    embed: needed for kind `embedding` where the row has a text. ValueError: the row has not what the kind reads.
    """
    if outcome.features is not None:
        features = Features.unpack(outcome.features)
        if features.kind is not kind:
            raise ValueError(
                f"outcome {outcome.id} has features of kind {features.kind.value}, not {kind.value}: train on rows of "
                "one kind"
            )
        return features
    if kind is Kind.EMBEDDING:
        if embed is None:
            raise ValueError("a router of kind embedding needs its sentence encoder: name the encoder's folder")
        return extract(outcome.text, outcome.facts, embedding=embed([outcome.text])[0])
    if kind is Kind.STATE and outcome.state is None:
        raise ValueError(
            f"outcome {outcome.id} has no prefill state: train a text router, or record states for every row"
        )
    return extract(outcome.text, outcome.facts, outcome.state if kind is Kind.STATE else None)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    unit: NDArray[np.float32] = (vectors / np.maximum(lengths, 1e-12)[:, None]).astype(np.float32, copy=False)
    return unit


def _halves(values: NDArray[np.float32]) -> bytes:
    limit = float(np.finfo(np.float16).max)
    return np.clip(values, -limit, limit).astype("<f2").tobytes()


def _singles(data: bytes) -> NDArray[np.float32]:
    values = np.frombuffer(data, "<f2").astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("a number is not finite")
    return values
