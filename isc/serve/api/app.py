"""The web application: API, page, and what protects both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp

from isc import __version__
from isc.serve.api import (
    admin,
    callbacks,
    caption_page,
    captions,
    description,
    images,
    metrics,
    pages,
    pictures,
    problems,
    review,
)
from isc.serve.api.broker import Broker
from isc.serve.api.guard import Shield
from isc.serve.api.rates import Rates
from isc.serve.api.state import State
from isc.serve.database import Database
from isc.serve.settings import Settings

STATIC = Path(__file__).parents[1] / "static"
ABOUT = "Pictures in, copies and labels out, people decide. Errors are problem details (RFC 9457)."


def create_app(settings: Settings, database: Database | None = None) -> FastAPI:
    """Return the application for these settings."""
    store = database or Database(settings.database)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        app.state.shared.broker.close()
        app.state.shared.reader.close()
        store.close()

    app = FastAPI(title="isc serve", version=__version__, description=ABOUT, lifespan=lifespan, docs_url=None,
                  redoc_url=None)  # fmt: skip
    app.state.shared = State(store, settings, Rates(), Broker(store))
    problems.install(app)
    description.install(app)
    for router in (
        images.router,
        review.router,
        captions.router,
        admin.router,
        admin.open_router,
        callbacks.router,
        metrics.router,
        pictures.router,
    ):
        app.include_router(router)
    for page in (pages.router, caption_page.router):
        app.include_router(page, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


def shielded(app: FastAPI) -> ASGIApp:
    """Return the application behind the shield that checks hosts and sizes, and adds the headers."""
    state: State = app.state.shared
    caps = state.settings.caps
    return Shield(app, state, uploads=caps.bytes * min(caps.batch, 10) + 1_000_000)


def run_web(settings: Settings, *, handle: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT; requests that run are answered first. `handle` is a socket that listens."""
    import uvicorn

    app = create_app(settings)
    config = uvicorn.Config(
        shielded(app),
        host=settings.host,
        port=settings.port,
        fd=handle,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
        proxy_headers=False,
        lifespan="off",
    )
    _server_class()(config, app).run()


def _server_class() -> Any:
    import uvicorn

    class Server(uvicorn.Server):
        """Ends the streams of events before it waits for requests."""

        def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
            super().__init__(config)
            self._app = app

        async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
            self._app.state.shared.broker.close()
            await super().shutdown(sockets)  # type: ignore[arg-type]
            self._app.state.shared.reader.close()
            self._app.state.shared.database.close()

    return Server
