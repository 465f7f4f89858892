"""A trained router on disk: `router.safetensors` with every array, `router.json` with everything else.

Equal routers are equal files, byte for byte: nothing in them depends on the clock, the machine or an iteration order.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from router_model.calibration import CalibrationMap, Method
from router_model.cheap import NAMES
from router_model.encoder import Encoder
from router_model.features import FEATURE_SCHEMA_VERSION, Kind
from router_model.heads import Heads
from router_model.model import RouterModel
from router_model.projection import Projection
from router_model.state_projection import StateProjection
from router_model.text_projection import TextProjection
from router_model.thresholds import CurvePoint, QualityCurve

FORMAT_VERSION = 1
MANIFEST_FILE, ARRAYS_FILE = "router.json", "router.safetensors"

Arrays = dict[str, NDArray[Any]]


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


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What `router.json` holds.

    small_model, large_model: fingerprints of the pair, empty where the outcomes came from elsewhere. data_hash: SHA-256
    over the outcomes. targets: by name (`auto`, …) the threshold in force and what it promises.
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
    seed: int
    l2: float
    radius: float
    large_prior: float
    small_method: Method
    large_method: Method
    is_identified: bool
    targets: dict[str, CurvePoint]
    metrics: TrainingMetrics
    arrays_hash: str = ""


@dataclass(frozen=True, eq=False)
class RouterArtefact:
    """A router ready to decide, with its origin."""

    model: RouterModel
    curve: QualityCurve
    manifest: Manifest

    @cached_property
    def hash(self) -> str:
        """Names this very router in decision rows:

        SHA-256 of the manifest, which holds that of the arrays; hexadecimal.
        """
        return hashlib.sha256(_encode(_sealed(self.manifest, _pack(self.model, self.curve)))).hexdigest()

    def save(self, folder: Path | str) -> None:
        """Write both files into `folder`, which is made if need be."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = _pack(self.model, self.curve)
        (folder / ARRAYS_FILE).write_bytes(arrays)
        (folder / MANIFEST_FILE).write_bytes(_encode(_sealed(self.manifest, arrays)))

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
            manifest = msgspec.json.decode((folder / MANIFEST_FILE).read_bytes(), type=Manifest)
            data = (folder / ARRAYS_FILE).read_bytes()
        except OSError as error:
            raise ArtefactError(f"{folder} holds no router ({error}); make one by `pointsman router train`") from error
        except msgspec.DecodeError as error:
            raise ArtefactError(f"{folder / MANIFEST_FILE} cannot be read ({error}): train the router again") from error
        _check_version(manifest, folder)
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
            model, curve = _unpack(load_arrays(data), manifest)
        except (KeyError, SafetensorError) as error:
            raise ArtefactError(f"{folder / ARRAYS_FILE} lacks a router's arrays ({error}): train it again") from error
        return cls(model, curve, manifest)


def _sealed(manifest: Manifest, arrays: bytes) -> Manifest:
    return msgspec.structs.replace(manifest, arrays_hash=hashlib.sha256(arrays).hexdigest())


def _encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=2) + b"\n"


def _check_version(manifest: Manifest, folder: Path) -> None:
    if manifest.format_version != FORMAT_VERSION:
        raise ArtefactError(
            f"{folder} has artefact format {manifest.format_version}, not {FORMAT_VERSION}: train the router again"
        )
    if manifest.feature_schema != FEATURE_SCHEMA_VERSION or manifest.feature_names != NAMES:
        raise ArtefactError(
            f"{folder} reads feature schema {manifest.feature_schema}, this version computes {FEATURE_SCHEMA_VERSION}: "
            "train it again"
        )


def _pack(model: RouterModel, curve: QualityCurve) -> bytes:
    encoder, heads = model.encoder, model.heads
    wide = encoder.wide
    arrays: Arrays = {
        "encoder.plain_mean": encoder.plain_mean,
        "encoder.plain_scale": encoder.plain_scale,
        "encoder.wide.weights": wide.mean if isinstance(wide, StateProjection) else wide.idf,
        "encoder.wide.components": wide.projection.components,
        "encoder.wide.mean": wide.projection.mean,
        "encoder.wide.scale": wide.projection.scale,
        "heads.right": heads.right,
        "heads.centre": heads.centre,
        "heads.whitening": heads.whitening,
        "calibration.small.x": model.small_map.x,
        "calibration.small.y": model.small_map.y,
        "calibration.large.x": model.large_map.x,
        "calibration.large.y": model.large_map.y,
        "curve.shares": curve.shares,
        "curve.thresholds": curve.thresholds,
        "curve.pgr": curve.pgr,
        "curve.lower": curve.lower,
        "curve.upper": curve.upper,
    }
    if heads.tokens is not None:
        arrays["heads.tokens"] = heads.tokens
    packed: bytes = save_arrays({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    return packed


def _unpack(arrays: Arrays, manifest: Manifest) -> tuple[RouterModel, QualityCurve]:
    projection = Projection(
        arrays["encoder.wide.components"], arrays["encoder.wide.mean"], arrays["encoder.wide.scale"]
    )
    make = StateProjection if manifest.kind is Kind.STATE else TextProjection
    encoder = Encoder(
        arrays["encoder.plain_mean"], arrays["encoder.plain_scale"], make(arrays["encoder.wide.weights"], projection)
    )
    heads = Heads(arrays["heads.right"], arrays["heads.centre"], arrays["heads.whitening"], arrays.get("heads.tokens"))
    small_map = CalibrationMap(manifest.small_method, arrays["calibration.small.x"], arrays["calibration.small.y"])
    large_map = CalibrationMap(manifest.large_method, arrays["calibration.large.x"], arrays["calibration.large.y"])
    curve = QualityCurve(
        shares=arrays["curve.shares"],
        thresholds=arrays["curve.thresholds"],
        pgr=arrays["curve.pgr"],
        lower=arrays["curve.lower"],
        upper=arrays["curve.upper"],
        is_identified=manifest.is_identified,
    )
    return RouterModel(encoder, heads, small_map, large_map, manifest.radius, manifest.large_prior), curve
