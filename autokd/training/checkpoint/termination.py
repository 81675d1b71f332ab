"""SIGTERM during a training: the step in work ends, the state is saved, then the process may end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Termination:
    """Whether the process was asked to end.

    Attributes:
        is_requested: True from the signal on.
        is_answered: True if the training has ended because of it.
    """

    def __init__(self) -> None:
        self.is_requested = False
        self.is_answered = False

    def request(self, signal_number: int = 0, frame: FrameType | None = None) -> None:
        """Ask for the end; a signal handler."""
        self.is_requested = True


@contextmanager
def watched(termination: Termination) -> Iterator[None]:
    """Within the block SIGTERM asks ``termination`` for the end, in place of ending the process.

    A signal that the training has not answered by the end of the block is raised again, for the handler of before. Only
    a main thread can have handlers: in any other one (a rank of Ray Train) the block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, termination.request)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
            if termination.is_requested and not termination.is_answered:
                signal.raise_signal(signal.SIGTERM)
