"""The run directory: configuration, study, results and logs of a run, and the lock of its driver."""

from __future__ import annotations

import json
import logging
import os
import platform
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from autokd.config import ResolvedConfig, config_data, config_identity, config_yaml
from autokd.documents import load_document
from autokd.errors import ConfigError, StorageError
from autokd.files import write_text_atomically
from autokd.locks import without_following
from autokd.temporary import is_temporary, remove_temporary

logger = logging.getLogger(__name__)

_MAX_DIFFERENCES = 5


class RunDirectory:
    """Paths of a run; made by ``start`` (locked, for its driver) or ``existing`` (to read).

    Args:
        path: folder of the run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.config_path = self.path / "config.yaml"
        self.study_path = self.path / "study.db"
        self.distiller_path = self.path / "best_distiller.yaml"
        self.weights_path = self.path / "student.pt"
        self.results_path = self.path / "results.json"
        self.report_path = self.path / "report.html"
        self.logs_path = self.path / "logs"
        self._owner_path = self.path / ".owner"
        self._lock_path = self.path / ".lock"
        self._claim_path = self.path / ".study"
        self.owner = ""
        """Mark of this run on its trials, since runs may share a database; a resumed run keeps it."""
        self.name = ""
        """Name of the study; a resumed run keeps it."""
        self.resumed = False
        self._lock: IO[str] | None = None

    @classmethod
    def start(cls, path: str | Path, config: ResolvedConfig, *, resume: bool = False) -> RunDirectory:
        """Make the folder, or with ``resume`` reopen it, and lock it until ``close``.

        Args:
            path: folder of the run, new or empty unless ``resume``.
            config: resolved configuration, which is written there.
            resume: the folder holds the run to continue. If its first start was killed before it had written the
                configuration, there is nothing to continue, and the run begins.

        Returns:
            The locked run directory, a context manager.

        Raises:
            StorageError: if another driver has locked the folder, if it holds a run (without ``resume``) or none (with
                it), if that run has another configuration, or if the folder cannot be written.
        """
        run = cls(Path(path))
        try:
            if resume and not run.config_path.is_file() and not run._owner_path.is_file():
                raise StorageError(f"{run.path}: there is no run to resume. Start one without --resume.")
            run.path.mkdir(parents=True, exist_ok=True)
            run._acquire()
            try:
                run._write_config(config, resume)
            except BaseException:
                run.close()
                raise
        except OSError as error:
            raise StorageError(f"{run.path}: the run directory cannot be written: {error}.") from error
        return run

    @classmethod
    def existing(cls, path: str | Path) -> RunDirectory:
        """Return the directory of a run, to read.

        Args:
            path: folder of the run.

        Raises:
            StorageError: if the folder holds no run.
        """
        run = cls(Path(path))
        if not run.config_path.is_file():
            raise StorageError(f"{run.path}: not the directory of a run (it holds no config.yaml).")
        return run

    def read_config(self) -> dict[str, Any]:
        """Return the resolved configuration as plain data.

        Raises:
            StorageError: if it cannot be read.
        """
        try:
            data = load_document(self.config_path).data
        except ConfigError as error:
            raise StorageError(f"{self.config_path}: cannot be read: {error}") from error
        if not isinstance(data, dict):
            raise StorageError(f"{self.config_path}: not a configuration.")
        return data

    @property
    def has_study(self) -> bool:
        """Whether the run has had a study: one that is empty now was damaged, or is another."""
        return self._claim_path.exists()

    def mark_study(self) -> None:
        """Note that the run has a study."""
        self._claim_path.touch()

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write_config(self, config: ResolvedConfig, resume: bool) -> None:
        self.name = config.name
        if self.config_path.is_file():
            if not resume:
                raise StorageError(
                    f"{self.path}: the folder holds a run already. Continue it with --resume, or choose another "
                    "--run-dir."
                )
            there = self.read_config()
            self._check_same(there, config)
            self.resumed = True
            # The study bears the name; the file may have been renamed since.
            self.name = str(there.get("name") or config.name)
        elif others := self._foreign_entries():
            raise StorageError(
                f"{self.path}: the folder is not empty ({', '.join(others[:3])}, ...) and holds no run. "
                "Choose another --run-dir."
            )
        # What a killed process left half written; this one holds the lock, so nobody else writes here.
        remove_temporary(self.path)
        write_text_atomically(self.config_path, config_yaml(config.model_copy(update={"name": self.name})))
        self.logs_path.mkdir(exist_ok=True)

    def _foreign_entries(self) -> list[str]:
        """Return the names of entries that a start of a run, killed at any instant, does not leave."""
        own = {self._lock_path.name, self._owner_path.name}
        found = [entry for entry in self.path.iterdir() if entry.name not in own and not is_temporary(entry)]
        if found == [self.logs_path] and not any(self.logs_path.iterdir()):
            return []
        return sorted(entry.name for entry in found)

    def _check_same(self, written: Mapping[str, Any], config: ResolvedConfig) -> None:
        there = _flat(config_identity(written))
        here = _flat(config_identity(config_data(config)))
        differing = sorted(key for key in there.keys() | here.keys() if there.get(key) != here.get(key))
        if differing:
            shown = "".join(
                f"\n  {key}: {there.get(key)!r} there, {here.get(key)!r} here" for key in differing[:_MAX_DIFFERENCES]
            )
            more = f"\n  and {len(differing) - _MAX_DIFFERENCES} more" if len(differing) > _MAX_DIFFERENCES else ""
            raise StorageError(
                f"{self.path}: the run there was started with another configuration:{shown}{more}\n"
                "Restore these settings to resume it (runtime and search.trials may change), or choose another "
                "--run-dir."
            )

    def _acquire(self) -> None:
        """Lock the folder for this process; the operating system releases the lock if the process dies."""
        lock = open(self._lock_path, "a+", encoding="utf-8", opener=without_following)  # noqa: SIM115 - held open
        if not _try_lock(lock):
            lock.seek(0)
            holder = _parsed(lock.read()).get("driver", "unknown")
            lock.close()
            raise StorageError(
                f"{self.path}: another process (host:pid {holder}) works on the run in this folder. "
                "Wait until it ends, end it, or choose another --run-dir."
            )
        self._lock = lock
        lock.seek(0)
        self.owner = self._read_owner(former=str(_parsed(lock.read()).get("run") or ""))
        lock.seek(0)
        lock.truncate()
        lock.write(json.dumps({"driver": f"{platform.node()}:{os.getpid()}"}))
        lock.flush()

    def _read_owner(self, former: str) -> str:
        """Return the mark of the run, written once and never changed: by it the run finds its trials.

        Args:
            former: mark that a run of an older version kept in its lock; empty: none.
        """
        try:
            owner = self._owner_path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            owner = ""
        if not owner:
            owner = former or uuid.uuid4().hex
            write_text_atomically(self._owner_path, owner)
        return owner


def _try_lock(stream: IO[str]) -> bool:
    """Return whether the file could be locked; on a file system without locks True, with a warning."""
    try:
        import fcntl
    except ImportError:  # not POSIX
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        logger.warning("%s cannot be locked (%s): start no second run in this folder.", stream.name, error)
    return True


def is_in_use(path: Path) -> bool:
    """Whether a process works on the run of a folder; False on a file system without locks.

    Args:
        path: run directory.
    """
    try:
        with open(path / ".lock", encoding="utf-8") as lock:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, ImportError):
        return False
    return False


def _parsed(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text or "{}")
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with keys such as "full.epochs", so that a difference can be named."""
    if not isinstance(data, dict) or not data:
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
