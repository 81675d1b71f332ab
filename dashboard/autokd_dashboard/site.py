"""The pages: a path and a catalog in, an answer out. Servers of any kind put HTTP around it."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from autokd.errors import AutoKDError
from autokd.storage.run_files import FILES, NoFileError, file_of
from autokd_dashboard.catalog import Catalog, NoRunError, RefusedError
from autokd_dashboard.distiller_views import distiller_view, entry_view
from autokd_dashboard.render import render
from autokd_dashboard.run_reader import Readers, trial_rows
from autokd_dashboard.views import (
    compare_view,
    list_view,
    live_view,
    pictures_view,
    results_view,
    run_view,
)

HTML = "text/html; charset=utf-8"
JSON = "application/json"
_STATIC = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_PACK_FROM = 8192
"""Bytes from which an answer is compressed."""


@dataclass(frozen=True)
class Question:
    """A request.

    Args:
        path: path of the address, not quoted.
        method: "GET" or "POST".
        query: values of the query.
        form: values of the form that was sent.
        takes_gzip: whether the browser unpacks gzip.
    """

    path: str
    method: str = "GET"
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    takes_gzip: bool = False


@dataclass(frozen=True)
class Answer:
    """An answer: status, body, headers; or a file to send."""

    status: int = 200
    body: bytes = b""
    media_type: str = HTML
    headers: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None


class Site:
    """The pages of a catalog's runs."""

    def __init__(self) -> None:
        self._readers = Readers()
        self._routes: list[tuple[re.Pattern[str], Callable[..., Answer]]] = [
            (re.compile(r"/"), self._runs),
            (re.compile(r"/parts/runs"), self._runs_part),
            (re.compile(r"/compare"), self._compare),
            (re.compile(r"/runs/(?P<run>[\w-]+)"), self._run),
            (re.compile(r"/runs/(?P<run>[\w-]+)/parts/live"), self._live),
            (re.compile(r"/runs/(?P<run>[\w-]+)/parts/log"), self._log),
            (re.compile(r"/runs/(?P<run>[\w-]+)/parts/pictures"), self._pictures),
            (re.compile(r"/runs/(?P<run>[\w-]+)/data/trials"), self._trials),
            (re.compile(r"/runs/(?P<run>[\w-]+)/data/tree"), self._tree),
            (re.compile(r"/runs/(?P<run>[\w-]+)/trials/(?P<number>\d{1,9})"), self._distiller),
            (re.compile(r"/runs/(?P<run>[\w-]+)/entries/(?P<name>.+)"), self._entry),
            (re.compile(r"/runs/(?P<run>[\w-]+)/results"), self._results),
            (re.compile(r"/runs/(?P<run>[\w-]+)/files/(?P<kind>[\w-]+)"), self._file),
            (re.compile(r"/runs/(?P<run>[\w-]+)/heat_maps/(?P<name>[\w.-]+\.(?:png|jpg))"), self._heat_map),
            (re.compile(r"/runs/(?P<run>[\w-]+)/(?P<verb>stop|resume|budget|delete)"), self._act),
        ]

    def answer(self, question: Question, catalog: Catalog) -> Answer:
        """Return the answer to a request.

        Args:
            question: the request.
            catalog: runs, for the user who asks.
        """
        if question.path.startswith("/static/"):
            return static_file(question.path.removeprefix("/static/"))
        try:
            found = self._routed(question, catalog)
        except NoRunError as error:
            found = _error(404, str(error), catalog)
        except NoFileError as error:
            found = _error(404, str(error), catalog)
        except RefusedError as error:
            found = _error(409, str(error), catalog)
        except AutoKDError as error:
            found = _error(503, str(error), catalog)
        return _packed(found) if question.takes_gzip else found

    def _routed(self, question: Question, catalog: Catalog) -> Answer:
        for pattern, answer in self._routes:
            match = pattern.fullmatch(question.path)
            if match is not None:
                is_verb = answer == self._act
                if (question.method == "POST") != is_verb:
                    return _error(405, "This address does not take this method.", catalog)
                return answer(question, catalog, **match.groupdict())
        return _error(404, "There is no such page.", catalog)

    def _runs(self, question: Question, catalog: Catalog) -> Answer:
        if catalog.is_single:
            return Answer(303, headers={"Location": "/runs/run"})
        return _page("runs.html", list_view(catalog, question.query))

    def _runs_part(self, question: Question, catalog: Catalog) -> Answer:
        return _part("part_runs.html", list_view(catalog, question.query), question)

    def _compare(self, question: Question, catalog: Catalog) -> Answer:
        ids = [each for each in question.query.get("ids", "").split(",") if each]
        if not 2 <= len(ids) <= 4:
            return _error(422, "Choose two to four runs to compare.", catalog)
        return _page("compare.html", compare_view(catalog, [(each, self._reader(catalog, each)) for each in ids]))

    def _run(self, question: Question, catalog: Catalog, run: str) -> Answer:
        return _page("run.html", run_view(catalog, run, self._reader(catalog, run)))

    def _live(self, question: Question, catalog: Catalog, run: str) -> Answer:
        return _part("part_live.html", live_view(catalog, run, self._reader(catalog, run)), question)

    def _log(self, question: Question, catalog: Catalog, run: str) -> Answer:
        catalog.card(run)
        return _part("part_log.html", {"log": catalog.log(run)[-200_000:]}, question)

    def _pictures(self, question: Question, catalog: Catalog, run: str) -> Answer:
        first = int(question.query.get("first", "0")) if question.query.get("first", "0").isdigit() else 0
        order = question.query.get("order", "differ")
        return _part(
            "part_pictures.html", pictures_view(catalog, run, self._reader(catalog, run), first, order), question
        )

    def _trials(self, question: Question, catalog: Catalog, run: str) -> Answer:
        since = question.query.get("since", "0")
        version, changed = self._reader(catalog, run).changed_since(int(since) if since.isdigit() else 0)
        return _json({"version": version, "rows": trial_rows(changed)})

    def _tree(self, question: Question, catalog: Catalog, run: str) -> Answer:
        version, nodes = self._reader(catalog, run).tree()
        if question.query.get("since") == str(version):
            return Answer(204)
        return _json({"version": version, "nodes": nodes})

    def _distiller(self, question: Question, catalog: Catalog, run: str, number: str) -> Answer:
        view = distiller_view(catalog, run, self._reader(catalog, run), int(number))
        return _page("distiller.html", view)

    def _entry(self, question: Question, catalog: Catalog, run: str, name: str) -> Answer:
        return _page("distiller.html", entry_view(catalog, run, self._reader(catalog, run), unquote(name)))

    def _results(self, question: Question, catalog: Catalog, run: str) -> Answer:
        return _page("results.html", results_view(catalog, run, self._reader(catalog, run)))

    def _file(self, question: Question, catalog: Catalog, run: str, kind: str) -> Answer:
        path = file_of(Path(catalog.card(run).run_dir), kind)
        # A report may hold any text of a run: it is saved, not shown under this address.
        headers = {"Content-Disposition": f'attachment; filename="{run}-{path.name}"'}
        return Answer(media_type=FILES[kind].media_type, headers=headers, file=path)

    def _heat_map(self, question: Question, catalog: Catalog, run: str, name: str) -> Answer:
        path = Path(catalog.card(run).run_dir) / "heat_maps" / name
        if not path.is_file() or path.is_symlink():
            raise NoFileError("there is no such heat map.")
        return Answer(media_type="image/png" if name.endswith("png") else "image/jpeg", file=path)

    def _act(self, question: Question, catalog: Catalog, run: str, verb: str) -> Answer:
        trials = question.form.get("trials", "0")
        catalog.act(run, verb, int(trials) if trials.isdigit() else 0)
        return Answer(303, headers={"Location": "/" if verb == "delete" else f"/runs/{run}"})

    def _reader(self, catalog: Catalog, run: str) -> Any:
        card = catalog.card(run)
        address = catalog.storage(run)
        return self._readers.of(Path(card.run_dir), address, card.name if address is not None else None)


def static_file(name: str) -> Answer:
    """Return a file that all pages share.

    Args:
        name: name of the file.
    """
    known = static_names()
    if name not in known:
        return Answer(404, b"There is no such file.", "text/plain")
    return Answer(body=_static(name), media_type=_STATIC[Path(name).suffix], headers={"Cache-Control": "no-cache"})


def page_answer(template: str, values: Mapping[str, Any], status: int = 200) -> Answer:
    """Return a page that is no run's.

    Args:
        template: name of the template.
        values: what it shows.
        status: HTTP status.
    """
    return Answer(status, render(template, values).encode(), headers={"Cache-Control": "no-store"})


@cache
def static_names() -> frozenset[str]:
    """Return the names of the files that all pages share."""
    return frozenset(each.name for each in resources.files("autokd_dashboard").joinpath("static").iterdir())


@cache
def _static(name: str) -> bytes:
    body = resources.files("autokd_dashboard").joinpath("static", name).read_bytes()
    if name == "site.css":
        # The report's own style first: the pages are made of its parts.
        return resources.files("autokd.report").joinpath("templates", "report.css").read_bytes() + b"\n" + body
    return body


def _page(template: str, values: Mapping[str, Any]) -> Answer:
    return page_answer(template, values)


def _part(template: str, values: Mapping[str, Any], question: Question) -> Answer:
    """Return a part of a page; nothing if it is the one that the page has already."""
    body = render(template, values).encode()
    version = hashlib.sha256(body).hexdigest()[:16]
    if question.query.get("version") == version:
        return Answer(204)
    return Answer(body=body, headers={"Cache-Control": "no-store", "X-Version": version})


def _json(data: Any) -> Answer:
    body = json.dumps(data, separators=(",", ":"), allow_nan=False).encode()
    return Answer(body=body, media_type=JSON, headers={"Cache-Control": "no-store"})


def _error(status: int, words: str, catalog: Catalog) -> Answer:
    return page_answer("error.html", {"catalog": catalog, "words": words, "status": status}, status)


def _packed(answer: Answer) -> Answer:
    if len(answer.body) < _PACK_FROM or answer.file is not None:
        return answer
    headers = {**answer.headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return Answer(answer.status, gzip.compress(answer.body, 5, mtime=0), answer.media_type, headers)
