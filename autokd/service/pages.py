"""The pages of the service: those of the dashboard, for each user; signing in; Optuna's own; the REST description."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, RedirectResponse, Response

from autokd.service.catalog import ServiceCatalog
from autokd.service.guard import cookie_header
from autokd.service.rest import client_of, user_of
from autokd.service.service import Service
from autokd_dashboard.access import Application
from autokd_dashboard.optuna_pages import optuna_application
from autokd_dashboard.site import Answer, Question, Site, page_answer, static_file
from autokd_dashboard.source import open_storage

MAX_OPENED = 16
"""Number of databases that are kept open for Optuna's dashboard."""


def add_pages(app: FastAPI, service: Service) -> None:
    """Add the pages, behind the routes that there are.

    Args:
        app: application.
        service: the service.
    """
    site = Site()
    opened: OrderedDict[str, Application] = OrderedDict()

    @app.get("/login", include_in_schema=False)
    def login(request: Request, next: str = "/") -> Response:
        return _response(page_answer("login.html", {"words": "", "next": _own_path(next)}))

    @app.post("/login", include_in_schema=False)
    async def sign_in(request: Request) -> Response:
        form = await _form(request)
        user = await anyio.to_thread.run_sync(service.tokens.user_of, form.get("token", ""))
        place = _own_path(form.get("next", "/"))
        if user is None:
            words = "This token is not known, or was revoked."
            return _response(page_answer("login.html", {"words": words, "next": place}, 401))
        headers = {"Set-Cookie": cookie_header(request.scope, form["token"])}
        return RedirectResponse(place, 303, headers)

    @app.post("/logout", include_in_schema=False)
    def logout(request: Request) -> Response:
        return RedirectResponse("/login", 303, {"Set-Cookie": cookie_header(request.scope, "")})

    @app.get("/docs", include_in_schema=False)
    def docs(request: Request) -> Response:
        catalog = ServiceCatalog(service, user_of(request))
        return _response(page_answer("docs.html", {"catalog": catalog, "operations": _operations(app.openapi())}))

    @app.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        return _response(static_file(name))

    @app.api_route("/optuna/{search_id}/{rest:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def optuna(request: Request, search_id: str, rest: str) -> Response:
        return await anyio.to_thread.run_sync(partial(_optuna, service, opened, request, search_id))

    @app.api_route("/{path:path}", methods=["GET", "POST"], include_in_schema=False)
    async def page(request: Request, path: str) -> Response:
        question = Question(
            path=request.url.path, method=request.method, query=dict(request.query_params),
            form=await _form(request) if request.method == "POST" else {},
            takes_gzip="gzip" in request.headers.get("accept-encoding", ""),
        )  # fmt: skip
        catalog = ServiceCatalog(service, user_of(request), client_of(request))
        return _response(await anyio.to_thread.run_sync(site.answer, question, catalog))


def _response(answer: Answer) -> Response:
    headers = dict(answer.headers)
    if answer.file is not None:
        return FileResponse(answer.file, answer.status, headers, answer.media_type)
    return Response(answer.body, answer.status, headers, answer.media_type)


async def _form(request: Request) -> dict[str, str]:
    body = await request.body()
    return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))


def _own_path(place: str) -> str:
    """Return a path of this service, whatever the address said."""
    return "/" + place.lstrip("/\\") if place.startswith("/") else "/"


def _optuna(service: Service, opened: OrderedDict[str, Application], request: Request, search_id: str) -> Response:
    from optuna_dashboard import wsgi

    address = service.settings.storage or str(service.run_directory(search_id))
    if address not in opened:
        opened[address] = wsgi(open_storage(address))
        while len(opened) > MAX_OPENED:
            opened.popitem(last=False)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method, "PATH_INFO": request.url.path, "QUERY_STRING": request.url.query,
        "SERVER_NAME": "autokd", "SERVER_PORT": "80", "wsgi.url_scheme": "http", "HTTP_HOST": "autokd",
        "SCRIPT_NAME": "", "wsgi.version": (1, 0), "wsgi.multithread": True, "wsgi.multiprocess": False,
    }  # fmt: skip
    got: list[Any] = []
    app = optuna_application(opened[address], f"/optuna/{search_id}")
    body = b"".join(app(environ, lambda status, headers, *_: got.extend((status, headers))))
    return Response(body, int(got[0].split()[0]), {name: value for name, value in got[1] if name.lower() != "server"})


def _operations(schema: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return path, method and description of each operation of an OpenAPI document."""
    parts = schema.get("components", {}).get("schemas", {})
    found = []
    for path, methods in schema["paths"].items():
        for method, row in methods.items():
            content = row.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            body = parts.get(content.get("$ref", "").rpartition("/")[2], {}).get("properties", {})
            found.append(
                (path, method, {"summary": row["summary"], "parameters": row.get("parameters", []), "body": body})
            )
    return found
