"""The application: which path is answered by what."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tgen import __version__
from tgen.server.calls import Endpoint, Handler, Service
from tgen.server.endpoints import resident
from tgen.server.endpoints.chats import chat, respond
from tgen.server.endpoints.completions import complete
from tgen.server.endpoints.embeddings import embed
from tgen.server.endpoints.inspecting import attention, explained, settings
from tgen.server.endpoints.tokens import detokenize, pieces, tokenize
from tgen.server.guard import Access, Guard
from tgen.server.models import Served
from tgen.server.problems import HttpError, error_body
from tgen.server.static import page_routes

QUEUED: dict[str, Handler] = {
    "/v1/completions": complete,
    "/v1/chat/completions": chat,
    "/v1/responses": respond,
    "/v1/embeddings": embed,
    "/explain": explained,
    "/attention": attention,
}
QUICK: dict[str, Handler] = {"/tokenize": tokenize, "/detokenize": detokenize, "/pieces": pieces, "/settings": settings}
METRICS_KIND = "text/plain; version=0.0.4; charset=utf-8"


def make_app(service: Service, access: Access) -> ASGIApp:
    """The ASGI application of a server."""

    def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(model) for model in service.models.all]})

    def model(request: Request) -> Response:
        try:
            return JSONResponse(_model(service.models.find(request.path_params["name"])))
        except HttpError as error:
            return JSONResponse(error_body(error), error.status)

    def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "version": __version__, "pid": os.getpid()})

    def metrics(_: Request) -> Response:
        schedulers = [model.engine.scheduler for model in service.models.all if model.engine is not None]
        gauges = {
            "tgen_requests_running": sum(len(scheduler.running) for scheduler in schedulers),
            "tgen_requests_waiting": sum(len(scheduler.waiting) for scheduler in schedulers),
            "tgen_models_loaded": sum(model.loaded for model in service.models.all),
        }
        return PlainTextResponse(service.metrics.text(gauges.items()), media_type=METRICS_KIND)

    def refused(_: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        paths = ", ".join([*QUEUED, *QUICK, "/v1/models", "/health", "/metrics"])
        words = {404: f"there is nothing here; the server answers {paths}", 405: "this path takes another method"}
        headers = error.headers if isinstance(error, HTTPException) else None
        return JSONResponse(error_body(HttpError(status, words.get(status, "unexpected error"))), status, headers)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.worker.start()
        yield
        service.worker.stop()

    posts = [
        Route(path, Endpoint(service, path, handler, queued=path in QUEUED), methods=["POST"]) for path, handler in (QUEUED | QUICK).items()
    ]
    work = [
        Route(f"/tgen/{name}", Endpoint(service, f"/tgen/{name}", resident.answering(name), patience=0.5), methods=["POST"])
        for name in resident.WORK
    ]
    quick = [
        Route(f"/tgen/{name}", Endpoint(service, f"/tgen/{name}", handler, queued=False), methods=["POST"])
        for name, handler in resident.QUICK.items()
    ]
    routes = [
        *posts,
        *work,
        *quick,
        *page_routes(),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
        Route("/health", health),
        Route("/metrics", metrics),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={404: refused, 405: refused, 500: refused})
    return Guard(app, access)


def _model(model: Served) -> dict[str, object]:
    context = model.checkpoint.spec.context
    return {"id": model.name, "object": "model", "created": model.since, "owned_by": "tgen", "context_length": context}
