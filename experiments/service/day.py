"""Play a day of a service by REST: two users, three searches, a stop, a restart, a comparison, a download.

``python experiments/service/day.py --backend processes --stand-in`` takes seconds; ``--backend ray`` runs the searches
as jobs of a local Ray; without ``--stand-in`` they are real searches on generated images. Exit code 0: all was as it
should be.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from autokd.client import Client, ServiceError

HERE = Path(__file__).parent
CONFIG = """\
name: {name}
data: {{format: shapes, image_size_px: [64, 64], num_train: 16, num_val: 8, num_test: 8}}
teacher: {{architecture: fcos, backbone: {{blocks: [1, 1, 1, 1], width: 8}}, train: {{epochs: 1, batch_size: 4}}}}
student: {{architecture: fcos, backbone: {{blocks: [1, 1, 1, 1], width: 8}}}}
space: {{terms: 1, sources: [feature_map, foreground], distances: [l1, l2], gradient_ratio: [10, 40]}}
search: {{trials: {trials}, enqueue: [], finalists: 1, finalist_seeds: [1]}}
proxy: {{warm_start: {{epochs: 1}}, batch_size: 4, epochs: 1, reward: [val_loss], calibration_trials: 2}}
full: {{epochs: 1, batch_size: 4, seeds: [0], baselines: [none]}}
runtime: {{workers: 0}}
"""


class Day:
    """A service in a process of its own, which the day may kill and start again.

    Args:
        folder: folder of the service.
        arguments: options of the script.
    """

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self._folder = folder
        self._arguments = arguments
        self._process: subprocess.Popen[str] | None = None
        self.address = ""

    def autokd(self, *words: str) -> list[str]:
        """Return a command of autokd on the service's folder."""
        return [sys.executable, "-m", "autokd", *words, "--folder", str(self._folder)]

    def token(self, name: str, role: str) -> str:
        """Return a new token."""
        made = subprocess.run(
            self.autokd("token", "create", name, "--role", role), check=True, capture_output=True, text=True
        )
        return made.stdout.strip()

    def start(self) -> None:
        """Start the service, and wait for its address."""
        words = ["serve", "--port", "0", "--root", str(self._folder), "--backend", self._arguments.backend]
        if self._arguments.stand_in:
            words += ["--command", f"{sys.executable} {HERE / 'stand_in.py'}"]
        self._process = subprocess.Popen(self.autokd(*words), stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self.address = next((word for word in line.split() if word.startswith("http://")), "")
        assert self.address, f"the service did not start: {line}"

    def kill(self) -> None:
        """End the service as a power cut does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """End the service, its jobs' Ray and what is left of its jobs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=20)
        if self._arguments.backend == "ray":
            from autokd.runtime.ray.head import RayHead

            RayHead(self._folder / "ray", 1).stop()


@contextlib.contextmanager
def playing(arguments: argparse.Namespace) -> Iterator[Day]:
    """Yield a day in a folder of its own, which is ended and removed."""
    with tempfile.TemporaryDirectory(prefix="autokd-day-", dir="/tmp") as folder:
        day = Day(Path(folder), arguments)
        try:
            yield day
        finally:
            day.end()


def await_state(client: Client, search: str, states: tuple[str, ...], timeout_s: float) -> dict[str, object]:
    """Return a search once it is in one of some states."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = client.status(search)
        if found["state"] in states:
            return found
        assert found["state"] != "failed", (
            f"{search} failed: {found['message']}\n{''.join(client.logs(search))[-3000:]}"
        )
        time.sleep(0.2)
    raise AssertionError(f"{search} is {client.status(search)['state']} after {timeout_s} s, not {states}")


def await_trials(client: Client, search: str, count: int, timeout_s: float) -> None:
    """Wait until a search has ended some trials."""
    deadline = time.monotonic() + timeout_s
    while (client.status(search)["trials_done"] or 0) < count:
        assert time.monotonic() < deadline, f"{search} has no {count} trials after {timeout_s} s"
        time.sleep(0.2)


def play(day: Day, timeout_s: float) -> None:
    """Play the day."""
    ann_token, bob_token, eve_token = (day.token("ann", "submit"), day.token("bob", "submit"), day.token("eve", "read"))
    day.start()
    ann, bob, eve = (Client(day.address, token) for token in (ann_token, bob_token, eve_token))
    first = ann.submit(CONFIG.format(name="first", trials=4))["id"]
    long = ann.submit(CONFIG.format(name="long", trials=4), {"search.trials": 200})["id"]
    second = bob.submit(CONFIG.format(name="second", trials=5))["id"]
    for verb in (lambda: eve.submit(CONFIG.format(name="x", trials=1)), lambda: bob.stop(first)):
        assert refusal(verb) == 403
    say("submitted: first and long by ann, second by bob; what roles forbid was refused")
    await_trials(ann, long, 1, timeout_s)
    ann.stop(long)
    await_state(ann, long, ("stopped",), timeout_s)
    say("stopped: long")
    day.kill()
    day.start()
    ann, bob, eve = (Client(day.address, token) for token in (ann_token, bob_token, eve_token))
    assert ann.status(long)["state"] == "stopped"
    done = ann.status(long)["trials_done"]
    say("restarted: the service was killed and started; nothing is lost")
    for client, search in ((ann, first), (bob, second)):
        await_state(client, search, ("finished",), timeout_s)
    ann.set_budget(long, int(done or 0) + 2)
    ann.resume(long)
    await_state(ann, long, ("finished",), timeout_s)
    assert "begins" in "".join(eve.logs(long)) or not day._arguments.stand_in
    say("finished: all three, the stopped one with a smaller budget")
    columns = eve.compare([first, second])
    assert [column["winner"] is not None for column in columns] == [True, True]
    with tempfile.TemporaryDirectory() as folder:
        path = eve.download(first, "student", folder)
        assert path.stat().st_size > 0
        eve.download(first, "report", Path(folder) / "report.html")
    say("compared and downloaded")
    bob.delete(second)
    assert {each["id"] for each in eve.list()} == {first, long}


def refusal(verb: Callable[[], object]) -> int:
    """Return the status with which a verb is refused; 0 if it is not."""
    try:
        verb()
    except ServiceError as error:
        return error.status
    return 0


def say(words: str) -> None:
    """Print a line with the time."""
    print(f"[{time.strftime('%H:%M:%S')}] {words}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["processes", "ray"], default="processes")
    parser.add_argument("--stand-in", action="store_true", help="play the searches too")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds to wait for each step")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with playing(options) as played:
        play(played, options.timeout)
    say("the day is over")
