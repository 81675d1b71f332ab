"""The REST interface under ``/api/v1``; the verbs are those of ``autokd remote`` and ``autokd.Client``."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, HTTPException, Path, Query, Request
from fastapi.responses import FileResponse, Response, StreamingResponse

from autokd.service.audit import entries
from autokd.service.compare import compared
from autokd.service.logs import follow_log
from autokd.service.schemas import AuditLine, Budget, SearchInfo, Submission, audit_line
from autokd.service.service import Service
from autokd.service.tokens import User
from autokd.storage.run_files import FILES, file_of, present_files

SearchId = Annotated[str, Path(description="id of the search")]
Following = Annotated[bool, Query(description="whether the answer goes on until the search ends")]
FileKind = Annotated[str, Path(description=f"one of {', '.join(FILES)}")]
OneSearch = Annotated[str, Query(description="id of a search; empty: all")]
Most = Annotated[int, Query(ge=1, le=1000, description="greatest number of rows")]


def rest_router(service: Service) -> APIRouter:
    """Return the routes of the REST interface.

    Args:
        service: the service.
    """
    router = APIRouter(prefix="/api/v1")
    _add_verbs(router, service)
    _add_reading(router, service)
    return router


def user_of(request: Request) -> User:
    """Return the user that the guard has admitted.

    Args:
        request: the request.
    """
    user: User = request.scope["state"]["user"]
    return user


def client_of(request: Request) -> str:
    """Return the address of a client, for the audit log.

    Args:
        request: the request.
    """
    return request.client.host if request.client is not None else ""


def _add_verbs(router: APIRouter, service: Service) -> None:
    book = service.searches

    @router.post("/searches", status_code=201, summary="Submit a search")
    def submit(request: Request, submission: Annotated[Submission, Body()]) -> SearchInfo:
        user, address = user_of(request), client_of(request)
        return service.info(book.submit(user, submission.config, submission.overrides, address))

    @router.post("/searches/{search_id}/stop", summary="End a search; it can be resumed")
    def stop(request: Request, search_id: SearchId) -> SearchInfo:
        return service.info(book.stop(user_of(request), search_id, client_of(request)))

    @router.post("/searches/{search_id}/resume", summary="Continue a search that was stopped or has failed")
    def resume(request: Request, search_id: SearchId) -> SearchInfo:
        return service.info(book.resume(user_of(request), search_id, client_of(request)))

    @router.patch("/searches/{search_id}", summary="Change the number of trials")
    def set_budget(request: Request, search_id: SearchId, budget: Annotated[Budget, Body()]) -> SearchInfo:
        return service.info(book.set_budget(user_of(request), search_id, budget.trials, client_of(request)))

    @router.delete("/searches/{search_id}", status_code=204, summary="End a search and remove its run directory")
    def delete(request: Request, search_id: SearchId) -> Response:
        book.delete(user_of(request), search_id, client_of(request))
        return Response(status_code=204)


def _add_reading(router: APIRouter, service: Service) -> None:
    @router.get("/health", summary="Whether the service runs; needs no token")
    def health() -> dict[str, str]:
        return {"status": "degraded" if service.reconciler.problem else "ok"}

    @router.get("/me", summary="Name and role of the token")
    def me(request: Request) -> dict[str, str]:
        return {"name": user_of(request).name, "role": user_of(request).role}

    @router.get("/searches", summary="List searches, the newest first")
    def searches(
        owner: Annotated[str, Query(description="name of the token that submitted; empty: all")] = "",
        state: Annotated[str, Query(description="state, such as running; empty: all")] = "",
        text: Annotated[str, Query(description="part of the name or of the id")] = "",
        limit: Most = 200,
    ) -> list[SearchInfo]:
        return [service.info(each) for each in service.searches.list(owner=owner, state=state, text=text, limit=limit)]

    @router.get("/searches/{search_id}", summary="State of a search")
    def status(search_id: SearchId) -> SearchInfo:
        return service.info(service.searches.get(search_id))

    @router.get("/searches/{search_id}/logs", summary="Log of a search, streamed", response_class=StreamingResponse)
    def logs(search_id: SearchId, follow: Following = False) -> StreamingResponse:
        service.searches.get(search_id)
        if not follow:
            return StreamingResponse(iter([service.log(search_id)]), media_type="text/plain; charset=utf-8")
        parts = follow_log(lambda: service.log(search_id), lambda: not service.searches.get(search_id).is_open)
        return StreamingResponse(parts, media_type="text/plain; charset=utf-8")

    @router.get("/searches/{search_id}/results", summary="Content of results.json", response_class=Response)
    def results(search_id: SearchId) -> Response:
        path = file_of(service.run_directory(search_id), "results")
        return Response(path.read_bytes(), media_type="application/json")

    @router.get("/searches/{search_id}/files", summary="Kinds of files that can be downloaded")
    def files(search_id: SearchId) -> dict[str, dict[str, Any]]:
        present = present_files(service.run_directory(search_id))
        return {
            kind: {"name": path.name, "bytes": path.stat().st_size, "meaning": FILES[kind].meaning}
            for kind, path in present.items()
        }

    @router.get("/searches/{search_id}/files/{kind}", summary="Download a file", response_class=FileResponse)
    def download(search_id: SearchId, kind: FileKind) -> FileResponse:
        path = file_of(service.run_directory(search_id), kind)
        # A report may hold any text of a run: it is saved, not shown under this address.
        return FileResponse(path, media_type=FILES[kind].media_type, filename=f"{search_id}-{path.name}")

    @router.get("/compare", summary="Two to four searches side by side")
    def compare(ids: Annotated[str, Query(description="ids, separated by commas")]) -> list[dict[str, Any]]:
        found = [service.searches.get(each) for each in ids.split(",") if each]
        return compared([(each, service.settings.run_directory(each.id)) for each in found])

    @router.get("/audit", summary="Audit log, the newest first; for admins")
    def audit(request: Request, search: OneSearch = "", limit: Most = 200) -> list[AuditLine]:
        if not user_of(request).may("admin"):
            raise HTTPException(403, "the audit log needs the role 'admin'.")
        return [audit_line(entry) for entry in entries(service.database, limit, search)]
