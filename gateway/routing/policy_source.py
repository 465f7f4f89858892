"""Where the router in force comes from: the registry's current artefact, else the configured or bundled folder, else
none, and a rule decides."""

import logging
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from gateway.prices import PriceTable
from gateway.routing.catalogue import Catalogue, Target
from gateway.routing.pair import ServedPair
from gateway.settings import Settings
from router_model.artefact import ArtefactError, RouterArtefact
from router_model.costs import Prices, TokenPrice
from router_model.embedding import SentenceEncoder
from router_model.facts import RequestFacts
from router_model.features import Embed, Kind, extract
from router_model.options import RouteOptions
from router_model.policy import Policy
from router_model.registry import Registry
from router_model.static_embedding import NoStaticEmbedding, static_embedding

log = logging.getLogger(__name__)

_TOKENS = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyInForce:
    """policy: what decides; None where a rule does. is_promoted: it is the registry's, else that of the settings.

    problems: why what was promoted, or configured, is not used; sentences without a full stop.
    """

    policy: Policy | None
    is_promoted: bool = False
    problems: tuple[str, ...] = ()

    @property
    def artefact(self) -> RouterArtefact | None:
        """The router that decides."""
        return None if self.policy is None else self.policy.artefact


def policy_in_force(settings: Settings, pair: ServedPair) -> PolicyInForce:
    """What decides in a server with these settings that serves this pair.

    An artefact that does not fit is no reason not to serve: the next source is tried, and every decision row says what
    decided.
    """
    problems: list[str] = []
    try:
        if (current := Registry(settings.registry_dir).current()) is not None:
            return PolicyInForce(policy=promoted_policy(current, settings, pair), is_promoted=True)
    except (LookupError, ValueError, OSError) as error:
        problems.append(f"the router that was promoted is not used: {error}")
    policy = None
    if settings.router_path is not None:
        try:
            policy = policy_of(pair.load(settings.router_path), settings)
        except ValueError as error:
            problems.append(f"`auto` follows the rule (reason no_router): {error}")
    return PolicyInForce(policy=policy, problems=tuple(problems))


def load_policy(settings: Settings, catalogue: Catalogue) -> Policy | None:
    """The trained router for the served pair; None, with a line in the log, where there is none that fits."""
    found = policy_in_force(settings, ServedPair.of_catalogue(catalogue))
    for problem in found.problems:
        log.warning("%s", problem)
    if found.policy is None and settings.router_path is None:
        log.info("no router is configured: `auto` follows the rule (reason no_router)")
    return found.policy


def promoted_policy(name: str, settings: Settings, pair: ServedPair) -> Policy:
    """The policy of a router in the registry, by its hash.

    Raises UnknownArtefact, and ArtefactError for one that is not of the served pair.
    """
    registry = Registry(settings.registry_dir)
    return policy_of(registry.load(name, small_model=pair.small, large_model=pair.large), settings)


def policy_of(artefact: RouterArtefact, settings: Settings) -> Policy:
    """The policy of an artefact under these settings; its curves are computed here, in some tenths of a second.

    Raises ArtefactError where it needs an encoder that is not configured, ValueError where it lacks a target.
    """
    if artefact.kind is Kind.EMBEDDING:
        _check_encoder(artefact, settings.routing.embedding_model)
    if artefact.kind is Kind.TEXT:
        try:
            static_embedding()  # read now, so that no request waits for it
        except NoStaticEmbedding as error:
            raise ArtefactError(f"it reads word vectors: {error}") from error
    routing = settings.routing
    policy = Policy(
        artefact=artefact,
        epsilon=routing.exploration,
        max_regret=routing.max_regret,
        prices=pair_prices(settings.prices),
    )
    for target in Target:
        policy.check(RouteOptions(target=target.value))
    return policy


def load_encoder(settings: Settings) -> Embed | None:
    """The sentence encoder that is configured; None where none is. Raises NoEncoder for a folder that holds none."""
    folder = settings.routing.embedding_model
    return None if folder is None else SentenceEncoder.load(folder)


def _check_encoder(artefact: RouterArtefact, folder: Path | None) -> None:
    """Raise ArtefactError where there is no encoder, or one of another width than the router was trained on."""
    if folder is None:
        raise ArtefactError("it reads sentence embeddings: set routing.embedding_model to the encoder's folder")
    try:
        width = msgspec.json.decode((folder / "config.json").read_bytes(), type=_EncoderConfig).hidden_size
        artefact.predict([extract("", RequestFacts(), embedding=np.ones(width, np.float32))])
    except (OSError, ValueError) as error:
        raise ArtefactError(f"it was not trained on the encoder in {folder}: {error}") from error


class _EncoderConfig(msgspec.Struct):
    hidden_size: int


def pair_prices(table: PriceTable) -> Prices:
    """The pair's prices as the router counts them, USD per token."""
    small, large = (
        TokenPrice(input_usd=price.input / _TOKENS, output_usd=price.output / _TOKENS)
        for price in (table.price("small"), table.price("large"))
    )
    return Prices(small=small, large=large)
