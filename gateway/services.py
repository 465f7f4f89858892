"""What the handlers share: built once when the application starts, closed when it ends."""

from dataclasses import dataclass

from engine.client import EngineClient
from gateway.accounts.authenticator import Authenticator
from gateway.drain import Drain
from gateway.openai.intake import Intake
from gateway.routing.catalogue import Catalogue
from gateway.routing.router import Router
from gateway.settings import Settings
from gateway.storage.protocols import Recorder
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.tracing import Tracing


@dataclass(frozen=True, slots=True)
class Services:
    """The application's parts; handlers find it as `app.state.services`."""

    settings: Settings
    engine: EngineClient
    catalogue: Catalogue
    intake: Intake
    router: Router
    authenticator: Authenticator
    recorder: Recorder
    metrics: Metrics
    tracing: Tracing
    drain: Drain
