"""A trained router on disk: `router.safetensors` with every array, `router.json` with everything else.

Equal routers are equal files, byte for byte: nothing in them depends on the clock, the machine or an iteration order.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from router_model.calibration import CalibrationMap, Method, RouteMaps
from router_model.cascade import CascadeModel
from router_model.cheap import NAMES
from router_model.evidence import Evidence, EvidenceMeta
from router_model.features import FEATURE_SCHEMA_VERSION, Features, Kind
from router_model.front import FrontModel
from router_model.learned import LearnedRows
from router_model.model import Predictions, RouterModel
from router_model.packing import (
    Arrays,
    pack_cascade,
    pack_front,
    pack_model,
    unpack_cascade,
    unpack_front,
    unpack_model,
    with_prefix,
    without_prefix,
)
from router_model.recalibration import Recalibration
from router_model.thresholds import CurvePoint, QualityCurve

FORMAT_VERSION = 2
MANIFEST_FILE, ARRAYS_FILE = "router.json", "router.safetensors"
_LEARNED = "learned"
"""Array of the training rows' digests."""


class ArtefactError(ValueError):
    """The folder holds no router that this version can use; the message says why and what to do."""


class ModelMismatch(ArtefactError):
    """The router was trained for other models than those being served."""


class TrainingMetrics(msgspec.Struct, frozen=True):
    """Measured on held-out folds at training time; see metrics.py. NaN where undefined is None."""

    small_quality: float
    large_quality: float
    apgr: float | None
    cpt50: float | None
    cpt80: float | None
    auroc_need: float | None
    ece_small: float
    ece_large: float
    brier_small: float


class MapMeta(msgspec.Struct, frozen=True):
    """What of a calibration map is no array: how it was fitted, and how much it counts against everyone's map."""

    method: Method
    weight: float = 1.0


class RecalibrationMeta(msgspec.Struct, frozen=True, kw_only=True):
    """A recalibration's plain values. small, large: maps by route, "" being everyone's. parent: hash of the router
    that was recalibrated; data_hash: SHA-256 over the outcomes, n_rows of them.
    """

    small: dict[str, MapMeta]
    large: dict[str, MapMeta]
    radius: float
    parent: str
    data_hash: str
    n_rows: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What `router.json` holds.

    small_model, large_model: fingerprints of the pair, empty where the outcomes came from elsewhere. data_hash: SHA-256
    over the outcomes; n_both: how many of them have both models' scores. targets: by name (`auto`, …) the threshold
    without prices and what it promises; share_targets: those names that keep their large share where no quality can be
    promised. model, front and cascade: what packing.py needs beside their arrays.
    """

    format_version: int
    feature_schema: int
    feature_names: tuple[str, ...]
    kind: Kind
    small_model: str
    large_model: str
    data_hash: str
    n_rows: int
    n_groups: int
    n_both: int
    seed: int
    l2: float
    is_identified: bool
    targets: dict[str, CurvePoint]
    share_targets: tuple[str, ...]
    metrics: TrainingMetrics
    evidence: EvidenceMeta
    model: dict[str, Any] = {}
    front: dict[str, Any] | None = None
    cascade: dict[str, Any] | None = None
    recalibration: RecalibrationMeta | None = None
    arrays_hash: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class RouterArtefact:
    """A router ready to decide, with its origin.

    evidence: what its thresholds are computed from. front: decides clear cases before a prefill; cascade: judges the
    small model's answer; recalibration: corrects the model's predictions. Each of the three may be None. learned: the
    rows that it was trained and recalibrated on; None where it is from before that was kept.
    """

    model: RouterModel
    evidence: Evidence
    manifest: Manifest
    front: FrontModel | None = None
    cascade: CascadeModel | None = None
    recalibration: Recalibration | None = None
    learned: LearnedRows | None = None

    @property
    def kind(self) -> Kind:
        """The kind of features that it reads."""
        return self.manifest.kind

    @property
    def curve(self) -> QualityCurve:
        """The curve without prices, with requests out of domain on the large model."""
        return self.evidence.curve()

    @cached_property
    def hash(self) -> str:
        """Names this very router in decision rows:

        SHA-256 of the manifest, which holds that of the arrays; hexadecimal.
        """
        return hashlib.sha256(_encode(self._packed[1])).hexdigest()

    def predict(self, features: Sequence[Features], routes: Sequence[str] = ()) -> Predictions:
        """Calibrated predictions for requests. routes: each one's kind of traffic, or empty.

        ValueError: features of another kind or size than those trained on.
        """
        seen = self.model.predict(features, routes)
        return seen if self.recalibration is None else self.recalibration.apply(seen, routes)

    def save(self, folder: Path | str) -> None:
        """Write both files into `folder`, which is made if need be."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays, manifest = self._packed
        (folder / ARRAYS_FILE).write_bytes(arrays)
        (folder / MANIFEST_FILE).write_bytes(_encode(manifest))

    @cached_property
    def _packed(self) -> tuple[bytes, Manifest]:
        """The arrays' file, and the manifest that names it and holds the parts' plain values."""
        arrays, model_meta = pack_model(self.model)
        arrays = with_prefix("model.", arrays) | self.evidence.arrays()
        front = cascade = None
        if self.front is not None:
            front_arrays, front = pack_front(self.front)
            arrays |= with_prefix("front.", front_arrays)
        if self.cascade is not None:
            cascade_arrays, cascade = pack_cascade(self.cascade)
            arrays |= with_prefix("cascade.", cascade_arrays)
        if self.recalibration is not None:
            arrays |= _pack_recalibration(self.recalibration)
        if self.learned is not None:
            arrays[_LEARNED] = self.learned.digests
        data: bytes = save_arrays({name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())})
        manifest = msgspec.structs.replace(
            self.manifest,
            evidence=self.evidence.meta,
            model=model_meta,
            front=front,
            cascade=cascade,
            arrays_hash=hashlib.sha256(data).hexdigest(),
        )
        return data, manifest

    @classmethod
    def load(
        cls, folder: Path | str, *, small_model: str | None = None, large_model: str | None = None
    ) -> "RouterArtefact":
        """Read a router and check it.

        small_model, large_model: fingerprints of the served pair, None to leave unchecked.

        ModelMismatch: it belongs to another pair. ArtefactError: files are missing, damaged or of another version.
        """
        folder = Path(folder)
        try:
            manifest_bytes = (folder / MANIFEST_FILE).read_bytes()
            data = (folder / ARRAYS_FILE).read_bytes()
        except OSError as error:
            raise ArtefactError(f"{folder} holds no router ({error}); make one by `pointsman router train`") from error
        manifest = _decode(manifest_bytes, folder)
        if hashlib.sha256(data).hexdigest() != manifest.arrays_hash:
            raise ArtefactError(f"{folder / ARRAYS_FILE} is not the file written with {MANIFEST_FILE}: copy both")
        for name, served, trained in (
            ("small", small_model, manifest.small_model),
            ("large", large_model, manifest.large_model),
        ):
            if served is not None and served != trained:
                raise ModelMismatch(
                    f"the router in {folder} was trained for the {name} model {trained or '(none recorded)'}, but "
                    f"{served} is served: train a router on this pair's outcomes, or serve the pair it was trained for"
                )
        try:
            return cls._unpacked(load_arrays(data), manifest)
        except (KeyError, TypeError, ValueError, SafetensorError) as error:
            raise ArtefactError(f"{folder / ARRAYS_FILE} lacks a router's arrays ({error}): train it again") from error

    @classmethod
    def _unpacked(cls, arrays: Arrays, manifest: Manifest) -> "RouterArtefact":
        front, cascade, again = manifest.front, manifest.cascade, manifest.recalibration
        return cls(
            model=unpack_model(without_prefix("model.", arrays), manifest.model),
            evidence=Evidence.from_arrays(arrays, manifest.evidence),
            manifest=manifest,
            front=None if front is None else unpack_front(without_prefix("front.", arrays), front),
            cascade=None if cascade is None else unpack_cascade(without_prefix("cascade.", arrays), cascade),
            recalibration=None if again is None else _unpack_recalibration(arrays, again),
            learned=LearnedRows(arrays[_LEARNED]) if _LEARNED in arrays else None,
        )


class _Version(msgspec.Struct):
    """What every version's manifest holds."""

    format_version: int = 0
    feature_schema: int = 0
    feature_names: tuple[str, ...] = ()


def _decode(data: bytes, folder: Path) -> Manifest:
    """The manifest in `data`. ArtefactError: it is damaged, or of another version."""
    try:
        version = msgspec.json.decode(data, type=_Version)
        if version.format_version != FORMAT_VERSION:
            raise ArtefactError(
                f"{folder} has artefact format {version.format_version}, not {FORMAT_VERSION}: train the router again"
            )
        if version.feature_schema != FEATURE_SCHEMA_VERSION or version.feature_names != NAMES:
            raise ArtefactError(
                f"{folder} reads feature schema {version.feature_schema}, this version computes "
                f"{FEATURE_SCHEMA_VERSION}: train it again"
            )
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise ArtefactError(f"{folder / MANIFEST_FILE} cannot be read ({error}): train the router again") from error


def _encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=2) + b"\n"


def map_metas(maps: RouteMaps) -> dict[str, MapMeta]:
    """What of the maps is no array, by route; "" is everyone's."""
    return {"": MapMeta(maps.everyone.method)} | {
        route: MapMeta(one.method, weight) for route, (one, weight) in maps.by_route.items()
    }


def _pack_recalibration(recalibration: Recalibration) -> Arrays:
    arrays: Arrays = {}
    for side, maps in (("small", recalibration.small), ("large", recalibration.large)):
        for route, one in [("", maps.everyone), *((route, one) for route, (one, _) in maps.by_route.items())]:
            arrays |= {f"recalibration.{side}.{route}.x": one.x, f"recalibration.{side}.{route}.y": one.y}
    return arrays


def _unpack_recalibration(arrays: Arrays, meta: RecalibrationMeta) -> Recalibration:
    def maps(side: str, metas: dict[str, MapMeta]) -> RouteMaps:
        found = {
            route: CalibrationMap(
                one.method, arrays[f"recalibration.{side}.{route}.x"], arrays[f"recalibration.{side}.{route}.y"]
            )
            for route, one in metas.items()
        }
        return RouteMaps(found[""], {route: (one, metas[route].weight) for route, one in found.items() if route})

    return Recalibration(maps("small", meta.small), maps("large", meta.large), meta.radius)
