"""The page at /: files of the folder `page`, held in memory, with a policy that lets it load nothing from other hosts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).with_name("page")
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page_routes() -> Iterator[Route]:
    """A route for each file; all files together have some 50 KB."""
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in KINDS:
            yield _route("/" if path.name == "index.html" else f"/page/{path.name}", path)


def _route(where: str, path: Path) -> Route:
    data = path.read_bytes()
    headers = {**HEADERS, "ETag": f'"{hashlib.sha256(data).hexdigest()[:16]}"'}

    def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers, media_type=KINDS[path.suffix])

    return Route(where, answer)
