"""SIGTERM or SIGHUP in a training: the step in work ends, the state is saved, then the process may end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


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
    """Within the block SIGTERM and SIGHUP ask ``termination`` for the end, in place of ending the process.

    A signal that the training has not answered by the end of the block is raised again, for the handler of before. Only
    a main thread can have handlers: in any other one (a rank of Ray Train) the block changes nothing. A signal that was
    ignored (``nohup``) stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    requested: list[int] = []

    def request(number: int, frame: FrameType | None = None) -> None:
        requested.append(number)
        termination.request(number, frame)
        # Whoever ends the command by this signal starts its clock, though the training answers first.
        note = getattr(before[number], "note", None)
        if note is not None:
            note(number)

    for number in before:
        signal.signal(number, request)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            if requested and not termination.is_answered:
                signal.raise_signal(requested[0])
