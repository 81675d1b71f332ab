"""Make the jobs what the searches' users want, and the searches' states what the jobs are.

A pass compares the two and does one step for each search. Passes are repeated for ever and depend on nothing but the
database, the backend and the run directories, so that after a restart of any of them the next passes make states true.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from autokd.errors import AutoKDError, RuntimeUnavailableError
from autokd.files import write_text_atomically
from autokd.service.database import OPEN_STATES, Database, Search
from autokd.service.jobs import LIVE_JOB_STATES, JobBackend, JobRequest, JobStatus
from autokd.service.searches import CONFIG_FILE
from autokd.service.settings import ServiceSettings
from autokd.service.summary import summary_of
from autokd.storage import STORAGE_VARIABLE

logger = logging.getLogger(__name__)

MAX_LOSSES = 3
"""Times in a row that a search whose job the cluster lost is started again by itself."""
KEEP_LOG_EVERY_S = 30.0
"""Seconds between two copies of a running job's log, which a cluster that dies takes with it."""


class Reconciler:
    """The loop that submits, stops and follows jobs.

    Args:
        database: database of the service.
        backend: what runs the jobs.
        settings: folders and limits.
        clock: time in seconds since 1970.
    """

    def __init__(
        self,
        database: Database,
        backend: JobBackend,
        settings: ServiceSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._backend = backend
        self._settings = settings
        self._clock = clock
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._log_kept_s: dict[str, float] = {}
        self.problem = ""
        """Why the last pass failed; empty: it did not."""

    def start(self) -> None:
        """Run passes in a thread until ``close``."""
        self._thread = threading.Thread(target=self._run, name="autokd-reconcile", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; jobs go on."""
        self._ended.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=30)

    def wake(self) -> None:
        """Have the next pass begin at once."""
        self._wake.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wake.clear()
            try:
                self.step()
                self.problem = ""
            except Exception as error:  # noqa: BLE001 - the loop outlives whatever is down for a while
                if str(error) != self.problem:
                    logger.warning("the states of the searches are not up to date: %s", error)
                self.problem = str(error)
            self._wake.wait(self._settings.check_every_s)

    def step(self) -> None:
        """Do one pass.

        Raises:
            RuntimeUnavailableError: if the backend does not answer; no state was changed then.
            StorageError: if the database does not answer.
        """
        searches = self._database.run(lambda session: session.scalars(_to_do()).all())
        if not searches:
            return
        jobs = self._backend.statuses()
        num_running = sum(status.state in LIVE_JOB_STATES for status in jobs.values())
        for search in sorted(searches, key=lambda search: search.created_s):
            is_new = search.state == "queued"
            if is_new and search.wanted == "run" and num_running >= self._settings.limits.running:
                continue
            try:
                changed = self._follow(search, jobs.get(search.job_id))
            except RuntimeUnavailableError:
                raise
            except (AutoKDError, OSError) as error:
                logger.warning("search %s: %s", search.id, error)
                changed = {"message": str(error)[:1000]}
            num_running += is_new and changed.get("state") == "running"
            if changed:
                self._store(search, changed)

    def _follow(self, search: Search, job: JobStatus | None) -> dict[str, Any]:
        """Do one step for a search; return the columns to change."""
        is_live = job is not None and job.state in LIVE_JOB_STATES
        if search.wanted == "delete":
            return self._delete(search, is_live)
        if search.wanted == "stop":
            return self._stop(search, job, is_live)
        if search.state == "queued":
            return self._begin(search)
        if job is None:
            return self._lost(search)
        if is_live:
            return self._refresh(search)
        return self._end(search, job)

    def _begin(self, search: Search) -> dict[str, Any]:
        """Start the next job of a search; the id follows from the number of attempts, so it starts once."""
        attempt = search.attempt + 1
        job_id = f"autokd-{search.id}-{attempt}"
        run_dir = self._settings.run_directory(search.id)
        arguments = ["search", CONFIG_FILE, "--trials", str(search.trials), "--forecast", "0"]
        arguments += ["--run-dir", str(run_dir.absolute()), "--cache-dir", str(self._settings.cache.absolute())]
        arguments += ["--resume"] if (run_dir / "config.yaml").is_file() else []
        environment = {"AUTOKD_SEARCH": search.id}
        if self._settings.storage is not None:
            environment[STORAGE_VARIABLE] = self._settings.storage
        request = JobRequest(job_id, tuple(arguments), self._settings.submission(search.id), environment)
        self._backend.submit(request)
        return {
            "attempt": attempt, "state": "running", "started_s": self._clock(), "ended_s": None, "message": "",
            "submitted_trials": search.trials,
        }  # fmt: skip

    def _refresh(self, search: Search) -> dict[str, Any]:
        if search.trials != search.submitted_trials:
            # The driver reads its budget when it starts: it is stopped here, and goes on with the new one.
            self._backend.stop(search.job_id)
        now = self._clock()
        if now - self._log_kept_s.get(search.id, 0.0) >= KEEP_LOG_EVERY_S:
            self._log_kept_s[search.id] = now
            self._keep_log(search)
        changed: dict[str, Any] = {"losses": 0} if search.losses and search.summary else {}
        return changed | self._summary(search)

    def _lost(self, search: Search) -> dict[str, Any]:
        """The backend does not know the job: a cluster that was started anew. The search goes on from its folder."""
        ended = self._ended_columns(search) | self._summary(search)
        if (self._settings.run_directory(search.id) / "results.json").is_file():
            return ended | {"state": "finished", "message": ""}
        if search.losses >= MAX_LOSSES:
            words = f"the cluster lost the job {search.losses + 1} times in a row. Resume it once the cluster is well."
            return ended | {"state": "failed", "message": words, "losses": 0}
        return ended | {"state": "queued", "ended_s": None, "losses": search.losses + 1,
                        "message": "the cluster lost the job; it is resumed"}  # fmt: skip

    def _end(self, search: Search, job: JobStatus) -> dict[str, Any]:
        self._keep_log(search)
        ended = self._ended_columns(search) | self._summary(search)
        if search.trials != search.submitted_trials and job.state != "failed":
            return ended | {"state": "queued", "ended_s": None}
        if job.state == "succeeded":
            return ended | {"state": "finished", "message": ""}
        if job.state == "stopped":
            return ended | {"state": "stopped", "message": job.message or "the job was stopped"}
        return ended | {"state": "failed", "message": self._reason(search, job)}

    def _reason(self, search: Search, job: JobStatus) -> str:
        """Return the error that ended a job: the line of its log that AutoKD wrote, else the backend's words."""
        lines = self._backend.log(search.job_id).splitlines()
        errors = [i for i, line in enumerate(lines) if line.startswith("autokd: ")]
        return "\n".join(lines[errors[-1] :])[:1000] if errors else job.message[:1000]

    def _stop(self, search: Search, job: JobStatus | None, is_live: bool) -> dict[str, Any]:
        if is_live:
            self._backend.stop(search.job_id)
            return {"state": "stopping"} if search.state != "stopping" else {}
        if job is not None and job.state == "succeeded":
            return self._end(search, job) | {"wanted": "run"}
        self._keep_log(search)
        return self._ended_columns(search) | self._summary(search) | {"state": "stopped", "message": ""}

    def _delete(self, search: Search, is_live: bool) -> dict[str, Any]:
        if is_live:
            self._backend.stop(search.job_id)
            return {}
        for attempt in range(1, search.attempt + 1):
            self._backend.forget(f"autokd-{search.id}-{attempt}")
        for folder in (self._settings.run_directory(search.id), self._settings.submission(search.id)):
            shutil.rmtree(folder, ignore_errors=True)
        self._settings.log(search.id).unlink(missing_ok=True)
        return {"state": "deleted"}

    def _ended_columns(self, search: Search) -> dict[str, Any]:
        now = self._clock()
        seconds = 0.0 if search.started_s is None or search.ended_s is not None else now - search.started_s
        return {"ended_s": now, "running_s": search.running_s + seconds, "started_s": None}

    def _keep_log(self, search: Search) -> None:
        """Copy the log of the present job behind those of the jobs before it."""
        text = self._backend.log(search.job_id)
        if not text:
            return
        mark = f"=== {search.job_id} ===\n"
        path = self._settings.log(search.id)
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        write_text_atomically(path, before.partition(mark)[0] + mark + text)

    def _summary(self, search: Search) -> dict[str, Any]:
        found = summary_of(self._settings.run_directory(search.id))
        return {"summary": found} if found != search.summary else {}

    def _store(self, search: Search, changed: Mapping[str, Any]) -> None:
        """Store what a step changed, unless a user wanted something else meanwhile: the next pass does that."""

        def work(session: Session) -> None:
            row = session.get(Search, search.id)
            if row is None:
                return
            if changed.get("state") == "deleted":
                session.delete(row)
                return
            if row.wanted != search.wanted:
                # The attempt was made; what it means for the state is for the next pass to say.
                kept = {key: changed[key] for key in ("attempt", "started_s", "submitted_trials") if key in changed}
                _assign(row, kept)
                return
            _assign(row, changed)

        self._database.run(work)


def _assign(row: Search, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        setattr(row, name, value)


def _to_do() -> Any:
    return select(Search).where(Search.state.in_(OPEN_STATES) | (Search.wanted == "delete"))
