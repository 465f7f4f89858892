"""What the handlers share: built once when the application starts, closed when it ends."""

import asyncio
from dataclasses import dataclass, field

from engine.client import EngineClient
from gateway.accounts.authenticator import Authenticator
from gateway.drain import Drain
from gateway.openai.intake import Intake
from gateway.routing.catalogue import Catalogue
from gateway.routing.grade_book import GradeBook
from gateway.routing.live_grading import LiveGrading
from gateway.routing.live_shadow import LiveShadow
from gateway.routing.router import Router
from gateway.routing.served_routers import ServedRouters
from gateway.settings import Settings
from gateway.storage.database import Database
from gateway.storage.decisions import SqlDecisions
from gateway.storage.protocols import Recorder
from gateway.storage.recent import RecentDecisions
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.tracing import Tracing


@dataclass(frozen=True, slots=True)
class Services:
    """The application's parts; handlers find it as `app.state.services`.

    recorder: where rows go; recent: the same, as the memory of the last decisions; decisions: all that are stored.
    grades: takes all that is said of answers. shadow: compares the models on some of the live requests; grading: grades
    some of the other answers. routers: those that there are, one of which decides.
    reports: held while one is computed, so that reports never take more than one thread from serving.
    """

    settings: Settings
    engine: EngineClient
    catalogue: Catalogue
    intake: Intake
    router: Router
    routers: ServedRouters
    authenticator: Authenticator
    recorder: Recorder
    recent: RecentDecisions
    decisions: SqlDecisions
    database: Database
    grades: GradeBook
    shadow: LiveShadow
    grading: LiveGrading
    metrics: Metrics
    tracing: Tracing
    drain: Drain
    reports: asyncio.Lock = field(default_factory=asyncio.Lock)
