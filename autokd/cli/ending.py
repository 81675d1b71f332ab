"""The end of a command by a signal: SIGTERM (of a scheduler) and SIGHUP (a closed terminal) end it as Ctrl-C does."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer

from autokd.temporary import remove_own_folders

GRACE_S = 24.0
"""Seconds in which a command must have ended after a signal. Kubernetes and Slurm kill after 30 s."""

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Ending:
    """Whether a signal ends the command, and what its user does next.

    Attributes:
        run_dir: directory of the run that the command works on; None: the command has none.
        signal_number: the first signal that has come; None: none has.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget an earlier command of this process."""
        self.run_dir: Path | None = None
        self.signal_number: int | None = None
        self._has_raised = False

    def __call__(self, signal_number: int, frame: FrameType | None = None) -> None:
        """End the command by a KeyboardInterrupt in the main thread; a signal handler.

        Raises:
            KeyboardInterrupt: at the first signal, and at each Ctrl-C.
        """
        self.note(signal_number)
        # A group of processes gets SIGTERM twice, of its scheduler and of a parent: the second must not cut off the
        # clean-up of the first.
        if not self._has_raised or signal_number == signal.SIGINT:
            self._has_raised = True
            raise KeyboardInterrupt

    def note(self, signal_number: int) -> None:
        """Note a signal that something else answers, such as a training that saves its state first.

        Args:
            signal_number: the signal.
        """
        if self.signal_number is None:
            self.signal_number = signal_number
            # Clean-up that hangs (a dead file system, a cluster that is gone) must not be killed without a word.
            timer = threading.Timer(GRACE_S, self._end_at_once)
            timer.daemon = True
            timer.start()

    def say(self) -> None:
        """Print that the command was interrupted, and how to go on."""
        typer.secho(f"autokd: {self.words()}", err=True)

    def words(self) -> str:
        """Return the sentence on how to go on."""
        how = {signal.SIGTERM: " (SIGTERM)", getattr(signal, "SIGHUP", None): " (SIGHUP)"}.get(self.signal_number, "")
        if self.run_dir is None:
            return f"interrupted{how}."
        if not (self.run_dir / "config.yaml").is_file():
            return f"interrupted{how} before the run began; start it again."
        return f"interrupted{how}. What has finished is kept in {self.run_dir}; continue with --resume."

    @property
    def exit_code(self) -> int:
        """Exit code by the shells' rule: 128 and the number of the signal."""
        return 128 + (self.signal_number or signal.SIGINT)

    def _end_at_once(self) -> None:
        with contextlib.suppress(Exception):  # the terminal may be gone
            self.say()
            sys.stderr.flush()
        remove_own_folders()
        os._exit(self.exit_code)


ending = Ending()
"""The ending of this process's command."""


@contextmanager
def ended_by_signals() -> Iterator[Ending]:
    """Within the block SIGINT, SIGTERM and SIGHUP end the command.

    A signal that was ignored stays so: ``nohup`` ignores SIGHUP, and a script SIGINT for what runs in its background.
    """
    ending.reset()
    is_main = threading.current_thread() is threading.main_thread()  # only there may handlers be set
    before = {number: signal.getsignal(number) for number in _SIGNALS} if is_main else {}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, ending)
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
