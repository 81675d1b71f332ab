"""A local Ray beside a cluster, a cluster that asks for a token, one that takes no jobs yet; no node is started."""

from __future__ import annotations

import base64
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autokd.errors import RuntimeUnavailableError
from autokd.runtime import submit_job
from autokd.runtime.ray import answer, session, submission

ray = pytest.importorskip("ray")

TOKEN = "ab" * 32


def test_a_local_ray_leaves_the_agents_port_to_clusters() -> None:
    from ray._private import parameter

    original = parameter.RayParams
    default = original().dashboard_agent_listen_port
    with session._free_agent_port():
        params = parameter.RayParams(num_cpus=1, metrics_export_port=None)
        assert params.dashboard_agent_listen_port == 0, "0: the agent binds a free port"
        ports = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port", "node_manager_port")
        assert not any(getattr(params, name) for name in ports), "Ray's defaults for the others are free ports"
    assert parameter.RayParams is original
    assert default not in (0, None)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Ray's control service alone, which asks for a token; its address."""
    program = Path(ray.__file__).parent / "core" / "src" / "ray" / "gcs" / "gcs_server"
    if not program.is_file():
        pytest.skip("this Ray has no gcs_server where it used to be")
    folder = tmp_path_factory.mktemp("gcs")
    from ray._private import services

    host = services.resolve_ip_for_localhost("127.0.0.1")  # what Ray makes of every loopback address
    with socket.socket() as unused:
        unused.bind((host, 0))
        port = unused.getsockname()[1]
    options = {
        "log_dir": folder,
        "config_list": base64.b64encode(b"{}").decode(),
        "gcs_server_port": port,
        "metrics-agent-port": 0,
        "node-ip-address": host,
        "session-name": "test",
        "ray-commit": "test",
        "session-dir": folder,
        "node-id": "ab" * 28,
    }
    process = subprocess.Popen(
        [program, *(f"--{name}={value}" for name, value in options.items())],
        env={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"{host}:{port}"
    try:
        until_s = time.monotonic() + 60
        while True:
            try:
                answer.require_cluster(address)
                break
            except RuntimeUnavailableError:
                assert process.poll() is None
                assert time.monotonic() < until_s
                time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def own_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    return tmp_path / ".ray" / "auth_token"


def test_a_missing_token_and_a_wrong_one_are_named_and_the_right_one_is_taken(
    control: str, own_token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeUnavailableError, match=r"asks for a token, and this process sends none.\n.*auth_token"):
        answer.require_token(control)
    own_token.write_text(f"{TOKEN}\n")
    with pytest.raises(RuntimeUnavailableError, match="sends none"):
        answer.require_token(control)  # Ray sends the file's token only in this mode
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    answer.require_token(control)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "cd" * 32)
    with pytest.raises(RuntimeUnavailableError, match="sends a wrong one") as caught:
        answer.require_token(control)
    assert "cdcd" not in str(caught.value)


def test_the_cluster_that_auto_means_is_asked_for_its_token_too(
    control: str, own_token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", control)
    with pytest.raises(RuntimeUnavailableError, match="'auto' asks for a token, and this process sends none"):
        answer.require_token("auto")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    answer.require_token("auto")


def test_a_service_that_does_not_know_the_question_asks_for_no_token() -> None:
    grpc = pytest.importorskip("grpc")
    from concurrent.futures import ThreadPoolExecutor

    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        answer.require_cluster(f"127.0.0.1:{port}")
        answer.require_token(f"127.0.0.1:{port}")
    finally:
        server.stop(None)


class Dashboard:
    """Ray's job client, of a cluster whose first answers are given."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.ids: list[str] = []

    def submit_job(self, *, entrypoint: str, runtime_env: dict, submission_id: str) -> str:
        self.ids.append(submission_id)
        if self.answers:
            raise RuntimeError(f"Request failed with status code 500: {self.answers.pop(0)}.")
        return submission_id


BUSY = "No available agent to submit job, please try again later."


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "_PAUSE_S", 0.01)
    monkeypatch.setattr(submission, "AGENT_PATIENCE_S", 0.1)


@pytest.mark.usefixtures("quick")
def test_submit_waits_for_an_agent_and_asks_with_one_id(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Dashboard(BUSY, BUSY)
    monkeypatch.setattr(submission, "_client", lambda address: client)
    job_id = submit_job("http://head:8265", "true")
    assert client.ids == [job_id] * 3
    # The second attempt finds the job of the first, whose answer did not come.
    client.answers, client.ids = [BUSY, f"Job with submission_id {job_id} already exists"], []
    assert submit_job("http://head:8265", "true", job_id=job_id) == job_id
    assert len(client.ids) == 2


@pytest.mark.usefixtures("quick")
def test_submit_ends_with_the_remedy_if_no_agent_comes_and_at_once_for_other_reasons(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = Dashboard(*[BUSY] * 1000)
    monkeypatch.setattr(submission, "_client", lambda address: client)
    with pytest.raises(RuntimeUnavailableError, match=r"(?s)did not take the job.*--dashboard-agent-listen-port"):
        submit_job("http://head:8265", "true")
    assert len(client.ids) > 2
    for reason in ("Job with submission_id a already exists", "the package is too large"):
        client.answers, client.ids = [reason], []
        with pytest.raises(RuntimeUnavailableError, match="did not take the job") as caught:
            submit_job("http://head:8265", "true", job_id="a")
        assert "listen-port" not in str(caught.value)
        assert client.ids == ["a"]
