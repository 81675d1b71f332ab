"""The three ways out: report.html in the run's folder, a table for the terminal, a table in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autokd.report.gather import SCORE_THRESHOLD, entries_of, gather
from autokd.report.page import render_report
from autokd.report.pictures import ComparisonImage
from autokd.report.tables import entries_markdown, entries_table

if TYPE_CHECKING:
    import optuna
    from rich.table import Table

    from autokd.storage import Results

REPORT_NAME = "report.html"


def write_report(
    run_dir: str | Path,
    study: optuna.Study,
    results: Results | None = None,
    *,
    images: Sequence[ComparisonImage] = (),
    score_threshold: float = SCORE_THRESHOLD,
    environment: Mapping[str, str] | None = None,
) -> Path:
    """Write ``report.html`` into ``run_dir`` and return its path.

    ``results`` None: the search alone is reported. ``images`` are drawn in the order given, with detections of at
    least ``score_threshold``. ``environment`` (versions, device, command) defaults to that of the results.
    """
    folder = Path(run_dir)
    data = gather(folder, study, results, images=images, score_threshold=score_threshold, environment=environment)
    return render_report(data, folder / REPORT_NAME)


def results_table(results: Results) -> Table:
    """Return the results with spreads and gains for the terminal; the winner is marked by a star."""
    return entries_table(entries_of(results), winner=results.winner)


def results_markdown(results: Results) -> str:
    """Return the same table as Markdown."""
    return entries_markdown(entries_of(results), winner=results.winner)
