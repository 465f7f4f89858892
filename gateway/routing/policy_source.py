"""Where the router in force comes from: the registry's current artefact, else the configured or bundled folder, else
none, and a rule decides."""

import logging
from pathlib import Path

import msgspec
import numpy as np

from gateway.prices import PriceTable
from gateway.routing.catalogue import Catalogue, Target
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


def load_policy(settings: Settings, catalogue: Catalogue) -> Policy | None:
    """The trained router for the served pair; None, with a line in the log, where there is none that fits.

    An artefact that does not fit is no reason not to serve: the next source is tried, and every decision row says what
    decided.
    """
    try:
        if (current := Registry(settings.registry_dir).current()) is not None:
            return promoted_policy(current, settings, catalogue)
    except (LookupError, ValueError, OSError) as error:
        log.warning("the router that was promoted is not used: %s", error)
    if settings.router_path is None:
        log.info("no router is configured: `auto` follows the rule (reason no_router)")
        return None
    try:
        return policy_of(RouterArtefact.load(settings.router_path, **_pair(catalogue)), settings)
    except ValueError as error:
        log.warning("`auto` follows the rule (reason no_router): %s", error)
        return None


def promoted_policy(name: str, settings: Settings, catalogue: Catalogue) -> Policy:
    """The policy of a router in the registry, by its hash.

    Raises UnknownArtefact, and ArtefactError for one that is not of the served pair.
    """
    return policy_of(Registry(settings.registry_dir).load(name, **_pair(catalogue)), settings)


def _pair(catalogue: Catalogue) -> dict[str, str]:
    """The served pair's fingerprints."""
    return {f"{alias}_model": catalogue[alias].info.fingerprint for alias in ("small", "large")}


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
