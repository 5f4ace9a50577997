"""Answers questions about the server: its models, its health, its counts, its version."""

from __future__ import annotations

import os

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tgen import __version__
from tgen.server.calls import Service
from tgen.server.models import Served
from tgen.server.problems import HttpError, error_body
from tgen.text.chat import find_template

METRICS_KIND = "text/plain; version=0.0.4; charset=utf-8"


def told(service: Service) -> list[Route]:
    """The routes."""

    def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(model) for model in service.models.all]})

    def model(request: Request) -> Response:
        try:
            return JSONResponse(_model(service.models.find(request.path_params["name"])))
        except HttpError as error:
            return JSONResponse(error_body(error), error.status)

    def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "version": __version__, "pid": os.getpid()})

    def version(_: Request) -> Response:
        return JSONResponse({"version": __version__})

    def ping(_: Request) -> Response:
        return Response()

    def props(_: Request) -> Response:
        """The properties of the model for which llama.cpp's clients ask a server."""
        first = service.models.all[0]
        template = find_template(first.checkpoint.texts)
        return JSONResponse(
            {
                "default_generation_settings": {"n_ctx": first.checkpoint.spec.context},
                "total_slots": service.models.rows,
                "model_alias": first.name,
                "model_path": first.name,
                "chat_template": "" if template is None else template.source,
                "modalities": {"vision": False, "audio": False},
                "build_info": f"tgen {__version__}",
            }
        )

    def metrics(_: Request) -> Response:
        schedulers = [model.engine.scheduler for model in service.models.all if model.engine is not None]
        gauges = {
            "tgen_requests_running": sum(len(scheduler.running) for scheduler in schedulers),
            "tgen_requests_waiting": sum(len(scheduler.waiting) for scheduler in schedulers),
            "tgen_models_loaded": sum(model.loaded for model in service.models.all),
        }
        return PlainTextResponse(service.metrics.text(gauges.items()), media_type=METRICS_KIND)

    return [
        Route("/v1/models", models),
        Route("/models", models),
        Route("/v1/models/{name:path}", model),
        Route("/health", health),
        Route("/v1/health", health),
        Route("/ping", ping, methods=["GET", "POST"]),
        Route("/version", version),
        Route("/props", props),
        Route("/metrics", metrics),
    ]


def _model(model: Served) -> dict[str, object]:
    context = model.checkpoint.spec.context
    return {"id": model.name, "object": "model", "created": model.since, "owned_by": "tgen", "context_length": context}
