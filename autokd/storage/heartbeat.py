"""Signs of life of a driver, for other drivers of the same study: whether they may take over its trials."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import optuna

from autokd.errors import StorageError
from autokd.storage.facts import StudyFacts

logger = logging.getLogger(__name__)

BEAT_S = 30.0
"""Seconds between two signs of life."""


@contextmanager
def heartbeat(study: optuna.Study, owner: str, every_s: float = BEAT_S) -> Iterator[None]:
    """Give signs of life within the block, from a thread of its own.

    Args:
        study: study of the search, in a database that several drivers may share.
        owner: mark of this run.
        every_s: seconds between two of them.

    Returns:
        A context manager.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_beat, args=(StudyFacts(study), owner, every_s, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=every_s)


def _beat(facts: StudyFacts, owner: str, every_s: float, ended: threading.Event) -> None:
    # Nanoseconds, since a resumed run must not repeat a number; nobody reads a time from them.
    while not ended.is_set():
        try:
            facts.set_heartbeat(owner, time.time_ns())
        except StorageError as error:  # the driver's own thread ends the run, if the database stays away
            logger.warning("no sign of life could be given: %s", error)
        ended.wait(every_s)
