"""A job backend without jobs, and a service on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from autokd.errors import RuntimeUnavailableError
from autokd.service.app import make_app
from autokd.service.jobs import JobRequest, JobState, JobStatus
from autokd.service.service import Service
from autokd.service.settings import Limits, ServiceSettings
from autokd.storage import Entry, Results, SearchSummary

CONFIG = """\
name: small
data: {format: shapes, image_size_px: [64, 64], num_train: 8, num_val: 4, num_test: 4}
teacher: {architecture: fcos, backbone: {blocks: [1, 1, 1, 1], width: 8}, train: {epochs: 1}}
student: {architecture: fcos, backbone: {blocks: [1, 1, 1, 1], width: 8}}
search: {trials: 4}
"""


@dataclass
class FakeBackend:
    """Jobs that do what the test says."""

    name: str = "a fake"
    jobs: dict[str, JobStatus] = field(default_factory=dict)
    requests: dict[str, JobRequest] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    stops: list[str] = field(default_factory=list)
    is_down: bool = False
    stops_at_once: bool = True

    def submit(self, request: JobRequest) -> None:
        self._answer()
        if request.job_id not in self.jobs:
            self.jobs[request.job_id] = JobStatus("running")
            self.requests[request.job_id] = request
            self.logs[request.job_id] = f"job {request.job_id} begins\n"

    def statuses(self) -> Mapping[str, JobStatus]:
        self._answer()
        return dict(self.jobs)

    def stop(self, job_id: str) -> None:
        self._answer()
        self.stops.append(job_id)
        if self.stops_at_once and job_id in self.jobs:
            self.jobs[job_id] = JobStatus("stopped")

    def log(self, job_id: str) -> str:
        return self.logs.get(job_id, "")

    def forget(self, job_id: str) -> None:
        self.jobs.pop(job_id, None)

    def end(self, job_id: str, state: JobState = "succeeded", message: str = "") -> None:
        """Have a job end; one that succeeds leaves the files of a run."""
        self.jobs[job_id] = JobStatus(state, message)
        if state == "succeeded":
            write_run(self.run_dir(job_id))

    def begin(self, job_id: str) -> None:
        """Have a job make its run directory."""
        folder = self.run_dir(job_id)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(CONFIG)

    def run_dir(self, job_id: str) -> Path:
        """Run directory that a job was given."""
        arguments = self.requests[job_id].arguments
        return Path(arguments[arguments.index("--run-dir") + 1])

    def lose_everything(self) -> None:
        """As a cluster that is started anew."""
        self.jobs.clear()

    def _answer(self) -> None:
        if self.is_down:
            raise RuntimeUnavailableError("the fake is down")


def write_run(folder: Path) -> None:
    """Write the files that a search leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG)
    entries = (
        Entry(name="none", seeds=(0, 1), val_ap=(0.25, 0.35), test_ap=(0.2, 0.3), train_seconds=(1.0, 1.0)),
        Entry(name="searched", seeds=(0, 1), val_ap=(0.4, 0.5), test_ap=(0.35, 0.45), train_seconds=(1.0, 1.0)),
    )
    Results(name="small", search=SearchSummary(sampler="mcts", finished=4), entries=entries, winner="searched").write(
        folder / "results.json"
    )
    (folder / "student.pt").write_bytes(b"weights")
    (folder / "best_distiller.yaml").write_text("schema: 2\nterms: []\n")
    (folder / "report.html").write_text("<p>report</p>")


@dataclass
class ServiceBed:
    """A service on a fake backend, whose loop is stepped by the test; ``client`` speaks to it without a network."""

    service: Service
    backend: Any
    client: TestClient
    tokens: dict[str, str]

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.service.reconciler.step()

    def headers(self, user: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[user]}"}

    def ask(self, user: str, method: str, path: str, **more: Any) -> Any:
        return self.client.request(method, f"/api/v1/{path}", headers=self.headers(user), **more)

    def submit(self, user: str = "ann", config: str = CONFIG, **overrides: Any) -> str:
        answer = self.ask(user, "POST", "searches", json={"config": config, "overrides": overrides})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def state(self, search_id: str) -> str:
        return self.service.searches.get(search_id).state

    def job(self, search_id: str) -> str:
        return self.service.searches.get(search_id).job_id


ROLES = {"ann": "submit", "bob": "submit", "eve": "read", "root": "admin"}


def make_bed(folder: Path, limits: Limits | None = None, backend: Any = None, **more: Any) -> ServiceBed:
    """Return a service whose loop does not run by itself."""
    backend = backend or FakeBackend()
    service = Service(ServiceSettings(folder, limits=limits or Limits(), **more), backend)
    known = {token.name for token in service.tokens.list()}
    tokens = {name: service.tokens.create(name, role) for name, role in ROLES.items() if name not in known}
    client = TestClient(make_app(service), base_url="http://127.0.0.1", follow_redirects=False)
    return ServiceBed(service, backend, client, tokens)
