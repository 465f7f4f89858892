"""`pointsman router artefacts`, `promote`, `rollback` and `calibrate`: which of a deployment's routers decides."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway.commands.arguments import CommandError, add_model_arguments, add_settings_arguments, settings_of
from gateway.commands.router_data import DATA_HELP, OWN_LOG, outcomes_of

if TYPE_CHECKING:
    from gateway.commands.arguments import Subparsers
    from gateway.routing.pair import ServedPair
    from gateway.routing.policy_source import PolicyInForce
    from gateway.settings import Settings
    from router_model.artefact import RouterArtefact
    from router_model.features import Embed
    from router_model.promotion import Comparison

_SHORT = 12


def add_registry(actions: "Subparsers") -> None:
    """Add the commands."""
    artefacts = actions.add_parser("artefacts", help="list the routers there are, and which one decides")
    promote = actions.add_parser(
        "promote",
        help="put a router in force, if it is better than the one that decides",
        description="Add a router to the deployment's registry and put it in force. It must be better than the one in "
        "force, with 95 % confidence, on outcomes that neither was trained on. Servers on the same data folder take it "
        "over within seconds.",
    )
    promote.add_argument("router", metavar="DIR|HASH", help="a router's folder, or the beginning of a hash")
    promote.add_argument(
        "--data",
        nargs="+",
        metavar="DATA",
        help=f"what to compare on. {DATA_HELP}; of routed requests, those since the router was made count, and none "
        "that a router was trained on (default: log:)",
    )
    promote.add_argument("--force", action="store_true", help="without a comparison")
    rollback = actions.add_parser("rollback", help="go back to the router that decided before the last promotion")
    calibrate = actions.add_parser(
        "calibrate",
        help="fit the router in force to newer outcomes, as a new router",
        description="Fit probabilities and thresholds of the router in force to newer outcomes, and add the result to "
        "the registry.",
    )
    calibrate.add_argument("--data", nargs="+", default=[OWN_LOG], metavar="DATA", help=f"{DATA_HELP} (default: log:)")
    calibrate.add_argument(
        "--promote",
        action="store_true",
        help="put it in force if it is better on the latest third of the conversations, which is then held back",
    )
    for action in (promote, calibrate):
        action.add_argument(
            "--embedding-model",
            type=Path,
            metavar="DIR",
            help="sentence encoder of a router that reads embeddings (default: routing.embedding_model)",
        )
    runs = ((artefacts, _artefacts), (promote, _promote), (rollback, _rollback), (calibrate, _calibrate))
    for action, run in runs:
        add_settings_arguments(action)
        add_model_arguments(action)
        action.set_defaults(run=run)


def _artefacts(parsed: argparse.Namespace) -> int:
    from gateway.routing.promotion import registry_of
    from router_model.artefact import ArtefactError

    settings = _settings(parsed)
    registry = registry_of(settings)
    served = _in_force(settings)
    current = served.artefact if served.is_promoted else None
    for name in registry.list():
        mark = "*" if current is not None and name == current.hash else " "
        try:
            print(f"{mark} {_line(registry.load(name))}")
        except ArtefactError as error:
            print(f"{mark} {name[:_SHORT]}  cannot be used: {error}")
    if not served.is_promoted:
        print("* the rule" if served.artefact is None else f"* {_line(served.artefact)}  (of the settings)")
    for problem in served.problems:
        print(problem)
    return 0


def _promote(parsed: argparse.Namespace) -> int:
    from gateway.routing.policy_source import policy_of
    from gateway.routing.promotion import NoComparison, made_at, promote, registry_of, unlearned_since
    from router_model.artefact import ArtefactError, ModelMismatch
    from router_model.promotion import PromotionRefused
    from router_model.registry import UnknownArtefact

    settings = _settings(parsed)
    registry = registry_of(settings)
    pair = _pair(settings)
    folder = Path(parsed.router)
    try:
        name = None if folder.is_dir() else registry.find(parsed.router)
        candidate = pair.load(folder if name is None else registry.folder / name)
        policy_of(candidate, settings)  # refused here is what a server would pass over
        since = made_at(folder if name is None else registry.folder / name)
        if name is None:
            print(f"added {_line(registry.load(registry.add(candidate)))}")
        incumbent = _in_force(settings).artefact
        other = None if incumbent is None else unlearned_since(registry, incumbent.hash)
        since = since if other is None else max(since, other)
        needs_data = not parsed.force and incumbent is not None and incumbent.hash != candidate.hash
        outcomes = outcomes_of(parsed, parsed.data or [OWN_LOG], since, candidate.kind) if needs_data else []
        embed = _encoder(settings, candidate, incumbent) if outcomes else None
        done = promote(registry, candidate, incumbent, outcomes, force=parsed.force, embed=embed)
    except PromotionRefused as error:
        raise CommandError(str(error)) from error
    except ModelMismatch as error:
        raise CommandError(f"{error}; --small and --large, or the settings, say which is served") from error
    except (NoComparison, ArtefactError, UnknownArtefact, ValueError, OSError) as error:
        raise CommandError(str(error.args[0] if error.args else error)) from error
    _show(done.comparison)
    print(f"in force: {done.hash[:_SHORT]}")
    return 0


def _rollback(parsed: argparse.Namespace) -> int:
    from gateway.routing.promotion import registry_of
    from router_model.artefact import ArtefactError
    from router_model.registry import UnknownArtefact

    settings = _settings(parsed)
    try:
        name = registry_of(settings).rollback(at=datetime.now(UTC))
    except (UnknownArtefact, ArtefactError, OSError) as error:
        raise CommandError(str(error.args[0])) from error
    if name is None:
        print("in force: what the settings say")
        return 0
    served = _in_force(settings)
    print("in force: " + (name[:_SHORT] if served.is_promoted else "what the settings say"))
    for problem in served.problems:
        print(problem)
    return 0


def _calibrate(parsed: argparse.Namespace) -> int:
    from gateway.routing.promotion import promote, recalibrated, registry_of
    from router_model.artefact import ArtefactError

    settings = _settings(parsed)
    registry = registry_of(settings)
    try:
        served = _in_force(settings)
        old = served.artefact
        if old is None:
            why = "no trained router is in force, so there is none to calibrate: train and promote one"
            raise CommandError("; ".join([why, *served.problems]))
        outcomes = outcomes_of(parsed, parsed.data, None, old.kind)
        embed = _encoder(settings, old)
        new = recalibrated(old, outcomes, hold_back=parsed.promote, embed=embed)
        registry.add(new.artefact)
        print(f"added {_line(new.artefact)}")
        if parsed.promote:
            _show(promote(registry, new.artefact, old, new.held_back, embed=embed).comparison)
            print(f"in force: {new.artefact.hash[:_SHORT]}")
    except (ArtefactError, ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    return 0


def _settings(parsed: argparse.Namespace) -> "Settings":
    """The settings in force, with the encoder that the command line names."""
    settings = settings_of(parsed)
    if getattr(parsed, "embedding_model", None) is None:
        return settings
    routing = msgspec.structs.replace(settings.routing, embedding_model=parsed.embedding_model)
    return msgspec.structs.replace(settings, routing=routing)


def _pair(settings: "Settings") -> "ServedPair":
    """The pair that a server with these settings serves. Raises CommandError."""
    from gateway.routing.pair import NoCheckpoint, ServedPair

    try:
        return ServedPair.of_settings(settings)
    except (NoCheckpoint, OSError) as error:
        raise CommandError(str(error)) from error


def _in_force(settings: "Settings") -> "PolicyInForce":
    """What decides in a server with these settings. Raises CommandError."""
    from gateway.routing.policy_source import policy_in_force

    return policy_in_force(settings, _pair(settings))


def _encoder(settings: "Settings", *routers: "RouterArtefact | None") -> "Embed | None":
    """The sentence encoder, where one of the routers reads embeddings. NoEncoder."""
    from gateway.routing.policy_source import load_encoder
    from router_model.features import Kind

    if all(one is None or one.kind is not Kind.EMBEDDING for one in routers):
        return None
    return load_encoder(settings)


def _line(artefact: "RouterArtefact") -> str:
    manifest = artefact.manifest
    apgr = "–" if manifest.metrics.apgr is None else f"{manifest.metrics.apgr:.3f}"
    origin = manifest.recalibration
    how = "" if origin is None else f"  recalibrated from {origin.parent[:_SHORT]} on {origin.n_rows} outcomes"
    return f"{artefact.hash[:_SHORT]}  {manifest.kind.value}  {manifest.n_rows} outcomes  APGR {apgr}{how}"


def _show(comparison: "Comparison | None") -> None:
    if comparison is None:
        return
    if comparison.n_learned:
        print(f"{comparison.n_learned} requests are left out: one of the routers was trained on them")
    for name in comparison.unchecked:
        print(
            f"{name[:_SHORT]} does not say what it was trained on (train it again, and it does): that these requests "
            "were not among it cannot be checked"
        )
    if comparison.apgr is not None:
        print(
            f"APGR {comparison.apgr.value:+.3f} against {comparison.incumbent[:_SHORT]}, at least "
            f"{comparison.apgr.lower:+.3f} with 95 % confidence, on {comparison.n_rows} requests"
        )
