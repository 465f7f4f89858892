"""One router in place of another: the comparison that decides it, and what comes into force, served or not."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gateway.settings import Settings
from router_model.artefact import MANIFEST_FILE, RouterArtefact
from router_model.bundle import recalibrate
from router_model.features import Embed
from router_model.outcomes import Outcome
from router_model.promotion import Comparison, compare
from router_model.registry import Registry

_HELD_BACK = 1 / 3


class NoComparison(ValueError):
    """A promotion that has to be shown to be better, and nothing to show it on; the message says what to bring."""


class Promoted(msgspec.Struct, frozen=True, kw_only=True):
    """hash: now in force. comparison: with the one before, None where there was none, or where it was forced."""

    hash: str
    comparison: Comparison | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibrated:
    """artefact: the new router. held_back: rows that it was not fitted to, to compare on."""

    artefact: RouterArtefact
    held_back: list[Outcome]


def registry_of(settings: Settings) -> Registry:
    """The deployment's registry."""
    return Registry(settings.registry_dir)


def promote(
    registry: Registry,
    candidate: RouterArtefact,
    incumbent: RouterArtefact | None,
    outcomes: Sequence[Outcome],
    *,
    force: bool = False,
    embed: Embed | None = None,
) -> Promoted:
    """Put a router of the registry in force.

    incumbent: the one that decides now, None for a rule. outcomes: of requests that neither was trained on. embed: the
    sentence encoder, for routers that read embeddings of rows with a text.

    PromotionRefused: not measurably better. NoComparison: there are no outcomes. ValueError: too few, or of features
    that one of the two cannot read. UnknownArtefact: it is not in the registry.
    """
    name = registry.find(candidate.hash)
    comparison = None
    if not force and incumbent is not None and incumbent.hash != name:
        if not outcomes:
            raise NoComparison(
                f"there is nothing to compare {name[:12]} with the router in force on: bring outcomes of requests that "
                "neither was trained on, or force the promotion"
            )
        comparison = compare(candidate, incumbent, outcomes, embed=embed)
        comparison.require()
    registry.promote(name, at=datetime.now(UTC), note=_note(comparison, incumbent, force=force))
    return Promoted(hash=name, comparison=comparison)


def recalibrated(
    artefact: RouterArtefact, outcomes: Sequence[Outcome], *, hold_back: bool, embed: Embed | None = None
) -> Recalibrated:
    """The router with its probabilities and thresholds fitted to newer outcomes.

    hold_back: leave the latest third of the conversations out, to compare on. embed: as for `promote`. ValueError: too
    few outcomes, or of features that the router cannot read.
    """
    if not hold_back:
        return Recalibrated(artefact=recalibrate(artefact, outcomes, embed=embed), held_back=[])
    groups = list(dict.fromkeys(one.group for one in outcomes))  # in the order in which they began
    latest = set(groups[round(len(groups) * (1 - _HELD_BACK)) :])
    fitted = [one for one in outcomes if one.group not in latest]
    return Recalibrated(
        artefact=recalibrate(artefact, fitted, embed=embed),
        held_back=[one for one in outcomes if one.group in latest],
    )


def made_at(folder: Path) -> datetime:
    """When the router in a folder came there: what was decided later it cannot have been trained on."""
    try:
        return datetime.fromtimestamp((folder / MANIFEST_FILE).stat().st_mtime, UTC)
    except OSError:
        return datetime.fromtimestamp(time.time(), UTC)


def unlearned_since(registry: Registry, *names: str | None) -> datetime | None:
    """From when on none of these routers can have been trained on what was decided; None where none is in the registry.

    What is not in it came with the settings, so from outside.
    """
    folders = [registry.folder / name for name in names if name is not None]
    return max((made_at(folder) for folder in folders if folder.is_dir()), default=None)


def _note(comparison: Comparison | None, incumbent: RouterArtefact | None, *, force: bool) -> str:
    if comparison is None or comparison.apgr is None:
        return "forced" if force else "no router was in force" if incumbent is None else "it was in force already"
    return f"APGR {comparison.apgr.value:+.3f}, at least {comparison.apgr.lower:+.3f}, on {comparison.n_rows} requests"
