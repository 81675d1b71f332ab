"""The checkpoints of one training: when they are written, and by whom.

The training copies its state to the CPU, and a thread writes the copy while the training goes on; at most one write is
in flight. Intervals follow the measured cost of a checkpoint (the copying, and the thread's CPU time): where it is
cheap, one is written as soon as it takes 1% of the time, so that a kill loses little; where it is expensive, intervals
stretch, so that checkpoints never take more than 5%.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autokd.errors import CheckpointError
from autokd.jobs import JobPreempted
from autokd.training.checkpoint.file import read_checkpoint, remove_unfinished, write_checkpoint
from autokd.training.checkpoint.termination import Termination, watched

logger = logging.getLogger(__name__)

CHECKPOINTS_FOLDER = "checkpoints"
"""Name of the folder of checkpoints, in the run directory and in the cache."""

_CHEAP, _CHEAP_AT_EPOCH, _AFFORDABLE = 100, 50, 20
"""Intervals as multiples of what a checkpoint costs: from where on one is written early, within an epoch and at its
end, and below which none is written: 1%, 2% and 5% of the time."""
_LEAST_S = 10.0
"""Least interval in seconds of checkpoints that are written early: a shorter one saves nothing worth a file."""
_ASSUMED_BYTES_PER_S = 5e8
"""Speed by which the cost of the first checkpoint is guessed."""

Snapshot = Callable[[], Mapping[str, Any]]
"""Returns a training's state as copies on the CPU."""


class Checkpoints:
    """The checkpoints of a training that has none; the base of ``CheckpointFile``, which has.

    Attributes:
        more: returns what the owner of the training adds to the state (reports, time used).
    """

    more: Snapshot = staticmethod(dict)

    @property
    def saved(self) -> Mapping[str, Any] | None:
        """The state from which the training goes on; None: it begins anew."""
        return None

    def forget_saved(self) -> None:
        """Give the memory of ``saved`` back; a training that has not read it begins anew."""

    @contextmanager
    def running(self, num_bytes: int = 0) -> Iterator[None]:
        """Surround the steps of the training, whose state has about ``num_bytes`` bytes."""
        yield

    def after_step(self, snapshot: Snapshot) -> None:
        """Save if it is time.

        Args:
            snapshot: returns the state; called only if it is saved.

        Raises:
            JobPreempted: after saving, if the process was asked to end.
        """

    def after_epoch(self, snapshot: Snapshot) -> None:
        """Save if it is cheap beside what was computed since the last checkpoint; as ``after_step`` otherwise."""

    def at_end(self, snapshot: Snapshot) -> None:
        """Save the state of a training that has ended, if it is kept for another to continue from."""

    def delete(self) -> None:
        """Remove what was saved: the training has ended."""


NO_CHECKPOINTS = Checkpoints()
"""Those of a training whose owner adds nothing to the state."""


class CheckpointFile(Checkpoints):
    """The checkpoint file of a training, read at its begin and replaced every few minutes.

    Attributes:
        path: path of the file.
        termination: asked for the end by SIGTERM; the training saves its state and raises ``JobPreempted``.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        every_s: float,
        *,
        continue_from: Path | None = None,
        keeps_last: bool = False,
        is_writer: bool = True,
    ) -> None:
        """Read and write nothing yet.

        Args:
            path: path of the file.
            key: digest of everything that the training depends on, but for the epoch after which it is cut off.
            every_s: most seconds between two checkpoints, unless they would take more than 5% of the time; 0: one after
                every step.
            continue_from: checkpoint of the same key from which the training goes on if ``path`` has none: that of a
                training that was cut off earlier (``Schedule.stop_after``). It is not changed.
            keeps_last: whether the state at the end is saved too, for another training to continue from.
            is_writer: False on all ranks but the first, whose state is the same.
        """
        self.path = path
        self.termination = Termination()
        self._key, self._every_s = key, every_s
        self._continue_from = continue_from
        self._keeps_last = keeps_last
        self._is_writer = is_writer
        self._saved: Mapping[str, Any] | None = None
        self._was_read = False
        self._thread: threading.Thread | None = None
        self._last_s = time.monotonic()
        self._cost_s = 0.0

    # ---------------------------------------------------------------------------------------- read

    @property
    def saved(self) -> Mapping[str, Any] | None:
        """The state from which the training goes on; None: it begins anew.

        Raises:
            CheckpointError: if the file of ``continue_from`` cannot be used. One at ``path`` that cannot be used is
                logged, and the training begins anew.
        """
        if not self._was_read:
            self._was_read = True
            self._saved = self._read()
        return self._saved

    def forget_saved(self) -> None:
        self._was_read, self._saved = True, None

    def _read(self) -> Mapping[str, Any] | None:
        if self._is_writer:
            remove_unfinished(self.path)
        try:
            found = read_checkpoint(self.path, self._key)
        except CheckpointError as error:
            logger.warning("The training begins anew, since its checkpoint cannot be used. %s", error)
            found = None
        if found is None and self._continue_from is not None:
            found = read_checkpoint(self._continue_from, self._key)
            if found is None:
                raise CheckpointError(
                    f"{self._continue_from}: there is no checkpoint to continue from. Correct the path."
                )
        if found is not None:
            logger.info("%s: the training goes on after step %d.", self.path, found["position"]["step"])
        return found

    # --------------------------------------------------------------------------------------- write

    @contextmanager
    def running(self, num_bytes: int = 0) -> Iterator[None]:
        """Watch for SIGTERM inside the block, and wait at its end for a write in flight."""
        if self._is_writer:
            self._check_room(num_bytes)
        self._cost_s = num_bytes / _ASSUMED_BYTES_PER_S
        self._last_s = time.monotonic()
        with watched(self.termination):
            try:
                yield
            finally:
                self._wait()

    def after_step(self, snapshot: Snapshot) -> None:
        if self.termination.is_requested:
            self._preempt(snapshot)
        self._save_if_due(snapshot, _CHEAP)

    def after_epoch(self, snapshot: Snapshot) -> None:
        if self.termination.is_requested:
            self._preempt(snapshot)
        self._save_if_due(snapshot, _CHEAP_AT_EPOCH)

    def at_end(self, snapshot: Snapshot) -> None:
        if self._keeps_last and self._is_writer:
            self._wait()
            self._write({**snapshot(), **self.more()})

    def delete(self) -> None:
        self._wait()
        if self._is_writer and not self._keeps_last:
            self.path.unlink(missing_ok=True)

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._last_s

    def _save_if_due(self, snapshot: Snapshot, cheap: int) -> None:
        early_s = max(_LEAST_S, cheap * self._cost_s)
        interval_s = max(min(self._every_s, early_s), _AFFORDABLE * self._cost_s if self._every_s > 0 else 0.0)
        if self._elapsed_s >= interval_s:
            self._save(snapshot)

    def _preempt(self, snapshot: Snapshot) -> None:
        self.termination.is_answered = True
        self._wait()
        if self._is_writer:
            self._write({**snapshot(), **self.more()})
        raise JobPreempted("The process was asked to end; the training was saved and goes on when it is run again.")

    def _save(self, snapshot: Snapshot) -> None:
        """Copy the state now, and have a thread write it; nothing if the last one is still being written."""
        if not self._is_writer or (self._thread is not None and self._thread.is_alive()):
            return
        self._last_s = began_s = time.monotonic()
        state = {**snapshot(), **self.more()}
        copied_s = time.monotonic() - began_s
        # No daemon: a process that ends by itself ends this write first.
        self._thread = threading.Thread(target=self._write, args=(state, copied_s), name="checkpoint")
        self._thread.start()

    def _write(self, state: Mapping[str, Any], copied_s: float = 0.0) -> None:
        began_s = time.thread_time()
        try:
            write_checkpoint(self.path, self._key, state)
        except OSError as error:
            # A training of hours must not end because it cannot be saved; the next checkpoint tries again.
            logger.warning(
                "%s: the checkpoint cannot be written (%s). The training goes on without; an interruption would lose "
                "what was computed since the last one. Make room, or correct the folder's permissions.",
                self.path,
                error,
            )
        self._cost_s = copied_s + time.thread_time() - began_s

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _check_room(self, num_bytes: int) -> None:
        """Log a warning if the folder cannot be written, or has no room for two checkpoints, the old and the new."""
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
        except OSError as error:
            logger.warning(
                "%s: this training cannot be saved on its way (%s), and an interruption would lose all of it. Correct "
                "the folder's permissions, or set runtime.checkpoint_every_s: null.",
                folder,
                error,
            )
            return
        if free < 2 * num_bytes:
            logger.warning(
                "%s: %.2f GB are free, and the checkpoints of this training need %.2f GB. Make room, or set "
                "runtime.checkpoint_every_s: null.",
                folder,
                free / 1e9,
                2 * num_bytes / 1e9,
            )
