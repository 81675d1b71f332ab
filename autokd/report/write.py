"""The outputs of a report: report.html in the run directory, a table for the terminal, a table in Markdown."""

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
    """Write report.html into a run directory.

    Args:
        run_dir: run directory.
        study: study of the search.
        results: results of the run; None: the search alone is reported.
        images: test images to draw, in this order.
        score_threshold: least score of a detection that is drawn, in [0, 1].
        environment: versions, device and the like, by name; None: the versions of the results.

    Returns:
        Path of report.html.
    """
    folder = Path(run_dir)
    data = gather(folder, study, results, images=images, score_threshold=score_threshold, environment=environment)
    return render_report(data, folder / REPORT_NAME)


def results_table(results: Results) -> Table:
    """Return the results with spreads and gains as a table for the terminal; the winner is marked by a star.

    Args:
        results: results of a run.
    """
    return entries_table(entries_of(results), winner=results.winner)


def results_markdown(results: Results) -> str:
    """Return the results with spreads and gains as a Markdown table; the winner is bold.

    Args:
        results: results of a run.
    """
    return entries_markdown(entries_of(results), winner=results.winner)
