"""Chooses the model of a request, and holds the prefill that the choice was read from.

explicit, only one eligible ─► that model, nothing is computed
no trained router           ─► the rule
a clear case                ─► the large model, before any prefill (early)
otherwise                   ─► the small model's prefill, then the policy: small continues it, large releases it
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from engine.client import EngineClient
from engine.messages import Prepared
from gateway.routing.decision import Decision, Reason
from gateway.routing.load import Load, Ticket
from gateway.routing.offers import Offers, Prefill
from gateway.routing.question import Question
from gateway.routing.rule import POLICY, decide_by_rule
from gateway.routing.wishes import RouterConflict, options_of, wanted_of
from gateway.settings import RoutingSettings
from router_model import decision as policies
from router_model.cascade import Answer
from router_model.circumstances import Circumstances
from router_model.escalation import Escalation
from router_model.features import Embed, Features, Kind, extract, extract_cheap
from router_model.options import Action, RouteOptions
from router_model.policy import Policy
from router_model.prefill import PrefillState
from router_model.thresholds import ConflictingWish, CurvePoint

Judge = Callable[[Answer], Escalation]

_MOST_GRADED = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class Ruling:
    """A policy's decision, with what it was asked, for all that comes after it."""

    policy: Policy
    found: policies.Decision
    options: RouteOptions
    circumstances: Circumstances

    def judge(self, answer: Answer) -> Escalation:
        """The policy's word on the small model's answer."""
        return self.policy.judge(self.found, answer, self.options, self.circumstances)


@dataclass(frozen=True, slots=True)
class Route:
    """A decision, with what it was made from.

    prepared: the held prefill on the small model, to be continued there or released. ticket: its place in the load, for
    whoever continues it; None where nobody does. ruling: the policy's decision, None where no trained router decided;
    features: what it read; promise: what its threshold promises.
    """

    decision: Decision
    prepared: Prepared | None = None
    ticket: Ticket | None = None
    ruling: Ruling | None = field(default=None, repr=False)
    features: Features | None = field(default=None, repr=False)
    promise: CurvePoint | None = None

    @property
    def judge(self) -> Judge | None:
        """Of the small model's answer; None where no trained router decided, or one that learned nothing of answers."""
        ruling = self.ruling
        return None if ruling is None or ruling.policy.artefact.cascade is None else ruling.judge

    def on_escalated(self) -> None:
        """To be called when the large model answers again: the policy counts it towards what it keeps."""
        if self.ruling is not None:
            self.ruling.policy.observe_escalation(self.ruling.found, self.ruling.circumstances)


@dataclass(slots=True)
class _Case:
    """A question with the policy that decides it, what that is asked, and what it promises.

    spent_s: by deciding itself, so far.
    """

    question: Question
    policy: Policy
    options: RouteOptions
    promise: CurvePoint
    spent_s: float


class Router:
    """Answers many questions at once. policy None: there is no trained router for this pair, and a rule decides."""

    def __init__(
        self,
        engine: EngineClient,
        policy: Policy | None,
        settings: RoutingSettings,
        rng: np.random.Generator,
        offers: Offers,
        embed: Embed | None = None,
    ) -> None:
        """rng: for exploration. embed: the sentence encoder, for a policy that reads its embeddings."""
        self._engine, self._policy, self._settings, self._rng = engine, policy, settings, rng
        self._offers, self._embed = offers, embed
        self._graded: dict[tuple[uuid.UUID, str], None] = {}  # the last ones, in order

    @property
    def policy(self) -> Policy | None:
        """The trained router in force."""
        return self._policy

    @property
    def load(self) -> Load:
        """What the engine has to do."""
        return self._offers.load

    def use(self, policy: Policy | None) -> None:
        """Decide with another router from now on; decisions that are being made keep the one they began with."""
        self._policy = policy

    async def route(self, question: Question, *, is_dry: bool = False) -> Route:
        """The model for a request. is_dry: nothing is learned from it, and nothing explored.

        Raises RouterConflict for wishes that cannot be had together, and what `EngineClient.prepare` raises; nothing is
        held then.
        """
        wanted, eligible, policy = question.wanted, question.eligibility.eligible, self._policy
        if wanted.model is not None:
            return self._certain(question, wanted.model.alias, Reason.EXPLICIT)
        if policy is None and len(eligible) == 1:
            return self._certain(question, eligible[0], Reason.ONLY_ELIGIBLE)
        if policy is None:
            decision = decide_by_rule(question, self._offers.circumstances(question), self._offers.catalogue)
            return Route(replace(decision, load=self.load.counts()))
        began_s = time.perf_counter()
        options = options_of(question, self._settings, explore=not is_dry)
        try:
            promise = policy.check(options)
        except ConflictingWish as conflict:
            raise RouterConflict(str(conflict)) from conflict
        case = _Case(question, policy, options, promise, time.perf_counter() - began_s)
        if len(eligible) == 1:
            return self._settled(case, is_dry=is_dry)
        route = await self._routed(case)
        if not is_dry and route.ruling is not None:
            policy.observe(route.ruling.found)
        return route

    def graded(
        self, decision_id: uuid.UUID, artefact_hash: str | None, model: str, p: float, score: float, weight: float = 1.0
    ) -> None:
        """Tell the policy how good an answer was, so that it notices a drift.

        p: what that artefact predicted; weight: what the grade counts, above 0 to 1. Grades of another router's
        decisions say nothing of this one's, and are passed over. An answer counts once, however often it is graded.
        """
        if self._policy is None or self._policy.artefact.hash != artefact_hash:
            return
        if (decision_id, model) in self._graded:
            return
        self._graded[decision_id, model] = None
        if len(self._graded) > _MOST_GRADED:
            del self._graded[next(iter(self._graded))]
        self._policy.monitor.saw_score(Action(model), p, score, weight)

    def drop(self, route: Route) -> None:
        """Give back what a route holds, where nobody continues it."""
        if route.ticket is not None:
            self.load.finished(route.ticket)
        if route.prepared is not None:
            self._engine.release(route.prepared.handle)

    async def _routed(self, case: _Case) -> Route:
        text = case.question.text()
        match case.policy.kind:
            case Kind.TEXT:
                return self._decided(case, text)
            case Kind.EMBEDDING:
                return self._decided(case, text, await asyncio.to_thread(self._embedded, text))
            case Kind.STATE:
                began_s = time.perf_counter()
                cheap = extract_cheap(text, case.question.facts())
                case.spent_s += time.perf_counter() - began_s
                early = self._decided_early(case, cheap) if self._settings.early else None
                return early or await self._decided_late(case, cheap)

    def _decided(self, case: _Case, text: str, embedding: NDArray[np.float32] | None = None) -> Route:
        """From the text, or its embedding, alone."""
        began_s = time.perf_counter()
        features = extract(text, case.question.facts(), embedding=embedding)
        circumstances = self._offers.circumstances(case.question)
        found = case.policy.decide(features, case.options, circumstances, self._rng)
        case.spent_s += time.perf_counter() - began_s
        return self._route(case, found, features, circumstances)

    def _decided_early(self, case: _Case, cheap: Features) -> Route | None:
        """A clear case, without a prefill."""
        began_s = time.perf_counter()
        circumstances = self._offers.circumstances(case.question)
        found = case.policy.decide_early(cheap, case.options, circumstances, self._rng)
        case.spent_s += time.perf_counter() - began_s
        return None if found is None else self._route(case, found, cheap, circumstances)

    async def _decided_late(self, case: _Case, cheap: Features) -> Route:
        """From the small model's prefill, which is held until whoever gets the route continues or releases it."""
        question, load = case.question, self.load
        prompt, warm = question.prompts["small"], self._offers.warm_tokens(question, "small")
        ticket = load.submitted("small", len(prompt), cached_tokens=warm, rows=question.n)
        try:
            prepared = await self._engine.prepare(
                "small",
                prompt,
                salt=question.salt,
                turn_start=question.turn_start,
                params=question.opening(self._offers.catalogue["small"]),
            )
        except BaseException:
            load.finished(ticket)
            raise
        try:
            began_s = time.perf_counter()
            state = PrefillState.from_bytes(prepared.state, prepared.state_shape, prepared.entropy, prepared.margin)
            features = cheap.with_state(state)
            circumstances = self._offers.circumstances(question, Prefill(prepared, ticket))
            found = case.policy.decide(features, case.options, circumstances, self._rng)
            case.spent_s += time.perf_counter() - began_s
            route = self._route(case, found, features, circumstances)
        except BaseException:
            load.finished(ticket)
            self._engine.release(prepared.handle)
            raise
        if found.action is Action.SMALL:
            return replace(route, prepared=prepared, ticket=ticket)
        load.finished(ticket)
        return replace(route, prepared=prepared)

    def _route(self, case: _Case, found: policies.Decision, features: Features, circumstances: Circumstances) -> Route:
        """The policy's decision as the gateway's, with the small model's judge."""
        question, policy, options = case.question, case.policy, case.options
        tokens = {Action.SMALL: found.expected_small_tokens, Action.LARGE: found.expected_large_tokens}
        decision = Decision(
            model=found.action.value,
            reason=found.reason.value,
            policy=policy_name(policy),
            eligible=question.eligibility.eligible,
            ineligible=question.eligibility.reasons,
            target=options.target,
            wanted=wanted_of(options),
            route=options.route,
            session_hash=question.session.id,
            score=found.score,
            rank=found.rank,
            threshold=found.threshold,
            p_small=found.p_small,
            p_large=found.p_large,
            ood=found.ood,
            expected_tokens={action.value: n for action, n in tokens.items() if n is not None},
            expected_cost_usd=_by_alias(found.expected_cost_usd),
            expected_ttft_s=_by_alias(found.expected_ttft_s),
            load=self.load.counts(),
            propensity=found.propensity,
            explored=found.explored,
            pinned=found.reason is policies.Reason.PINNED,
            is_calibrated=found.is_calibrated,
            is_early=found.is_early,
            exceeds=tuple(limit.value for limit in found.exceeds),
            read=features if self._settings.log_features else None,
            artefact_hash=policy.artefact.hash,
            features_version=str(policy.artefact.manifest.feature_schema),
            overhead_s=case.spent_s,
            options=options,
            circumstances=circumstances,
        )
        return Route(
            decision, ruling=Ruling(policy, found, options, circumstances), features=features, promise=case.promise
        )

    def _settled(self, case: _Case, *, is_dry: bool) -> Route:
        """Where one model is eligible: nothing of the request is read, but what it costs and breaks is told and counts.

        There is no second chance: it has no other model.
        """
        question, policy = case.question, case.policy
        circumstances = self._offers.circumstances(question)
        found = policy.settle(case.options, circumstances, self._rng)
        if not is_dry:
            policy.observe(found)
        decision = replace(
            self._certain(question, found.action.value, Reason.ONLY_ELIGIBLE).decision,
            wanted=wanted_of(case.options),
            expected_cost_usd=_by_alias(found.expected_cost_usd),
            expected_ttft_s=_by_alias(found.expected_ttft_s),
            is_calibrated=found.is_calibrated,
            exceeds=tuple(limit.value for limit in found.exceeds),
            options=case.options,
            circumstances=circumstances,
        )
        return Route(decision, promise=case.promise)

    def _certain(self, question: Question, model: str, reason: str) -> Route:
        """A decision that left nothing to decide."""
        target = question.wanted.target
        decision = Decision(
            model=model,
            reason=reason,
            policy=POLICY if self._policy is None else policy_name(self._policy),
            eligible=question.eligibility.eligible,
            ineligible=question.eligibility.reasons,
            target=None if target is None else target.value,
            wanted=question.wishes,
            route=question.ask.route or "",
            session_hash=question.session.id,
            load=self.load.counts(),
            is_calibrated=target is None or model == "large",
        )
        return Route(decision)

    def _embedded(self, text: str) -> NDArray[np.float32]:
        if self._embed is None:
            raise RuntimeError("the policy reads embeddings, and there is no encoder")
        embedding: NDArray[np.float32] = self._embed([text])[0]
        return embedding


def policy_name(policy: Policy) -> str:
    """What decides, for decision rows."""
    return f"{policy.kind.value}-router-2"


def _by_alias(values: Mapping[Action, float] | None) -> dict[str, float]:
    return {} if values is None else {action.value: value for action, value in values.items()}
