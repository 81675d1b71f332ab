"""The log of a search: those of its ended jobs, then that of the present one, as a stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from autokd.service.database import Search
from autokd.service.jobs import JobBackend
from autokd.service.settings import ServiceSettings

POLL_S = 1.0
"""Seconds between two looks at a log that is followed."""


def log_text(search: Search, backend: JobBackend, settings: ServiceSettings) -> str:
    """Return the whole log of a search so far.

    Args:
        search: the search.
        backend: what runs its jobs.
        settings: folders.
    """
    path = settings.log(search.id)
    kept = path.read_text(encoding="utf-8") if path.is_file() else ""
    mark = f"=== {search.job_id} ===\n"
    present = backend.log(search.job_id) if search.attempt and search.is_open else ""
    # The copy of the present job's log, if there is one, is older than the log.
    return kept.partition(mark)[0] + mark + present if present else kept


def follow_log(
    read: Callable[[], str], is_over: Callable[[], bool], poll_s: float = POLL_S, most_s: float = 24 * 3600.0
) -> Iterator[str]:
    """Yield the parts of a log as they are written, until the search is over.

    Args:
        read: returns the whole log.
        is_over: whether nothing more will be written.
        poll_s: seconds between two looks.
        most_s: seconds after which the stream ends anyway.
    """
    sent, began = 0, time.monotonic()
    while True:
        ends = is_over() or time.monotonic() - began > most_s
        text = read()
        if len(text) > sent:
            yield text[sent:]
            sent = len(text)
        if ends:
            return
        time.sleep(poll_s)
