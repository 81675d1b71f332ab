"""Reports of a run: report.html, tables for the terminal and for Markdown, figures of a search.

``view`` holds the values, ``gather`` fills them from a run, ``page`` writes the HTML.
"""

from autokd.report.comparison_picture import draw_comparison
from autokd.report.curve import search_curve
from autokd.report.drawing import draw_box
from autokd.report.gather import SCORE_THRESHOLD, entries_of, gather
from autokd.report.headline import Headline, headline
from autokd.report.page import render_report
from autokd.report.pictures import Boxes, ComparisonImage, draw_panels, open_image
from autokd.report.run_comparison import RunComparison, compare_runs
from autokd.report.tree import draw_tree
from autokd.report.trials import TrialReader, trials_of
from autokd.report.view import EntryView, FidelityPoint, ReportData, SearchView, TrialView, best_trial
from autokd.report.write import results_markdown, results_table, write_report

__all__ = [
    "Boxes",
    "ComparisonImage",
    "EntryView",
    "FidelityPoint",
    "Headline",
    "SCORE_THRESHOLD",
    "ReportData",
    "RunComparison",
    "SearchView",
    "TrialReader",
    "TrialView",
    "best_trial",
    "compare_runs",
    "draw_box",
    "draw_comparison",
    "draw_panels",
    "draw_tree",
    "entries_of",
    "gather",
    "headline",
    "open_image",
    "render_report",
    "results_markdown",
    "results_table",
    "search_curve",
    "trials_of",
    "write_report",
]
