"""A Ray cluster of several nodes on one machine, and a search on it while nodes come and go.

Every node is a raylet in a mount namespace of its own, in which the cache's path is another folder: no node sees what
another one has cached, and its folder tells whether it has worked.

    python -m tests.chaos.cluster --record experiments/chaos/cluster.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autokd.runtime.ray.head import free_ports
from autokd.runtime.ray.token import prepare_token
from tests.chaos.memory import read_memory

TRIALS = 60
SPACE = f"""
name: nodes
data: {{format: shapes, image_size_px: [64, 64], num_train: 48, num_val: 8, num_test: 8}}
teacher: {{backbone: {{width: 8}}, train: {{epochs: 1}}}}
student: {{backbone: {{width: 8}}}}
space:
  terms: 1
  sources: [feature_map, foreground]
  transforms: {{normalize: [none, standardize]}}
  distances: [l1, l2]
  gradient_ratio: {{log_uniform: [3, 100]}}
search: {{trials: {TRIALS}, enqueue: [fitnet, pkd], finalists: 1}}
proxy: {{epochs: 2, calibration_trials: 2, warm_start: {{epochs: 1}}}}
full: {{epochs: 1, seeds: [0, 1], baselines: [none]}}
runtime: {{workers: 3, gpus_per_worker: 0, checkpoint_every_s: 5, threads_per_worker: 1}}
"""
LONGEST_S = 900.0
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "token", "RAY_agent_register_timeout_ms": "200000"}
"""A machine that is short of cores takes longer than Ray's half a minute to start the agent of a node."""
OBJECT_STORE_BYTES = 80_000_000
"""Little more than the least that Ray allows."""


@dataclass
class Node:
    """A raylet with all of its processes.

    Attributes:
        name: name of the node.
        cache: the folder that the cache's path is on this node.
        process: leader of the session of its processes.
    """

    name: str
    cache: Path
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End all of its processes at once, as a power cut."""
        for pid in _processes_of_session(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    @property
    def has_worked(self) -> bool:
        """Whether the cache of this node holds anything."""
        return any(path.is_file() for path in self.cache.rglob("*"))


@dataclass
class Cluster:
    """Head without resources for workers, and nodes of one core each.

    Attributes:
        folder: folder of everything: run directory, caches of nodes, logs.
        nodes: nodes by name, killed ones too.
    """

    folder: Path
    nodes: dict[str, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.port,) = free_ports(1)
        self.address = f"127.0.0.1:{self.port}"
        self.cache = self.folder / "cache"
        self.cache.mkdir()
        self.space = self.folder / "nodes.yaml"
        self.space.write_text(SPACE)
        # Sockets lie in Ray's folder, and their paths are short.
        self._temporary = Path(tempfile.mkdtemp(prefix="akd-", dir="/tmp"))

    def __enter__(self) -> Cluster:
        prepare_token()
        head = ["--head", f"--port={self.port}", "--include-dashboard=false", f"--temp-dir={self._temporary}"]
        self._start("head", [*head, "--num-cpus=0"], "127.0.0.1")
        return self

    def __exit__(self, *raised: object) -> None:
        for node in self.nodes.values():
            node.kill()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def join(self, name: str) -> Node:
        """Start a node of one core.

        Args:
            name: its name.
        """
        # A node is told from another one by its address: each has one of the loopback network.
        address = f"127.0.0.{len(self.nodes) + 1}"
        return self._start(name, [f"--address={self.address}", "--num-cpus=1"], address)

    def _start(self, name: str, arguments: list[str], address: str) -> Node:
        agent, client, metrics = free_ports(3)
        cache = self.folder / f"cache-{name}"
        cache.mkdir()
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments]
        command += [f"--node-ip-address={address}", f"--object-store-memory={OBJECT_STORE_BYTES}"]
        command += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
        command += [f"--ray-client-server-port={client}"] if "--head" in arguments else []
        command += ["--disable-usage-stats", "--num-gpus=0"]
        node = self.nodes[name] = Node(name, cache, self._in_namespace(cache, command, name))
        # One after the other: nodes that start at once on few cores exceed the half a minute that Ray gives each.
        _wait(lambda: self._runs(node), 240, f"node {name}")
        return node

    def _runs(self, node: Node) -> bool:
        log = (self.folder / f"{node.name}.log").read_text(errors="replace")
        if node.process.poll() is not None:
            raise AssertionError(log[-3000:])
        return "Ray runtime started" in log

    def _in_namespace(self, cache: Path, command: list[str], name: str) -> subprocess.Popen[bytes]:
        bound = f"mount --bind {shlex.quote(str(cache))} {shlex.quote(str(self.cache))} && exec {shlex.join(command)}"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", bound],
                env=os.environ | {"PATH": path, **ENVIRONMENT},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def search(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a driver, on a machine with a cache of its own.

        Args:
            name: name of that machine.
            arguments: further arguments of ``autokd search``.
        """
        cache = self.folder / f"cache-{name}"
        cache.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "autokd", "search", str(self.space), "--ray-address", self.address]
        command += ["--run-dir", str(self.run), "--cache-dir", str(self.cache), "--forecast", "0", *arguments]
        return self._in_namespace(cache, command, name)

    @property
    def run(self) -> Path:
        """The run directory, which all drivers see."""
        return self.folder / "run"

    def finished(self) -> dict[str, Any]:
        """Return the outcomes of trainings that have ended well, by trial or job."""
        return read_memory(self.run).finished()


def play(folder: Path) -> dict[str, Any]:
    """Search over three nodes; kill a node, let another one join, kill the driver, go on from another machine.

    Args:
        folder: an empty folder.

    Returns:
        What happened: trainings finished at each step, nodes that have worked, seconds.

    Raises:
        AssertionError: if something was lost, repeated or not finished.
    """
    began_s = time.monotonic()
    with Cluster(folder) as cluster:
        for name in ("a", "b", "c"):
            cluster.join(name)
        driver = cluster.search("driver")
        _wait(lambda: len(cluster.finished()) >= 3 or _ended(driver, cluster), LONGEST_S, "the first trials")
        before_kill = cluster.finished()
        cluster.nodes["b"].kill()
        cluster.join("late")
        _wait(lambda: cluster.nodes["late"].has_worked or _ended(driver, cluster), LONGEST_S, "the late node")
        _wait(lambda: len(cluster.finished()) > len(before_kill) or _ended(driver, cluster), LONGEST_S, "more trials")
        before_death = cluster.finished()
        Node("driver", cluster.folder, driver).kill()
        resumed = cluster.search("other", "--resume")
        _wait(lambda: resumed.poll() is not None, LONGEST_S, "the resumed search")
        log = (folder / "other.log").read_text(errors="replace")
        assert resumed.returncode == 0, log[-3000:]
        memory, finished = read_memory(cluster.run), cluster.finished()
        worked = [node.name for node in cluster.nodes.values() if node.has_worked]
    for name, outcome in (before_kill | before_death).items():
        now = finished[name]
        assert (now["worker"], now["seconds"]) == (outcome["worker"], outcome["seconds"]), f"{name} was trained again"
    states = [trial["state"] for trial in memory.trials.values()]
    assert states.count("COMPLETE") == TRIALS, states
    assert set(states) <= {"COMPLETE", "PRUNED"}, states
    assert sorted(set(worked) - {"head"}) == ["a", "b", "c", "late"], worked
    results = json.loads((folder / "run" / "results.json").read_text())
    assert all(len(entry["test_ap"]) == 2 for entry in results["entries"]), results["entries"]
    return {
        "nodes": list(cluster.nodes),
        "worked": worked,
        "finished before the node was killed": len(before_kill),
        "finished before the driver was killed": len(before_death),
        "finished": len(finished),
        "lost": 0,
        "repeated": 0,
        "seconds": round(time.monotonic() - began_s, 1),
        "load": round(os.getloadavg()[0], 1),
    }


def _ended(driver: subprocess.Popen[bytes], cluster: Cluster) -> bool:
    if driver.poll() is not None:
        raise AssertionError((cluster.folder / "driver.log").read_text(errors="replace")[-3000:])
    return False


def _wait(is_done: Callable[[], bool], longest_s: float, what: str) -> None:
    until = time.monotonic() + longest_s
    while not is_done():
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: nothing within {longest_s:g} s")
        time.sleep(0.5)


def _processes_of_session(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                    found.append(int(entry.name))
    return found


def main() -> None:
    """Play it, and write down what happened."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--record", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        found = play(Path(folder))
    text = json.dumps(found, indent=1)
    print(text)
    if arguments.record:
        arguments.record.write_text(text + "\n")


if __name__ == "__main__":
    main()
