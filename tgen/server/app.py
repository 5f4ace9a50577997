"""The ASGI application, which maps each path to its handler."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tgen.server.calls import Endpoint, Handler, Service
from tgen.server.endpoints import resident
from tgen.server.endpoints.about import told
from tgen.server.endpoints.chats import chat, respond
from tgen.server.endpoints.completions import complete
from tgen.server.endpoints.embeddings import embed
from tgen.server.endpoints.inspecting import attention, explained, settings
from tgen.server.endpoints.plain import continued
from tgen.server.endpoints.tokens import apply_template, detokenize, pieces, tokenize
from tgen.server.guard import Access, Guard
from tgen.server.problems import HttpError, error_body
from tgen.server.static import page_routes

QUEUED: dict[str, Handler] = {
    "/v1/completions": complete,
    "/v1/chat/completions": chat,
    "/v1/responses": respond,
    "/v1/embeddings": embed,
    "/completion": continued,
    "/explain": explained,
    "/attention": attention,
}
QUICK: dict[str, Handler] = {
    "/tokenize": tokenize,
    "/detokenize": detokenize,
    "/apply-template": apply_template,
    "/pieces": pieces,
    "/settings": settings,
}
# Further paths of llama.cpp's server, for the same handlers.
ALSO: dict[str, Handler] = {"/chat/completions": chat, "/responses": respond, "/embeddings": embed, "/completions": continued}


def make_app(service: Service, access: Access) -> ASGIApp:
    """The ASGI application of a server."""

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
        Route(path, Endpoint(service, path, handler, queued=path not in QUICK), methods=["POST"])
        for path, handler in (QUEUED | QUICK | ALSO).items()
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
        *told(service),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={404: refused, 405: refused, 500: refused})
    return Guard(app, access)
