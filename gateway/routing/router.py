"""Chooses the model of a request, and holds the prefill that the choice was read from."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.client import EngineClient
from engine.messages import Prepared
from gateway.routing.catalogue import Catalogue, Target, Wanted
from gateway.routing.decision import Decision, Reason
from gateway.routing.eligibility import Eligibility
from gateway.routing.rule import POLICY, decide_by_rule
from gateway.settings import RoutingSettings
from router_model.artefact import ArtefactError, RouterArtefact
from router_model.facts import RequestFacts
from router_model.features import Kind, extract
from router_model.policy import Action, Policy, RouteOptions
from router_model.prefill import PrefillState

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a decision is made from. text: all messages; prompt: token ids for the small model; explore: may explore."""

    wanted: Wanted
    eligibility: Eligibility
    text: str
    facts: RequestFacts
    prompt: list[int]
    salt: str
    explore: bool = True


@dataclass(frozen=True, slots=True)
class Route:
    """A decision, with the held prefill when one was made: to be continued on the small model, or released."""

    decision: Decision
    prepared: Prepared | None = None


class Router:
    """Answers many questions at once. policy None: there is no trained router for this pair, and a rule decides."""

    def __init__(
        self, engine: EngineClient, policy: Policy | None, settings: RoutingSettings, rng: np.random.Generator
    ) -> None:
        """rng: for exploration."""
        self._engine, self._policy, self._settings, self._rng = engine, policy, settings, rng

    @property
    def policy_name(self) -> str:
        """What decides, for decision rows."""
        return POLICY if self._policy is None else f"{self._policy.kind.value}-router-1"

    async def route(self, question: Question) -> Route:
        """The model for a request. Raises what `EngineClient.prepare` raises; nothing is held then."""
        wanted, eligibility = question.wanted, question.eligibility
        if wanted.model is not None:
            return Route(self._certain(question, wanted.model.alias, Reason.EXPLICIT))
        if len(eligibility.eligible) == 1:
            return Route(self._certain(question, eligibility.eligible[0], Reason.ONLY_ELIGIBLE))
        if self._policy is None or wanted.target is None:
            return Route(decide_by_rule(wanted.target or Target.AUTO, eligibility))
        prepared = None
        if self._policy.kind is Kind.STATE:
            prepared = await self._engine.prepare("small", question.prompt, salt=question.salt)
        try:
            return Route(self._decide(self._policy, wanted.target, question, prepared), prepared)
        except BaseException:
            if prepared is not None:
                self._engine.release(prepared.handle)
            raise

    def _decide(self, policy: Policy, target: Target, question: Question, prepared: Prepared | None) -> Decision:
        began = time.perf_counter()
        state = None
        if prepared is not None:
            state = PrefillState.from_bytes(prepared.state, prepared.state_shape, prepared.entropy, prepared.margin)
        options = RouteOptions(
            target=target.value,
            quality=self._settings.quality_target if target is Target.AUTO else None,
            explore=question.explore,
        )
        found = policy.decide(extract(question.text, question.facts, state), options, self._rng)
        tokens = {Action.SMALL: found.expected_small_tokens, Action.LARGE: found.expected_large_tokens}
        return Decision(
            model=found.action.value,
            reason=found.reason.value,
            policy=self.policy_name,
            eligible=question.eligibility.eligible,
            ineligible=question.eligibility.reasons,
            target=target.value,
            score=found.score,
            threshold=found.threshold,
            p_small=found.p_small,
            p_large=found.p_large,
            ood=found.ood,
            expected_tokens={action.value: n for action, n in tokens.items() if n is not None},
            propensity=found.propensity,
            explored=found.explored,
            artefact_hash=policy.artefact.hash,
            features_version=str(policy.artefact.manifest.feature_schema),
            overhead_s=time.perf_counter() - began,
        )

    def _certain(self, question: Question, model: str, reason: str) -> Decision:
        """A decision that left nothing to decide."""
        target = question.wanted.target
        return Decision(
            model=model,
            reason=reason,
            policy=self.policy_name,
            eligible=question.eligibility.eligible,
            ineligible=question.eligibility.reasons,
            target=None if target is None else target.value,
        )


def load_policy(folder: Path | None, catalogue: Catalogue, settings: RoutingSettings) -> Policy | None:
    """The trained router for the served pair; None, with a line in the log, where there is none that fits.

    An artefact that does not fit is no reason not to serve: the rule decides then, and every decision row says so.
    """
    if folder is None:
        log.info("no router is configured: `auto` follows the rule (reason no_router)")
        return None
    try:
        artefact = RouterArtefact.load(
            folder,
            small_model=catalogue["small"].info.fingerprint,
            large_model=catalogue["large"].info.fingerprint,
        )
        policy = Policy(artefact=artefact, epsilon=settings.exploration)
        for target in Target:
            policy.threshold(RouteOptions(target=target.value))
    except (ArtefactError, ValueError) as error:
        log.warning("`auto` follows the rule (reason no_router): %s", error)
        return None
    return policy
