"""Models as arrays and plain values, and back: what an artefact stores without knowing their inside."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_model.calibration import CalibrationMap, Method, RouteMaps
from router_model.cascade import CascadeModel
from router_model.dense_projection import DenseProjection
from router_model.encoder import N_COMPONENTS, Encoder
from router_model.features import Kind
from router_model.forest import Forest
from router_model.front import FrontModel
from router_model.heads import Heads, LinearHeads
from router_model.model import Calibrated, RouterModel
from router_model.projection import Projection
from router_model.stack import Stack

Arrays = dict[str, NDArray[Any]]
Meta = dict[str, Any]


def pack_model(model: RouterModel) -> tuple[Arrays, Meta]:
    """A router model as arrays by name, and values that JSON can hold."""
    encoder, heads, calibrated = model.encoder, model.heads, model.calibrated
    small, small_meta = _pack_maps(calibrated.small_map)
    large, large_meta = _pack_maps(calibrated.large_map)
    arrays: Arrays = {
        "encoder.plain_mean": encoder.plain_mean,
        "encoder.plain_scale": encoder.plain_scale,
        "heads.right": heads.linear.right,
        "heads.gain": heads.linear.gain,
        "heads.far": heads.far,
        "heads.centre": heads.centre,
        "heads.whitening": heads.whitening,
        "stack.right": calibrated.stack.right,
        "stack.gain": calibrated.stack.gain,
        **with_prefix("forest.", _pack_forest(heads.forest)),
        **with_prefix("calibration.small.", small),
        **with_prefix("calibration.large.", large),
    }
    for name, dense in encoder.dense.items():
        arrays |= with_prefix(f"encoder.{name}.", {"centre": dense.mean, **_pack_projection(dense.projection)})
    if heads.tokens is not None:
        arrays["heads.tokens"] = heads.tokens
    meta = {
        "kind": encoder.kind.value,
        "depth": heads.forest.depth,
        "radius": model.radius,
        "small_maps": small_meta,
        "large_maps": large_meta,
    }
    return arrays, meta


def unpack_model(arrays: Arrays, meta: Meta) -> RouterModel:
    """The opposite of `pack_model`. KeyError or ValueError: something is missing or of another form."""
    kind = Kind(meta["kind"])
    dense = {}
    for name in N_COMPONENTS[kind]:
        part = without_prefix(f"encoder.{name}.", arrays)
        dense[name] = DenseProjection(part["centre"], _unpack_projection(part))
    encoder = Encoder(kind, arrays["encoder.plain_mean"], arrays["encoder.plain_scale"], dense)
    heads = Heads(
        LinearHeads(arrays["heads.right"], arrays["heads.gain"]),
        _unpack_forest(without_prefix("forest.", arrays), int(meta["depth"])),
        arrays["heads.far"],
        arrays["heads.centre"],
        arrays["heads.whitening"],
        arrays.get("heads.tokens"),
    )
    calibrated = Calibrated(
        Stack(arrays["stack.right"], arrays["stack.gain"]),
        _unpack_maps(without_prefix("calibration.small.", arrays), meta["small_maps"]),
        _unpack_maps(without_prefix("calibration.large.", arrays), meta["large_maps"]),
    )
    return RouterModel(encoder, heads, calibrated, float(meta["radius"]))


def pack_front(front: object) -> tuple[Arrays, Meta]:
    """A front model as arrays by name, and values that JSON can hold. TypeError: no FrontModel."""
    if not isinstance(front, FrontModel):
        raise TypeError(f"{type(front).__name__} has no packed form")
    arrays: Arrays = {"mean": front.mean, "scale": front.scale, "weights": front.weights}
    return arrays, {"below": front.below, "above": front.above, "radius": front.radius}


def unpack_front(arrays: Arrays, meta: Meta) -> FrontModel:
    """The opposite of `pack_front`. KeyError or ValueError: something is missing or of another form."""
    numbers = (float(meta[name]) for name in ("below", "above", "radius"))
    return FrontModel(arrays["mean"], arrays["scale"], arrays["weights"], *numbers)


def pack_cascade(cascade: object) -> tuple[Arrays, Meta]:
    """A cascade model as arrays by name, and values that JSON can hold. TypeError: no CascadeModel."""
    if not isinstance(cascade, CascadeModel):
        raise TypeError(f"{type(cascade).__name__} has no packed form")
    one = cascade.calibration
    arrays: Arrays = {"mean": cascade.mean, "scale": cascade.scale, "weights": cascade.weights, "x": one.x, "y": one.y}
    return arrays, {"method": one.method.value}


def unpack_cascade(arrays: Arrays, meta: Meta) -> CascadeModel:
    """The opposite of `pack_cascade`. KeyError or ValueError: something is missing or of another form."""
    calibration = CalibrationMap(Method(meta["method"]), arrays["x"], arrays["y"])
    return CascadeModel(arrays["mean"], arrays["scale"], arrays["weights"], calibration)


def with_prefix(prefix: str, arrays: Arrays) -> Arrays:
    """The arrays under names that begin with `prefix`."""
    return {prefix + name: np.ascontiguousarray(array) for name, array in arrays.items()}


def without_prefix(prefix: str, arrays: Arrays) -> Arrays:
    """Those arrays whose names begin with `prefix`, under the rest of the names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _pack_projection(projection: Projection) -> Arrays:
    return {"components": projection.components, "mean": projection.mean, "scale": projection.scale}


def _unpack_projection(arrays: Arrays) -> Projection:
    return Projection(arrays["components"], arrays["mean"], arrays["scale"])


def _pack_forest(forest: Forest) -> Arrays:
    return {
        "roots": forest.roots,
        "feature": forest.feature,
        "threshold": forest.threshold,
        "child": forest.child,
        "values": forest.values,
    }


def _unpack_forest(arrays: Arrays, depth: int) -> Forest:
    return Forest(
        arrays["roots"], arrays["feature"], arrays["threshold"], arrays["child"], arrays["values"], depth=depth
    )


def _pack_maps(maps: RouteMaps) -> tuple[Arrays, Meta]:
    """Everyone's map as number 0, then each route's."""
    routes = sorted(maps.by_route)
    every = [maps.everyone, *(maps.by_route[route][0] for route in routes)]
    arrays: Arrays = {f"{i}.{axis}": getattr(one, axis) for i, one in enumerate(every) for axis in ("x", "y")}
    weights = [maps.by_route[route][1] for route in routes]
    return arrays, {"methods": [one.method.value for one in every], "routes": routes, "weights": weights}


def _unpack_maps(arrays: Arrays, meta: Meta) -> RouteMaps:
    every = [
        CalibrationMap(Method(method), arrays[f"{i}.x"], arrays[f"{i}.y"]) for i, method in enumerate(meta["methods"])
    ]
    named = zip(meta["routes"], every[1:], meta["weights"], strict=True)
    return RouteMaps(every[0], {route: (one, float(weight)) for route, one, weight in named})
