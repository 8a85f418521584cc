"""The application: which page answers which address."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from pipelines.steps.results.shown import shown
from pipelines.steps.search.queries.query import MediaQuery
from pipelines.web import map_view, search_view, tables_view
from pipelines.web.bounds import MOST_BYTES, Bounds, problem
from pipelines.web.request_counters import CONTENT_TYPE, RequestCounters
from pipelines.web.request_query import RequestQuery, from_fields, from_json, modality_of
from pipelines.web.row_media import NoMediaError, media_of, picture_of
from pipelines.web.site import Site
from schemas.errors import CheckpointError, CollectionError, ConfigurationError, StorageError, VecbeamError

HERE = Path(__file__).parent
Answer = Callable[[Request], Awaitable[Response]]


def application(site: Site, hosts: Sequence[str], token: str = "") -> Starlette:
    """The application that serves a site.

    Args:
        hosts: names that requests may call this server by; empty for any.
        token: that each request needs; "" for none.
    """
    pages = _Pages(site)
    routes = [
        Route("/", pages.search, methods=["GET", "POST"]),
        Route("/search", pages.search_json, methods=["POST"]),
        Route("/compare", pages.compare),
        Route("/map", pages.map),
        Route("/map/points", pages.map_points),
        Route("/map/rows", pages.map_rows),
        Route("/runs", pages.runs),
        Route("/runs/{run_id}", pages.run),
        Route("/rejects", pages.rejects),
        Route("/duplicates", pages.duplicates),
        Route("/media", pages.media),
        Route("/picture", pages.picture),
        Route("/healthz", pages.health),
        Route("/metrics", pages.metrics),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]
    return Starlette(
        routes=[
            Route(one.path, pages.counted(one.endpoint), methods=one.methods) if isinstance(one, Route) else one
            for one in routes
        ],
        middleware=[Middleware(Bounds, hosts=hosts, token=token)],
        exception_handlers={404: _not_found, 405: _not_allowed},
    )


class _Pages:
    """The answers."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._counters = RequestCounters(site.config.name)

    def counted(self, answer: Answer) -> Answer:
        """An answer that is counted, and whose errors are pages or JSON."""

        async def answered(request: Request) -> Response:
            begun = time.monotonic()
            try:
                response = await answer(request)
            except VecbeamError as error:
                response = self._failed(request, error)
            except NoMediaError as error:
                response = problem(404, "NoMedia", str(error))
            self._counters.observe(request.scope["route"].path, response.status_code, time.monotonic() - begun)
            return response

        return answered

    def _failed(self, request: Request, error: VecbeamError) -> Response:
        status = _status_of(error)
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return self._page(request, "error.html", {"error": error}, status)
        return JSONResponse({"error": error.facts()}, status)

    def _page(self, request: Request, name: str, values: dict[str, Any], status: int = 200) -> Response:
        config = self._site.config
        known: dict[str, Any] = {"path": request.url.path, "alias": config.name, "models": config.model_names}
        known |= {"has_other": self._site.other is not None}
        return HTMLResponse(_template(name).render(known | values), status)

    async def search(self, request: Request) -> Response:
        """The page with the form and its hits; POST takes a file too."""
        upload, content_type, fields = b"", "", request.query_params.multi_items()
        if request.method == "POST":
            form = await request.form(max_files=1, max_fields=200, max_part_size=MOST_BYTES)
            file = form.get("file")
            if isinstance(file, UploadFile) and file.size:
                upload, content_type = await file.read(), file.content_type or ""
            fields = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
        try:
            wanted = from_fields(fields, self._site.config, upload, content_type)
        except ConfigurationError as error:
            values = await run_in_threadpool(search_view.page, self._site, RequestQuery(None))
            return self._page(request, "search.html", values | {"error": error}, 400)
        values = await run_in_threadpool(search_view.page, self._site, wanted)
        return self._page(request, "search.html", values, _status_of(values["error"]))

    async def search_json(self, request: Request) -> Response:
        """The hits as JSON. The body is JSON, or the bytes of an image, recording or film with its content type."""
        body = await request.body()
        content_type = request.headers.get("content-type", "")
        modality = modality_of(content_type)
        if modality is not None:
            wanted = from_fields(request.query_params.multi_items(), self._site.config, body, content_type)
            wanted = replace(wanted, query=MediaQuery(body, modality))
        else:
            wanted = from_json(body)
        found = await run_in_threadpool(search_view.search, self._site.searcher, self._site.config, wanted)
        return JSONResponse({"metric": found.metric, "hits": found.hits[0]})

    async def compare(self, request: Request) -> Response:
        """The hits of two collections."""
        wanted = from_fields(request.query_params.multi_items(), self._site.config)
        values = await run_in_threadpool(tables_view.compared, self._site, wanted)
        return self._page(request, "compare.html", values, _status_of(values["error"]))

    async def map(self, request: Request) -> Response:
        """Rows as points on a plane."""
        colour = request.query_params.get("color", "")
        return self._page(request, "map.html", await run_in_threadpool(map_view.page, self._site, colour))

    async def map_points(self, request: Request) -> Response:
        """The points, for the page's script."""
        colour = request.query_params.get("color", "")
        return JSONResponse(await run_in_threadpool(map_view.points, self._site, colour))

    async def map_rows(self, request: Request) -> Response:
        """What some points are."""
        ids = request.query_params.getlist("id")
        return JSONResponse(await run_in_threadpool(map_view.rows, self._site, ids))

    async def runs(self, request: Request) -> Response:
        """The history of runs."""
        return self._page(request, "runs.html", await run_in_threadpool(tables_view.runs, self._site))

    async def run(self, request: Request) -> Response:
        """One run."""
        run_id = request.path_params["run_id"]
        return self._page(request, "run.html", await run_in_threadpool(tables_view.run, self._site, run_id))

    async def rejects(self, request: Request) -> Response:
        """The rejects of the last run."""
        return self._page(request, "rejects.html", await run_in_threadpool(tables_view.rejects, self._site))

    async def duplicates(self, request: Request) -> Response:
        """Near duplicates."""
        given = request.query_params.get("above") or "0.95"
        values = await run_in_threadpool(tables_view.duplicates, self._site, given)
        return self._page(request, "duplicates.html", values, _status_of(values["error"]))

    async def media(self, request: Request) -> Response:
        """The file of a row, for players: parts of it too."""
        found = await run_in_threadpool(media_of, self._site, request.query_params.get("id", ""))
        if found.path:
            return FileResponse(found.path, media_type=found.content_type)
        return Response(found.data, media_type=found.content_type)

    async def picture(self, request: Request) -> Response:
        """A small picture of a row's image."""
        data = await run_in_threadpool(picture_of, self._site, request.query_params.get("id", ""))
        kind = "image/webp" if data.startswith(b"RIFF") else "image/jpeg"
        return Response(data, media_type=kind, headers={"Cache-Control": "private, max-age=600"})

    async def health(self, _: Request) -> Response:
        """Whether the served collection answers."""
        try:
            await run_in_threadpool(self._site.searcher.rows, ["-"], ["item_id"])
        except VecbeamError as error:
            return JSONResponse({"status": "failing", "error": error.facts()}, 503)
        return JSONResponse({"status": "ok", "alias": self._site.config.name})

    async def metrics(self, _: Request) -> Response:
        """RequestCounters for monitoring."""
        return Response(self._counters.text(), media_type=CONTENT_TYPE)


def _status_of(error: VecbeamError | None) -> int:
    if error is None:
        return 200
    unavailable = isinstance(error, (CollectionError, CheckpointError, StorageError))
    return 400 if isinstance(error, ConfigurationError) else 503 if unavailable else 500


@cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    return environment.get_template(name)


async def _not_found(request: Request, _: Exception) -> Response:
    return problem(404, "NotFound", f"there is no page {request.url.path}", "/ is the search")


async def _not_allowed(request: Request, _: Exception) -> Response:
    return problem(405, "MethodNotAllowed", f"{request.url.path} does not take {request.method}")
