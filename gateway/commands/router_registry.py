"""`pointsman router artefacts`, `promote`, `rollback` and `calibrate`: which of a deployment's routers decides."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.commands.arguments import CommandError, add_model_arguments, add_settings_arguments, settings_of
from gateway.commands.router_data import DATA_HELP, OWN_LOG, outcomes_of

if TYPE_CHECKING:
    from gateway.commands.arguments import Subparsers
    from router_model.artefact import RouterArtefact
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
        help=f"what to compare on. {DATA_HELP}; of a log, what was routed since the router was made counts "
        "(default: log:)",
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
    runs = ((artefacts, _artefacts), (promote, _promote), (rollback, _rollback), (calibrate, _calibrate))
    for action, run in runs:
        add_settings_arguments(action)
        add_model_arguments(action, hidden=True)
        action.set_defaults(run=run)


def _artefacts(parsed: argparse.Namespace) -> int:
    from gateway.routing.promotion import in_force, registry_of
    from router_model.artefact import ArtefactError

    settings = settings_of(parsed)
    registry = registry_of(settings)
    try:
        current = registry.current()
    except ArtefactError as error:
        raise CommandError(str(error)) from error
    for name in registry.list():
        mark = "*" if name == current else " "
        try:
            print(f"{mark} {_line(registry.load(name))}")
        except ArtefactError as error:
            print(f"{mark} {name[:_SHORT]}  cannot be used: {error}")
    if current is None:
        configured = in_force(settings)
        print("* the rule" if configured is None else f"* {_line(configured)}  (of the settings)")
    return 0


def _promote(parsed: argparse.Namespace) -> int:
    from gateway.routing.promotion import NoComparison, in_force, made_at, promote, registry_of, unlearned_since
    from router_model.artefact import ArtefactError, RouterArtefact
    from router_model.promotion import PromotionRefused
    from router_model.registry import UnknownArtefact

    settings = settings_of(parsed)
    registry = registry_of(settings)
    folder = Path(parsed.router)
    try:
        if folder.is_dir():
            candidate, since = RouterArtefact.load(folder), made_at(folder)
            print(f"added {_line(registry.load(registry.add(candidate)))}")
        else:
            candidate = registry.load(parsed.router)
            since = made_at(registry.folder / candidate.hash)
        incumbent = in_force(settings)
        other = None if incumbent is None else unlearned_since(registry, incumbent.hash)
        since = since if other is None else max(since, other)
        needs_data = not parsed.force and incumbent is not None and incumbent.hash != candidate.hash
        outcomes = outcomes_of(parsed, parsed.data or [OWN_LOG], since, candidate.kind) if needs_data else []
        done = promote(registry, candidate, incumbent, outcomes, force=parsed.force)
    except PromotionRefused as error:
        raise CommandError(str(error)) from error
    except (NoComparison, ArtefactError, UnknownArtefact, ValueError, OSError) as error:
        raise CommandError(str(error.args[0] if error.args else error)) from error
    _show(done.comparison)
    print(f"in force: {done.hash[:_SHORT]}")
    return 0


def _rollback(parsed: argparse.Namespace) -> int:
    from gateway.routing.promotion import registry_of
    from router_model.artefact import ArtefactError
    from router_model.registry import UnknownArtefact

    try:
        name = registry_of(settings_of(parsed)).rollback(at=datetime.now(UTC))
    except (UnknownArtefact, ArtefactError, OSError) as error:
        raise CommandError(str(error.args[0])) from error
    print("in force: " + ("what the settings say" if name is None else name[:_SHORT]))
    return 0


def _calibrate(parsed: argparse.Namespace) -> int:
    from gateway.routing.promotion import in_force, promote, recalibrated, registry_of
    from router_model.artefact import ArtefactError

    settings = settings_of(parsed)
    registry = registry_of(settings)
    try:
        old = in_force(settings)
        if old is None:
            raise CommandError("no trained router is in force, so there is none to calibrate: train and promote one")
        outcomes = outcomes_of(parsed, parsed.data, None, old.kind)
        new = recalibrated(old, outcomes, hold_back=parsed.promote)
        registry.add(new.artefact)
        print(f"added {_line(new.artefact)}")
        if parsed.promote:
            _show(promote(registry, new.artefact, old, new.held_back).comparison)
            print(f"in force: {new.artefact.hash[:_SHORT]}")
    except (ArtefactError, ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    return 0


def _line(artefact: "RouterArtefact") -> str:
    manifest = artefact.manifest
    apgr = "–" if manifest.metrics.apgr is None else f"{manifest.metrics.apgr:.3f}"
    origin = manifest.recalibration
    how = "" if origin is None else f"  recalibrated from {origin.parent[:_SHORT]} on {origin.n_rows} outcomes"
    return f"{artefact.hash[:_SHORT]}  {manifest.kind.value}  {manifest.n_rows} outcomes  APGR {apgr}{how}"


def _show(comparison: "Comparison | None") -> None:
    if comparison is None or comparison.apgr is None:
        return
    print(
        f"APGR {comparison.apgr.value:+.3f} against {comparison.incumbent[:_SHORT]}, at least "
        f"{comparison.apgr.lower:+.3f} with 95 % confidence, on {comparison.n_rows} requests"
    )
