"""Puts the application together: `create_app(settings)` is all that a server needs."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

import numpy as np
from litestar import Litestar
from litestar.types import ControllerRouterHandler

from engine.request import EngineDied
from engine.transport import LoadFailed
from gateway.accounts.authenticator import Authenticator
from gateway.drain import Drain
from gateway.engine_host import start_engine
from gateway.health import live, metrics, ready, show_version
from gateway.openai.chat import create_chat_completion
from gateway.openai.errors import exception_handlers
from gateway.openai.guard import require_key
from gateway.openai.identity import ResponseIdentity
from gateway.openai.intake import Intake
from gateway.openai.models import get_model, list_models
from gateway.openai.prompt import prompters
from gateway.router_api.artefacts import change_artefact, list_artefacts
from gateway.router_api.calibrate import calibrate
from gateway.router_api.decide import decide
from gateway.router_api.evaluate import evaluate_policy
from gateway.router_api.outcomes import create_outcomes
from gateway.router_api.report import show_report
from gateway.router_api.shadow import change_shadow, show_shadow
from gateway.routing.catalogue import Catalogue
from gateway.routing.grade_book import GradeBook
from gateway.routing.grading import live_grader
from gateway.routing.live_grading import LiveGrading
from gateway.routing.live_shadow import LiveShadow
from gateway.routing.load import Load
from gateway.routing.offers import Offers
from gateway.routing.policy_source import load_encoder, load_policy
from gateway.routing.router import Router
from gateway.routing.served_routers import ServedRouters
from gateway.routing.sessions import Sessions
from gateway.services import Services
from gateway.settings import Settings, SettingsError
from gateway.storage.database import Database
from gateway.storage.decisions import SqlDecisions
from gateway.storage.keys import SqlKeyRepository
from gateway.storage.migrate import upgrade_async
from gateway.storage.protocols import StorageUnavailable
from gateway.storage.recent import RecentDecisions
from gateway.storage.sink import SqlRecordSink
from gateway.storage.spool import Spool, SpoolError
from gateway.storage.write_behind import WriteBehind
from gateway.telemetry.engine_life import EngineLifeCollector
from gateway.telemetry.learning_metrics import LearningCollector
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.router_metrics import RouterCollector
from gateway.telemetry.tracing import Tracing, TracingError

log = logging.getLogger(__name__)

# What a person can put right: settings, checkpoints, the data folder, the tracing variables.
_UNUSABLE = (SettingsError, LoadFailed, EngineDied, SpoolError, TracingError, OSError, ValueError)

ROUTES: tuple[ControllerRouterHandler, ...] = (
    create_chat_completion,
    list_models,
    get_model,
    live,
    ready,
    show_version,
    metrics,
    decide,
    create_outcomes,
    show_report,
    evaluate_policy,
    show_shadow,
    change_shadow,
    list_artefacts,
    change_artefact,
    calibrate,
)


def create_app(settings: Settings, *, drain: Drain | None = None) -> Litestar:
    """The application. It starts the engine, opens storage and loads the router when the server starts it.

    drain: shared with the server process, so that a signal can close the door (see `gateway.serving`).
    """
    door = drain or Drain(settings.shutdown_grace_s)

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                app.state.services = await _start(settings, door, stack)
            except _UNUSABLE as error:
                app.state.start_error = str(error)  # for the server process, which says it without a traceback
                raise
            yield

    app = Litestar(
        route_handlers=ROUTES,
        lifespan=[lifespan],
        guards=[require_key],
        exception_handlers=exception_handlers(),
        request_max_body_size=settings.limits.body_bytes,
        openapi_config=None,
        logging_config=None,
    )
    app.asgi_handler = ResponseIdentity(app.asgi_handler)
    return app


async def _start(settings: Settings, drain: Drain, stack: AsyncExitStack) -> Services:
    """Everything that handlers share; what must be closed is pushed on the stack, which closes in reverse order."""
    tracing = Tracing.from_environment(version=version("pointsman"))
    stack.callback(tracing.close)
    recorder, database = await _open_storage(settings, stack)
    recent = RecentDecisions(recorder)
    metrics = Metrics()
    metrics.watch_writes(lambda: (recorder.stats, recorder.spool_bytes))
    engine = await start_engine(settings)
    stack.push_async_callback(engine.close)
    metrics.watch(EngineLifeCollector(engine, drain))
    catalogue = Catalogue(engine.info())
    routing = settings.routing
    load = Load(catalogue.models, overload_wait_s=routing.overload_wait_s)
    policy = await asyncio.to_thread(load_policy, settings, catalogue)
    encoder = await asyncio.to_thread(load_encoder, settings)
    offers = Offers(catalogue, settings.prices, load)
    router = Router(engine, policy, routing, np.random.default_rng(), offers, encoder)
    routers = ServedRouters(settings, catalogue, router)
    routers.start()
    stack.push_async_callback(routers.close)
    grades = GradeBook(recorder, router.graded)
    shadow = LiveShadow(
        engine,
        catalogue,
        load,
        grades,
        live_grader(routing, at_once=2 * routing.shadow_at_once),
        settings.prices,
        np.random.default_rng(),
        share=routing.shadow_share,
        at_once=routing.shadow_at_once,
    )
    shadow.start()
    stack.push_async_callback(shadow.close)
    grading = LiveGrading(
        live_grader(routing, at_once=routing.grade_at_once),
        grades,
        np.random.default_rng(),
        share=routing.graded_share,
        at_once=routing.grade_at_once,
    )
    grading.start()
    stack.push_async_callback(grading.close)
    metrics.watch(RouterCollector(router, grades))
    metrics.watch(LearningCollector(grades, shadow, grading))
    return Services(
        settings=settings,
        engine=engine,
        catalogue=catalogue,
        intake=Intake(
            settings,
            catalogue,
            prompters(catalogue, settings.dialects),
            secrets.token_bytes(32),
            Sessions(idle_s=routing.session_idle_s),
        ),
        router=router,
        routers=routers,
        authenticator=Authenticator(
            SqlKeyRepository(database),
            host=settings.host,
            pepper=settings.accounts.key_pepper,
            cache_s=settings.accounts.cache_s,
            outage_grace_s=settings.accounts.outage_grace_s,
        ),
        recorder=recent,
        recent=recent,
        decisions=SqlDecisions(database),
        database=database,
        grades=grades,
        shadow=shadow,
        grading=grading,
        metrics=metrics,
        tracing=tracing,
        drain=drain,
    )


async def _open_storage(settings: Settings, stack: AsyncExitStack) -> tuple[WriteBehind, Database]:
    """SQLite is brought to the newest schema here, so that the first command works; a shared database is migrated by
    `pointsman migrate`, once and not by every gateway."""
    storage = settings.storage
    spool = Spool(settings.spool_dir, max_bytes=storage.spool_bytes)
    if settings.storage_url.startswith("sqlite"):
        try:
            await upgrade_async(settings.storage_url)
        except StorageUnavailable as error:
            log.warning("the database is not ready, rows wait in the spool: %s", error)
    database = Database(settings.storage_url, timeout_s=storage.timeout_s, synchronous=storage.sqlite_synchronous)
    stack.push_async_callback(database.close)
    recorder = WriteBehind(
        SqlRecordSink(database),
        spool,
        flush_s=storage.flush_s,
        batch_rows=storage.batch_rows,
        overflow_rows=storage.overflow_rows,
    )
    recorder.start()
    stack.push_async_callback(recorder.close)
    return recorder, database
