"""The web application: REST, pages, OpenAPI; behind the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from autokd.errors import AutoKDError, ConfigError, RuntimeUnavailableError, StorageError
from autokd.service.guard import Guard
from autokd.service.pages import add_pages
from autokd.service.rest import rest_router
from autokd.service.searches import ConflictError, ForbiddenError, UnknownSearchError
from autokd.service.service import Service
from autokd.storage.run_files import NoFileError

STATUS: tuple[tuple[type[AutoKDError], int], ...] = (
    (UnknownSearchError, 404),
    (NoFileError, 404),
    (ForbiddenError, 403),
    (ConflictError, 409),
    (ConfigError, 422),
    (StorageError, 503),
    (RuntimeUnavailableError, 503),
    (AutoKDError, 400),
)
"""Error -> HTTP status; the first that fits."""


def make_app(service: Service, host: str = "127.0.0.1", names: tuple[str, ...] = ()) -> Guard:
    """Return the ASGI application of a service, which it starts and closes.

    Args:
        service: the service.
        host: name or address that the server listens on.
        names: further names of the server, such as that of a proxy in front of it.
    """
    app = interface(service)
    add_pages(app, service)
    return Guard(app, service.tokens, service.settings.limits, host, names)


def interface(service: Service) -> FastAPI:
    """Return the REST interface of a service, with its OpenAPI document, and without pages and guard.

    Args:
        service: the service, which starts and closes with the application.
    """
    from importlib import metadata

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    # FastAPI's own pages of the interface load scripts from elsewhere; /docs is a page of ours.
    app = FastAPI(
        title="AutoKD", version=metadata.version("autokd"), lifespan=lifespan, docs_url=None, redoc_url=None,
        openapi_url="/api/v1/openapi.json", summary="Searches of distillation losses: submit, watch, compare, stop.",
    )  # fmt: skip
    app.include_router(rest_router(service))
    _add_errors(app)
    return app


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(AutoKDError)
    def known(request: Request, error: AutoKDError) -> JSONResponse:
        status = next(status for kind, status in STATUS if isinstance(error, kind))
        return JSONResponse({"error": str(error)}, status)

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        places = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:5])
        return JSONResponse({"error": places}, 422)
