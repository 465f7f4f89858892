"""The router itself, on a real engine and with a trained policy: what it holds, what it counts, whom it asks."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from engine.client import EngineClient
from gateway.accounts.authenticator import Principal
from gateway.engine_host import pair_config
from gateway.openai.intake import Intake
from gateway.openai.job import Arrival
from gateway.openai.prompt import prompters
from gateway.routing.catalogue import Catalogue
from gateway.routing.load import Load
from gateway.routing.offers import Offers
from gateway.routing.pair import ServedPair
from gateway.routing.policy_source import load_policy, policy_of, promoted_policy
from gateway.routing.question import Question
from gateway.routing.router import Route, Router
from gateway.routing.wishes import RouterConflict
from gateway.settings import EngineSettings, RoutingSettings, Settings
from gateway.storage.identifiers import new_id
from router_model.artefact import ArtefactError, RouterArtefact
from router_model.bundle import bundle
from router_model.features import Features, Kind
from router_model.options import Action
from router_model.policy import Policy
from router_model.registry import Registry
from router_model.training import train
from tests.gateway.server import Checkpoints
from tests.router_model.worlds import QUICK, make_outcomes

WIDTH = 12
ON_MODULE = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True, slots=True)
class World:
    """A running pair, its router's artefact, and how its requests are read."""

    engine: EngineClient
    catalogue: Catalogue
    intake: Intake
    artefact: RouterArtefact

    def router(self, **routing: Any) -> Router:
        """A fresh one; without exploration unless it is asked for."""
        settings = RoutingSettings(**{"exploration": 0.0, **routing})
        policy = policy_of(self.artefact, msgspec.structs.replace(self.intake.settings, routing=settings))
        load = Load(self.catalogue.models, overload_wait_s=settings.overload_wait_s)
        offers = Offers(self.catalogue, self.intake.settings.prices, load)
        return Router(self.engine, policy, settings, np.random.default_rng(0), offers)

    async def question(self, text: str = "a question", **fields: Any) -> Question:
        body = {"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": 30, **fields}
        job = await self.intake.read(msgspec.json.encode(body), Principal(None, "x"), Arrival())
        return job.question()

    async def routed(self, router: Router, /, **fields: Any) -> Route:
        """A decision whose prefill is given back at once."""
        route = await router.route(await self.question(**fields))
        router.drop(route)
        return route

    def is_clean(self, router: Router) -> bool:
        return self.engine.n_calls == self.engine.n_held == 0 and router.load.is_idle


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(checkpoints: Checkpoints, router_folder: Path) -> AsyncIterator[World]:
    settings = Settings(
        small=checkpoints.small,
        large=checkpoints.large,
        engine=EngineSettings(mode="thread", dtype="float32", threads=1, kv_bytes=64 << 20),
    )
    async with EngineClient.in_process(pair_config(settings)) as engine:
        catalogue = Catalogue(engine.info())
        intake = Intake(settings, catalogue, prompters(catalogue, settings.dialects), b"salt")
        yield World(engine, catalogue, intake, RouterArtefact.load(router_folder))


class Failing(Policy):
    """A policy that breaks once its features are there."""

    def decide(self, *_: Any) -> Any:
        raise ArithmeticError("broken")


@ON_MODULE
async def test_a_decision_that_fails_holds_nothing(world: World) -> None:
    router = world.router(early=False)
    router.use(Failing(artefact=world.artefact))
    with pytest.raises(ArithmeticError):
        await router.route(await world.question())
    assert world.is_clean(router)


@ON_MODULE
async def test_a_decision_that_is_cancelled_during_its_prefill_holds_nothing(world: World) -> None:
    router = world.router(early=False)
    for wait_s in (0.0, 0.001, 0.005, 0.02):
        asking = asyncio.create_task(
            router.route(await world.question("a long question " * 100, cache_salt=str(wait_s)))
        )
        await asyncio.sleep(wait_s)
        asking.cancel()
        [found] = await asyncio.gather(asking, return_exceptions=True)
        if isinstance(found, Route):
            router.drop(found)
        await asyncio.sleep(0.2)  # a prefill that nobody waits for any more is released when it comes
        assert world.is_clean(router)


@ON_MODULE
async def test_a_prefill_that_goes_on_keeps_its_place_in_the_load(world: World) -> None:
    router = world.router(early=False)
    small = await router.route(await world.question(router={"quality": 0}))
    assert (small.decision.model, router.load.counts()["small_waiting"]) == ("small", 1)
    assert small.prepared is not None
    assert small.ticket is not None
    router.drop(small)
    large = await router.route(await world.question(model="auto-quality"))
    assert (large.decision.model, large.ticket, router.load.is_idle) == ("large", None, True)
    assert large.prepared is not None, "it is to be paid for, and released by whoever took the decision"
    router.drop(large)
    assert world.is_clean(router)


@ON_MODULE
async def test_a_decision_keeps_the_policy_that_it_began_with(world: World) -> None:
    router = world.router(early=False)
    asking = asyncio.create_task(router.route(await world.question(cache_salt="swap")))
    await asyncio.sleep(0)
    router.use(None)
    route = await asking
    router.drop(route)
    assert route.decision.artefact_hash == world.artefact.hash
    after = await world.routed(router)
    assert (after.decision.artefact_hash, after.decision.reason) == (None, "no_router")


@ON_MODULE
async def test_a_dry_run_teaches_nothing(world: World) -> None:
    router = world.router(exploration=0.5)
    policy = router.policy
    assert policy is not None
    wish: dict[str, Any] = {"model": "auto-cost", "router": {"cost": 0.6}}
    before = await world.routed(router, **wish)
    assert before.ruling is not None
    controller = policy.planner.plan(before.ruling.options).controller
    assert controller is not None
    spent = controller.overspent
    for _ in range(20):
        dry = await router.route(await world.question(**wish), is_dry=True)
        router.drop(dry)
        assert (dry.decision.explored, dry.decision.propensity) == (False, 1.0)
    assert controller.overspent == spent
    for _ in range(20):
        await world.routed(router, **wish)
    assert controller.overspent != spent


@ON_MODULE
async def test_explored_and_kept_decisions_have_their_probability(world: World) -> None:
    router = world.router(exploration=0.3, early=False)
    found = [(await world.routed(router, model="auto-quality")).decision for _ in range(95)]
    explored = [one for one in found if one.explored]
    assert {one.propensity for one in explored} == {0.3}
    assert {one.propensity for one in found if not one.explored} == {0.7}
    assert len({one.model for one in explored}) == len({one.model for one in found if not one.explored}) == 1
    assert 8 <= len(explored) <= 50  # 28.5 expected, 4.6 standard deviations; of more alike the router would notice it
    off = [(await world.routed(router, model="auto-quality", router={"explore": False})).decision for _ in range(30)]
    assert {(one.explored, one.propensity) for one in off} == {(False, 1.0)}


@ON_MODULE
async def test_features_are_logged_without_text_and_only_where_they_are_wanted(world: World) -> None:
    logged = (await world.routed(world.router(early=False), text="sesquipedalian")).decision.features
    assert logged is not None
    assert b"sesquipedalian" not in logged
    assert Features.unpack(logged).kind is Kind.STATE
    assert (await world.routed(world.router(log_features=False))).decision.features is None


@ON_MODULE
async def test_wishes_that_exclude_each_other_are_refused_before_any_prefill(world: World) -> None:
    router = world.router()
    before = (await world.engine.stats())["small"]["prepared"]
    with pytest.raises(RouterConflict, match="budget"):
        await router.route(await world.question(router={"quality": 1, "cost": 0.2}))
    assert (await world.engine.stats())["small"]["prepared"] == before


@ON_MODULE
async def test_a_request_that_no_one_can_afford_is_answered_by_the_cheapest_and_told_so(world: World) -> None:
    decision = (await world.routed(world.router(), model="auto-quality", router={"max_cost_usd": 0})).decision
    assert (decision.model, decision.reason, decision.exceeds) == ("small", "over_budget", ("over_budget",))
    assert decision.propensity == 1.0


@ON_MODULE
async def test_grades_of_its_own_decisions_are_noticed_and_those_of_others_are_not(world: World) -> None:
    router = world.router()
    policy = router.policy
    assert policy is not None
    for _ in range(100):
        router.graded(new_id(), "another", "small", 0.9, 0.0)
    assert not policy.monitor.state.reasons
    told = new_id()
    for _ in range(100):
        router.graded(told, world.artefact.hash, "small", 0.9, 0.0)
        router.graded(new_id(), world.artefact.hash, "small", 0.9, 0.0, weight=1e-3)
    assert not policy.monitor.state.reasons, "one answer counts once, and a light grade little"
    for _ in range(100):
        router.graded(new_id(), world.artefact.hash, "small", 0.9, 0.0)
    assert f"calibration_{Action.SMALL.value}" in policy.monitor.state.reasons
    decision = (await world.routed(router)).decision
    assert not decision.is_calibrated
    assert decision.model == "large", "a quality that nobody can promise is the large model's"


@ON_MODULE
async def test_no_decision_expects_a_longer_answer_than_the_request_allows(world: World) -> None:
    decision = (await world.routed(world.router(), max_tokens=1)).decision
    assert decision.circumstances is not None
    assert decision.circumstances.max_tokens == 1
    assert set(decision.expected_cost_usd) == {"small", "large"}
    for alias, usd in decision.expected_cost_usd.items():
        offer = decision.circumstances.offer(Action(alias))
        route_usd = decision.circumstances.route_usd if alias == "large" else 0.0
        assert usd <= offer.prompt_usd + offer.output_usd_per_token + route_usd + 1e-12


def encode(texts: Sequence[str]) -> NDArray[np.float32]:
    """A sentence encoder that knows lengths only."""
    return np.array([[len(text), *([1.0] * (WIDTH - 1))] for text in texts], np.float32)


@ON_MODULE
async def test_routers_of_the_other_kinds_need_no_prefill(world: World) -> None:
    outcomes = make_outcomes(200, with_state=False)
    for kind, embed in ((Kind.TEXT, None), (Kind.EMBEDDING, encode)):
        trained = train(outcomes, QUICK, embed)
        policy = Policy(artefact=bundle(trained, outcomes), epsilon=0.0)
        assert policy.kind is kind
        load = Load(world.catalogue.models, overload_wait_s=2.0)
        offers = Offers(world.catalogue, world.intake.settings.prices, load)
        router = Router(world.engine, policy, RoutingSettings(), np.random.default_rng(0), offers, embed)
        route = await router.route(await world.question("check the weather for day 3"))
        assert (route.prepared, route.ticket, route.decision.policy) == (None, None, f"{kind.value}-router-2")
        assert route.decision.p_small is not None
        assert route.decision.features is not None
        assert Features.unpack(route.decision.features).kind is kind
        assert world.is_clean(router)


def test_a_router_of_embeddings_needs_the_encoder_that_it_was_trained_on(world: World, tmp_path: Path) -> None:
    outcomes = make_outcomes(200, with_state=False)
    artefact = bundle(train(outcomes, QUICK, encode), outcomes)
    settings = world.intake.settings

    def with_encoder(width: int) -> Settings:
        (tmp_path / "config.json").write_text(json.dumps({"hidden_size": width}))
        return msgspec.structs.replace(settings, routing=RoutingSettings(embedding_model=tmp_path))

    with pytest.raises(ArtefactError, match=r"set routing\.embedding_model"):
        policy_of(artefact, settings)
    with pytest.raises(ArtefactError, match="was not trained on the encoder"):
        policy_of(artefact, with_encoder(WIDTH + 1))
    assert policy_of(artefact, with_encoder(WIDTH)).kind is Kind.EMBEDDING


def test_the_promoted_router_is_used_then_the_configured_one_then_none(
    world: World, router_folder: Path, tmp_path: Path
) -> None:
    plain = world.intake.settings
    settings = msgspec.structs.replace(plain, data_dir=tmp_path, router=router_folder)
    other = dataclasses.replace(
        world.artefact, manifest=msgspec.structs.replace(world.artefact.manifest, seed=world.artefact.manifest.seed + 1)
    )
    configured = load_policy(settings, world.catalogue)
    assert configured is not None
    assert configured.artefact.hash == world.artefact.hash
    registry = Registry(settings.registry_dir)
    registry.promote(registry.add(other))
    promoted = load_policy(settings, world.catalogue)
    assert promoted is not None
    assert promoted.artefact.hash == other.hash != world.artefact.hash
    assert (
        promoted_policy(other.hash[:12], settings, ServedPair.of_catalogue(world.catalogue)).artefact.hash == other.hash
    )
    strange = dataclasses.replace(
        other,
        manifest=msgspec.structs.replace(other.manifest, small_model="another", seed=world.artefact.manifest.seed),
    )
    registry.promote(registry.add(strange))
    fallback = load_policy(settings, world.catalogue)
    assert fallback is not None
    assert fallback.artefact.hash == world.artefact.hash, "one of another pair is passed over"
    assert load_policy(msgspec.structs.replace(settings, router=tmp_path / "none"), world.catalogue) is None
