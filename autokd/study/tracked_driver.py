"""A driver between a runtime and the phases of a run that shows trackers every job, report and outcome."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from autokd.errors import AutoKDError
from autokd.jobs import Job, Outcome, Report
from autokd.report import SCORE_THRESHOLD, draw_panels, results_markdown
from autokd.runtime import Driver, Wait
from autokd.storage import Results, read_record
from autokd.study.context import RunContext
from autokd.study.reporting import comparison_images
from autokd.tracking import RunSummary, Trackers


class TrackedDriver:
    """The same decisions as those of the driver inside; trackers see what passes.

    Args:
        inner: the driver that decides.
        trackers: receivers of curves and parameters.
    """

    def __init__(self, inner: Driver, trackers: Trackers) -> None:
        self._inner = inner
        self._trackers = trackers

    def next_job(self) -> Job | Wait | None:
        """See ``Driver.next_job``."""
        job = self._inner.next_job()
        if isinstance(job, Job):
            self._trackers.started(job)
        return job

    def on_report(self, report: Report) -> bool:
        """See ``Driver.on_report``."""
        self._trackers.reported(report)
        return self._inner.on_report(report)

    def on_outcome(self, outcome: Outcome) -> None:
        """See ``Driver.on_outcome``."""
        self._inner.on_outcome(outcome)
        self._trackers.ended(outcome)


def run_summary(run: RunContext, results: Results) -> RunSummary:
    """Return what trackers receive at the end of a run.

    Args:
        run: the run, whose files are written.
        results: its results.
    """
    records = [read_record(trial) for trial in run.study.get_trials(deepcopy=False)]
    rewards = {record.job_id: record.value for record in records if record.value is not None and record.job_id}
    rows: list[dict[str, str | float | bool]] = [
        {
            "name": entry.name,
            "formula": entry.formula,
            "val_ap": _mean(entry.val_ap),
            "test_ap": _mean(entry.test_ap),
            "train_seconds": _mean(entry.train_seconds),
            "is_winner": entry.name == results.winner,
        }
        for entry in results.entries
    ]
    directory = run.directory
    files = (directory.report_path, directory.results_path, directory.distiller_path)
    return RunSummary(
        rewards=rewards,
        table_markdown=results_markdown(results),
        rows=rows,
        pictures=_pictures(run, results),
        files=[path for path in files if path.is_file()],
    )


def _mean(values: tuple[float | None, ...]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else float("nan")


def _pictures(run: RunContext, results: Results) -> dict[str, bytes]:
    """Return the pictures of the report: each test image with the boxes of each detector."""
    try:
        images = comparison_images(run.datasets.test, run.directory.path, results, run.facts.finished_outcomes())
    except (AutoKDError, OSError) as error:
        run.observer.say(f"trackers get no pictures: {error}")
        return {}
    found = {}
    for image in images:
        for panel in draw_panels(image, SCORE_THRESHOLD):
            name = re.sub(r"\W+", "_", f"{Path(image.caption).stem}_{panel.title}")
            found[name] = base64.b64decode(panel.data_uri.partition(",")[2])
    return found
