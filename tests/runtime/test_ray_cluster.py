"""Against a cluster of one node started by ``ray start --head``: joining it, and sending it a job."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import autokd
from autokd.config import RuntimeConfig
from autokd.errors import RuntimeUnavailableError
from autokd.runtime import follow_job, job_status, make_runtime, stop_job, submit_job
from autokd.testing.scripted_jobs import ListDriver
from tests.support.runtime_fakes import ResourceReporter

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@dataclass(frozen=True)
class Cluster:
    gcs: str
    dashboard: str


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head node with 4 cores and one pretended card, on loopback; ended by its own process, not ``ray stop``,
    which would end every Ray of this machine."""
    gcs, dashboard, agent, client, metrics = _free_ports(5)
    folder = tempfile.mkdtemp(prefix="autokd-test-", dir="/tmp")
    command = [
        *[sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"],
        *["--node-ip-address=127.0.0.1", f"--port={gcs}", f"--temp-dir={folder}"],
        *["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"],
        *[f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"],
        *[f"--metrics-export-port={metrics}", "--num-cpus=4", "--num-gpus=1"],
        *["--object-store-memory=100000000", "--disable-usage-stats"],
    ]
    # Jobs run in the head's environment: the commands installed beside this interpreter must be on its path.
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    head = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        _wait_for(dashboard)
        yield Cluster(f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}")
    finally:
        head.send_signal(signal.SIGTERM)
        try:
            head.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
            head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(port: int, host: str = "127.0.0.1", seconds: float = 240.0) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            return
        time.sleep(0.3)
    pytest.fail(f"nothing listens at port {port}")


def test_a_submitted_job_runs_in_its_folder_and_its_log_can_be_followed(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("name: sent\n")
    command = "python -c \"import os; print(open('space.yaml').read(), os.environ['WORD'])\""
    job_id = submit_job(
        cluster.dashboard, command, working_dir=tmp_path, env_vars={"WORD": "carried"}, job_id="search-1"
    )
    assert job_id == "search-1"
    log = "".join(follow_job(cluster.dashboard, job_id))
    assert "name: sent" in log
    assert "carried" in log
    assert job_status(cluster.dashboard, job_id)[0] == "SUCCEEDED"
    with pytest.raises(RuntimeUnavailableError, match="did not take the job"):
        submit_job(cluster.dashboard, command, job_id="search-1")
    endless = submit_job(cluster.dashboard, "sleep 600")
    stop_job(cluster.dashboard, endless)
    assert "".join(follow_job(cluster.dashboard, endless)) is not None
    assert job_status(cluster.dashboard, endless)[0] == "STOPPED"


SEARCH = """
name: sent
data: {format: shapes, image_size_px: [64, 64], num_train: 8, num_val: 4, num_test: 4}
teacher: {fpn_channels: 16, train: {epochs: 1}}
student: {fpn_channels: 16, backbone: {width: 8}}
search: {trials: 2, enqueue: [], finalists: 1}
proxy: {warm_start: null, epochs: 1}
full: {epochs: 1, seeds: [0], baselines: [none]}
runtime: {workers: 1, gpus_per_worker: 0}
"""


def test_autokd_submit_sends_a_whole_search_and_follows_it(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "sent.yaml").write_text(SEARCH)
    command = [sys.executable, "-m", "autokd", "submit", "sent.yaml", "--address", cluster.dashboard, "--send-package"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "full trainings: 2/2" in done.stdout
    assert "teachers: 1/1" in done.stdout, "the teacher was trained by a worker of the cluster, not by the driver"
    results = json.loads((tmp_path / "runs" / "sent" / "results.json").read_text())
    assert results["search"]["finished"] == 2


def test_a_sent_package_is_imported_before_that_of_the_node(cluster: Cluster, tmp_path: Path) -> None:
    command = 'python -c "import autokd; print(autokd.__file__)"'
    package = Path(autokd.__file__).parent
    job_id = submit_job(cluster.dashboard, command, working_dir=tmp_path, packages=[package])
    log = "".join(follow_job(cluster.dashboard, job_id))
    assert "runtime_resources/py_modules_files" in log


def test_workers_of_a_joined_cluster_share_its_cores_and_its_card(cluster: Cluster) -> None:
    driver = ListDriver(["a", "b"])
    with make_runtime(RuntimeConfig(workers=2, ray_address=cluster.gcs)) as runtime:
        runtime.run(driver, ResourceReporter)
    for outcome in driver.outcomes.values():
        assert outcome.metrics["threads"] == outcome.metrics["omp_threads"] == 2
        assert outcome.metrics["gpu_fraction"] == 0.5
        assert outcome.metrics["is_cuda"] == 1


def test_more_cards_than_the_cluster_has_are_refused(cluster: Cluster) -> None:
    config = RuntimeConfig(workers=1, ray_address=cluster.gcs, gpus_per_worker=2)
    with make_runtime(config) as runtime, pytest.raises(RuntimeUnavailableError, match="gpus_per_worker"):
        runtime.run(ListDriver(["a"]), ResourceReporter)


LOCAL = """
import sys
from autokd.runtime.ray.session import RaySession

session = RaySession(None, 1)
session.open()
import ray
node = ray._private.worker._global_node
print(node.node_ip_address, node.dashboard_agent_listen_port, flush=True)
sys.stdin.read()
session.close()
"""


def test_a_local_search_beside_the_cluster_takes_no_port_of_its_agent(cluster: Cluster) -> None:
    local = subprocess.Popen(
        [sys.executable, "-c", LOCAL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert local.stdout is not None
    try:
        host, port_text = local.stdout.readline().split()
        port = int(port_text)
        assert port not in (0, -1, 52365), "52365 is the port of every cluster's agent"
        _wait_for(port, host)  # the agent starts after its node
        job_id = submit_job(cluster.dashboard, "echo beside")
        assert "beside" in "".join(follow_job(cluster.dashboard, job_id))
        assert job_status(cluster.dashboard, job_id)[0] == "SUCCEEDED"
        local.communicate("", timeout=60)
        assert local.returncode == 0
    finally:
        if local.poll() is None:
            os.killpg(local.pid, signal.SIGKILL)
            local.wait()


def test_a_dashboard_that_does_not_answer_is_named_with_its_remedy() -> None:
    [port] = _free_ports(1)
    with pytest.raises(RuntimeUnavailableError, match="8265"):
        submit_job(f"http://127.0.0.1:{port}", "true")
