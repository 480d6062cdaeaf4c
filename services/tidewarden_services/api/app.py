"""The application: endpoints, live updates, the page."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, WebSocket
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from tidewarden.bus.port import Bus
from tidewarden.clock import Clock
from tidewarden.resources import AnyResource
from tidewarden.status import Figures
from tidewarden.store.port import Store
from tidewarden.telemetry import Telemetry, figures_of
from tidewarden.topics import StreamTopics
from tidewarden_services.api import documents, problems
from tidewarden_services.api.alerts import router as alert_routes
from tidewarden_services.api.anomalies import router as anomaly_routes
from tidewarden_services.api.context import ApiContext, ReadableBoard
from tidewarden_services.api.feedback import router as feedback_routes
from tidewarden_services.api.guard import Guard
from tidewarden_services.api.live import Live
from tidewarden_services.api.readings import router as reading_routes
from tidewarden_services.api.rollup import router as rollup_routes
from tidewarden_services.api.statistics import VERSION, Statistics
from tidewarden_services.api.status_routes import router as status_routes

PAGE = Path(__file__).parent / "page"


def create_app(
    *,
    store: Store,
    bus: Bus,
    topics_by_stream: Mapping[str, StreamTopics],
    board: ReadableBoard,
    telemetry: Telemetry,
    resources: Sequence[AnyResource],
    clock: Clock,
    extra_routers: Sequence[APIRouter] = (),
    page: Path | None = PAGE,
    hosts: Collection[str] = (),
    figures: Callable[[], Figures] | None = None,
) -> FastAPI:
    """The HTTP application of one process.

    Args:
        store: read by every endpoint, from several threads.
        bus: read by the live updates as group ``api``; external findings are published to it.
        topics_by_stream: topics of each MetricStream by its name; they must exist on the bus.
        board: what sources, detectors, simulations and services say of themselves.
        telemetry: counters behind ``/api/statistics`` and ``/metrics``.
        resources: what this process runs.
        clock: for uptimes and for "now".
        extra_routers: routers of other rooms, such as the push sources.
        page: folder with ``index.html`` and what it loads; None: no page.
        hosts: names under which this server may be called; empty: any.
        figures: running totals of all processes whose board this is; None: those of ``telemetry``.
    """
    figures = figures or partial(figures_of, telemetry)
    context = ApiContext(store, bus, topics_by_stream, board, telemetry, figures, resources, clock, clock.monotonic())
    statistics = Statistics(context)
    live = Live(context, statistics)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with live.running():
            yield

    # The interactive docs load their scripts from a CDN; the page must not need any other server.
    app = FastAPI(
        title="Tidewarden", version=VERSION, description="Anomalies, alerts and readings.",
        docs_url=None, redoc_url=None, lifespan=lifespan,
    )  # fmt: skip
    app.state.context = context
    app.state.statistics = statistics
    app.state.announce = live.announce
    problems.install(app)
    app.add_middleware(Guard, hosts=hosts)
    own = (status_routes, anomaly_routes, alert_routes, reading_routes, rollup_routes, feedback_routes)
    for router in (*own, *extra_routers):
        app.include_router(router)
    app.add_api_websocket_route("/ws", _socket(live))
    documents.describe(app)
    if page is not None:
        _serve_page(app, page)
    return app


def _socket(live: Live) -> Any:
    async def socket(websocket: WebSocket) -> None:
        await live.serve(websocket)

    return socket


def _serve_page(app: FastAPI, page: Path) -> None:
    plotly = plotly_script()

    @app.get("/", include_in_schema=False)
    def index() -> Response:
        return FileResponse(page / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/static/vendor/plotly.min.js", include_in_schema=False)
    def vendor() -> Response:
        # A week: the address does not name the version, the ETag brings an update after that.
        headers = {"Cache-Control": "public, max-age=604800"}
        return FileResponse(plotly, media_type="text/javascript", headers=headers)

    app.mount("/static", StaticFiles(directory=page), name="static")


def plotly_script() -> Path:
    """The chart library's script inside the installed plotly package, without importing the package."""
    spec = importlib.util.find_spec("plotly")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("plotly is not installed: the page's charts come from it; pip install plotly")
    return Path(spec.submodule_search_locations[0]) / "package_data" / "plotly.min.js"
