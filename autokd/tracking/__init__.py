"""Trackers of experiments: curves of every training, formula and parameters, tables and pictures at the end.

``contract`` has what a tracker receives; each library has a module of its own, imported when it is asked for.
"""

from autokd.tracking.choose import TRACKERS, TrackerName, check_trackers, open_trackers
from autokd.tracking.contract import RunSummary, TrackedJob, TrackedRun, Tracker, Trackers, tracked_job

__all__ = [
    "TRACKERS",
    "RunSummary",
    "TrackedJob",
    "TrackedRun",
    "Tracker",
    "TrackerName",
    "Trackers",
    "check_trackers",
    "open_trackers",
    "tracked_job",
]
