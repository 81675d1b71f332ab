"""The page of a report: one HTML file that loads nothing from elsewhere.

plotly.js is embedded compressed and inflated by the browser, which keeps the file at a few megabytes.
"""

from __future__ import annotations

import base64
import gzip
from functools import lru_cache
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING

from autokd.files import write_text_atomically
from autokd.report.charts import fidelity_figure, per_class_figure, results_figure
from autokd.report.curve import search_curve
from autokd.report.headline import headline
from autokd.report.pictures import draw_panels
from autokd.report.race import EXPECTED, finalist_rows, race_figure, race_words, round_rows
from autokd.report.tables import FOOTNOTE, rows
from autokd.report.tree import draw_tree
from autokd.report.view import ReportData
from autokd.report.words import (
    cards,
    class_rows,
    failures,
    fidelity_words,
    search_words,
    seeds_words,
    size_rows,
    teacher_words,
    trial_rows,
    winner_words,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

SECTIONS = (
    ("headline", "Headline"),
    ("table", "Results"),
    ("curve", "Search"),
    ("tree", "Tree"),
    ("finalists", "Finalists"),
    ("winner", "Winner"),
    ("classes", "Classes"),
    ("fidelity", "Proxy"),
    ("failures", "Failures"),
    ("images", "Images"),
    ("trials", "Trials"),
    ("setup", "Set-up"),
)


def render_report(data: ReportData, path: Path) -> Path:
    """Write the page of a report, whole or not at all.

    Args:
        data: values of the report.
        path: file to write.

    Returns:
        ``path``.
    """
    drawn = _figures(data)
    pictures = [{"panels": draw_panels(image, data.score_threshold), "caption": image.caption} for image in data.images]
    class_entries = [entry.name for entry in data.entries if entry.per_class]
    class_entries += ["teacher"] if data.teacher_per_class else []
    text = _template().render(
        data=data,
        version=metadata.version("autokd"),
        sections=SECTIONS,
        css=_safe(_asset("report.css")),
        script=_safe(_asset("report.js")),
        plotly=_safe(_packed_plotly()),
        figures={name: _safe(_json(figure)) for name, figure in drawn.items()},
        figure=_placeholder,
        headline=headline(data),
        cards=cards(data),
        rows=rows(data.entries, data.winner),
        teacher=teacher_words(data),
        footnote=FOOTNOTE,
        search_words=search_words(data),
        race_words=race_words(data.race),
        finalist_rows=finalist_rows(data.race),
        round_rows=round_rows(data.race),
        expected_footnote=EXPECTED,
        winner=data.winning_entry,
        winner_words=winner_words(data),
        class_entries=class_entries,
        class_rows=class_rows(data),
        size_rows=size_rows(data),
        fidelity_words=fidelity_words(data),
        failures=failures(data.trials),
        pictures=pictures,
        trial_rows=trial_rows(data),
        seeds_words=seeds_words(data),
    )
    write_text_atomically(path, text)
    return path


def _figures(data: ReportData) -> dict[str, go.Figure]:
    meaning, direction = data.search.value_meaning, data.search.direction
    return {
        "results": results_figure(data),
        "curve": search_curve(
            data.trials, direction=direction, value_meaning=meaning, none_value=data.search.none_value
        ),
        "tree": draw_tree(data.trials, value_meaning=meaning),
        "finalists": race_figure(data.race, value_meaning=meaning),
        "classes": per_class_figure(data),
        "fidelity": fidelity_figure(data.fidelity, value_meaning=meaning),
    }


def _template():  # type: ignore[no-untyped-def]  # jinja2 is imported only where a page is written
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("autokd.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja")


def _placeholder(name: str) -> str:
    from markupsafe import Markup

    return Markup('<div class="figure" data-figure="{}"></div>').format(name)


def _safe(text: str) -> str:
    """Mark the page's own text as safe, so that jinja2 does not escape it."""
    from markupsafe import Markup

    return Markup(text)


def _json(figure: go.Figure) -> str:
    """Return a figure as JSON that cannot end the script element that holds it: "</script>" in a name would."""
    text = figure.to_json()
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return resources.files("autokd.report").joinpath("templates", name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _packed_plotly() -> str:
    """Return plotly.js, gzipped (mtime 0: equal runs give equal pages), in base64."""
    source = resources.files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(source, compresslevel=9, mtime=0)).decode("ascii")
