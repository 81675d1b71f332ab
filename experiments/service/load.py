"""Load of a service: 200 searches in the list, 20 running at once, 50 requests a second; latencies are recorded.

The service is ``autokd serve`` in a process of its own, its searches are stand-ins (``stand_in.py``) as processes, and
the requests come from threads here, each on a connection of its own, at fixed times whatever the answers take (an open
loop, so that a slow answer delays no later request's clock).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from autokd.client import Client

HERE = Path(__file__).parent
CONFIG = """\
name: {name}
data: {{format: shapes, image_size_px: [64, 64], num_train: 8, num_val: 4, num_test: 4}}
teacher: {{architecture: fcos, backbone: {{blocks: [1, 1, 1, 1], width: 8}}, train: {{epochs: 1}}}}
student: {{architecture: fcos, backbone: {{blocks: [1, 1, 1, 1], width: 8}}}}
search: {{trials: {trials}}}
"""
MIX = ("list", "list", "status", "status", "status", "logs", "page", "run", "results", "compare")
"""Kinds of requests, in turn: what an open list, some open runs and a few scripts ask."""


def main(options: argparse.Namespace) -> None:
    """Run the load, and write the figures."""
    with tempfile.TemporaryDirectory(prefix="autokd-load-", dir="/tmp") as folder:
        service, client, token = start(Path(folder), options)
        try:
            searches = fill(client, options)
            figures = measure(client, token, searches, options)
        finally:
            service.send_signal(signal.SIGINT)
            service.wait(timeout=60)
    options.out.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


def start(folder: Path, options: argparse.Namespace) -> tuple[subprocess.Popen[str], Client, str]:
    """Start a service; return its process, a client and its token."""
    autokd = [sys.executable, "-m", "autokd"]
    made = subprocess.run(
        [*autokd, "token", "create", "load", "--role", "admin", "--folder", str(folder)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    token = made.stdout.strip()
    words = ["serve", "--folder", str(folder), "--port", "0", "--backend", "processes", "--rate", "1000"]
    words += ["--running", str(options.running), "--command", f"{sys.executable} {HERE / 'stand_in.py'}"]
    environment = os.environ | {"STAND_IN_TRIAL_S": "1"}
    service = subprocess.Popen([*autokd, *words], stdout=subprocess.PIPE, text=True, env=environment)
    assert service.stdout is not None
    address = next(word for word in service.stdout.readline().split() if word.startswith("http://"))
    return service, Client(address, token), token


def fill(client: Client, options: argparse.Namespace) -> list[str]:
    """Submit all searches: most end at once, the last ones run until the end."""
    searches = []
    for i in range(options.searches - options.running):
        searches.append(client.submit(CONFIG.format(name=f"short-{i}", trials=1))["id"])
        while len(open_searches := [s for s in client.list(limit=1000) if s["state"] in ("queued", "running")]) >= 40:
            time.sleep(1.0)
    while open_searches := [s for s in client.list(limit=1000) if s["state"] in ("queued", "running")]:
        print(f"{len(open_searches)} short searches left", flush=True)
        time.sleep(2.0)
    long = [client.submit(CONFIG.format(name=f"long-{i}", trials=100_000))["id"] for i in range(options.running)]
    while sum(s["state"] == "running" for s in client.list(limit=1000)) < options.running:
        time.sleep(0.5)
    return [*searches, *long]


def measure(client: Client, token: str, searches: list[str], options: argparse.Namespace) -> dict[str, object]:
    """Send requests at a fixed rate; return latencies in milliseconds by kind."""
    address = urlsplit(client._connection.address).netloc
    latencies: dict[str, list[float]] = defaultdict(list)
    failures: list[str] = []
    connections = threading.local()
    began = time.monotonic() + 1.0
    count = int(options.rate * options.seconds)

    def ask(i: int) -> None:
        due = began + i / options.rate
        time.sleep(max(0.0, due - time.monotonic()))
        kind, search = MIX[i % len(MIX)], searches[(i * 7) % len(searches)]
        if not hasattr(connections, "one"):
            connections.one = HTTPConnection(address, timeout=60)
        connections.one.request("GET", place(kind, search, searches), headers={"Authorization": f"Bearer {token}"})
        answer = connections.one.getresponse()
        answer.read()
        latencies[kind].append((time.monotonic() - due) * 1000)
        if answer.status >= 400 and not (kind == "results" and answer.status == 404):
            failures.append(f"{kind}: {answer.status}")

    with ThreadPoolExecutor(options.threads) as pool:
        list(pool.map(ask, range(count)))
    every = [value for values in latencies.values() for value in values]
    states = defaultdict(int)
    for found in client.list(limit=1000):
        states[found["state"]] += 1
    return {
        "requests": count,
        "rate_per_s": options.rate,
        "searches": dict(states),
        "failures": failures[:20],
        "ms": {name: summary(values) for name, values in {"all": every, **latencies}.items()},
        "machine": f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}",
        "load_average": os.getloadavg(),
    }


def place(kind: str, search: str, searches: list[str]) -> str:
    """Return the path of a kind of request."""
    return {
        "list": "/api/v1/searches?limit=200",
        "status": f"/api/v1/searches/{search}",
        "logs": f"/api/v1/searches/{search}/logs",
        "page": "/parts/runs",
        "run": f"/runs/{search}/parts/live",
        "results": f"/api/v1/searches/{search}/results",
        "compare": f"/api/v1/compare?ids={search},{searches[0] if search != searches[0] else searches[1]}",
    }[kind]


def summary(values: list[float]) -> dict[str, float]:
    """Return median, p99 and the greatest of latencies."""
    ranked = sorted(values)
    return {
        "count": len(ranked),
        "p50": round(statistics.median(ranked), 1),
        "p99": round(ranked[min(len(ranked) - 1, int(0.99 * len(ranked)))], 1),
        "max": round(ranked[-1], 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--running", type=int, default=20)
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--out", type=Path, default=HERE / "load.json")
    main(parser.parse_args())
