"""Random faults: each a function of a seed and a number, so that one that was not survived can be tried again."""

from __future__ import annotations

import ctypes
import os
import random
import resource
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.chaos.searches import Search, processes_of

LOCAL_KINDS = {"kill": 6, "kill twice": 2, "term": 3, "hup": 2, "int": 2, "stop": 1, "full": 4, "truncate": 2}
"""Kind of a fault without Ray -> its weight. "read-only" is added where a file system can be mounted."""
RAY_KINDS = {"kill": 2, "term": 2, "int": 1, "group term": 1, "kill worker": 2, "kill raylet": 1, "kill gcs": 1}
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "hup": signal.SIGHUP, "int": signal.SIGINT}


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        number: its number in the suite.
        kind: what happens.
        moment: when, as a part of what an undisturbed search computes.
        second: a second moment, for faults that happen twice.
        size: bytes that files may have, for a full disk.
        workers: 0, or 1 for a search on Ray.
        own_cache: whether the teacher is trained in the search that is hit.
    """

    number: int
    kind: str
    moment: float
    second: float
    size: int
    workers: int
    own_cache: bool

    @classmethod
    def draw(cls, seed: int, number: int, ray_share: float) -> Fault:
        """Return the fault of a number.

        Args:
            seed: seed of the suite.
            number: number of the fault.
            ray_share: part of the faults that hit a search on Ray.
        """
        rng = random.Random(f"{seed}-{number}")
        workers = int(rng.random() < ray_share)
        kinds = RAY_KINDS if workers else LOCAL_KINDS | ({"read-only": 1} if can_mount() else {})
        [kind] = rng.choices(list(kinds), list(kinds.values()))
        moments = rng.random(), rng.random()
        size = int(4096 * 2 ** (7 * rng.random()))
        return cls(number, kind, *moments, size, workers, own_cache=not workers and rng.random() < 0.25)

    def words(self) -> dict[str, object]:
        """Return the fault as plain data."""
        return asdict(self)

    def strike(self, search: Search) -> None:
        """Let it happen to a search.

        Args:
            search: search that has reached the moment.
        """
        kind = {"kill twice": "kill", "truncate": "kill", "read-only": "kill"}.get(self.kind, self.kind)
        if kind in SIGNALS:
            search.signal(SIGNALS[kind])
        elif kind == "stop":
            search.signal(signal.SIGSTOP)
            time.sleep(1.0)
            search.signal(signal.SIGCONT)
        elif kind == "full":
            resource.prlimit(search.pid, resource.RLIMIT_FSIZE, (self.size, self.size))
        elif kind == "group term":
            os.killpg(search.pid, signal.SIGTERM)
        else:
            for pid in _ray_processes(search, kind.removeprefix("kill ")):
                os.kill(pid, signal.SIGKILL)

    def damage(self, run: Path) -> str:
        """Cut a file of the run, which any process may read later; return its name.

        The database is left alone: what SQLite has confirmed is on the disk.

        Args:
            run: run directory.
        """
        rng = random.Random(self.second)
        kept = ("study.db", ".owner", ".lock", ".study", "config.yaml")
        files = sorted(p for p in run.rglob("*") if p.is_file() and not p.name.startswith(kept) and p.stat().st_size)
        if not files:
            return ""
        path = rng.choice(files)
        os.truncate(path, int(path.stat().st_size * rng.random()))
        return str(path.relative_to(run))


def _ray_processes(search: Search, name: str) -> list[int]:
    """Return the processes of a search's Ray: its worker, raylet or gcs_server."""
    words = {"worker": "ray::", "raylet": "raylet/raylet", "gcs": "gcs_server"}[name]
    found = processes_of(words)
    return [pid for pid in found if _descends(pid, search.pid)][:1]


def _descends(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False


def can_mount() -> bool:
    """Return whether this process may mount file systems in a name space of its own."""
    return hasattr(os, "geteuid") and os.geteuid() == 0 and Path("/proc/self/ns/mnt").exists()


def mount_read_only(folder: Path) -> None:
    """Make a folder read-only for this process alone.

    Args:
        folder: the folder.
    """
    library = ctypes.CDLL(None, use_errno=True)
    new_namespace, private, bind, remount_read_only = 0x20000, 0x4C000, 0x1000, 0x1000 | 0x20 | 0x1
    name = str(folder).encode()
    if library.unshare(new_namespace):
        raise OSError(ctypes.get_errno(), "no name space of one's own")
    library.mount(b"none", b"/", None, private, None)
    for flags in (bind, remount_read_only):
        if library.mount(name, name, None, flags, None):
            raise OSError(ctypes.get_errno(), f"{folder} cannot be mounted")
