"""The server process: uvicorn, with a shutdown that drains first."""

import logging
from types import FrameType
from typing import Any

import uvicorn
from litestar import Litestar
from litestar.types import LifeSpanScope, Scope

from gateway.drain import Drain
from gateway.settings import Settings


class DrainingServer(uvicorn.Server):
    """At the first SIGTERM or SIGINT it goes on listening, so that `/health` can say 503, until running requests are
    done or their grace time is over; the second signal ends it at once. It then exits with code 0: it was asked to."""

    def __init__(self, config: uvicorn.Config, drain: Drain) -> None:
        super().__init__(config)
        self._drain = drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Called by the interpreter on a signal."""
        if self._drain.begun:
            self.should_exit = self.force_exit = True
        self._drain.begin()

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second; true ends its main loop."""
        if self._drain.is_over:
            self.should_exit = True
        return await super().on_tick(counter)


class _PlainStart:
    """Passes everything on, but a failed start as the one sentence that the application has for it."""

    def __init__(self, app: Litestar) -> None:
        self._app = app

    async def __call__(self, scope: Scope | LifeSpanScope, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def plain(message: Any) -> None:
            if message["type"] == "lifespan.startup.failed" and (said := self._app.state.get("start_error")):
                message = {**message, "message": said}
            await send(message)

        await self._app(scope, receive, plain)


def serve(app: Litestar, drain: Drain, settings: Settings) -> None:
    """Serve until a signal comes. Raises SystemExit when the address is taken or the application does not start."""
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = uvicorn.Config(
        _PlainStart(app),
        host=settings.host,
        port=settings.port,
        lifespan="on",
        access_log=False,
        log_config=None,
        log_level=settings.log_level,
        server_header=False,
        h11_max_incomplete_event_size=64 * 1024,
        timeout_graceful_shutdown=1,
    )
    DrainingServer(config, drain).run()
