"""What the page of a distiller shows, as plain values for its template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from autokd.metrics import GRADIENT_SHARE, part_of
from autokd.report import TrialView
from autokd.report.mathml import distiller_mathml, operator_cards, read_spec
from autokd.report.svg import lines_svg
from autokd.spec import DistillerSpec
from autokd.storage import Results, TrialRecord
from autokd_dashboard.catalog import Catalog, NoRunError, RunCard
from autokd_dashboard.run_reader import RunReader

Values = dict[str, Any]


def distiller_view(catalog: Catalog, run: str, reader: RunReader, number: int) -> Values:
    """Return the page of a trial's distiller.

    Args:
        catalog: runs.
        run: id of the run.
        reader: the run.
        number: number of the trial.

    Raises:
        NoRunError: if there is no such trial.
    """
    card = catalog.card(run)
    trial = next((each for each in reader.trials() if each.number == number), None)
    record = reader.record(number)
    if trial is None or record is None:
        raise NoRunError(f"there is no trial {number} in this run.")
    view = _distiller(catalog, card, f"trial {number}", record.spec_yaml)
    return view | {
        "trial": trial,
        "shares": Markup(lines_svg(share_series(record), "Share of each term in the gradient, epoch by epoch")),
        "curve": Markup(_curve(trial)),
        "place": place_in_tree(trial, reader.tree()[1]),
        "relatives": reader.others_like(trial),
    }


def entry_view(catalog: Catalog, run: str, reader: RunReader, name: str) -> Values:
    """Return the page of an entry's distiller, or of its trial if it was one.

    Args:
        catalog: runs.
        run: id of the run.
        reader: the run.
        name: name of the entry.

    Raises:
        NoRunError: if there is no such entry.
    """
    card, results = catalog.card(run), reader.results()
    entry = next((each for each in results.entries if each.name == name), None) if results is not None else None
    if entry is None:
        raise NoRunError(f"there is no entry {name[:80]!r} in the results of this run.")
    trial = next((each for each in reader.trials() if each.digest == entry.digest and each.has_value), None)
    if trial is not None:
        return distiller_view(catalog, run, reader, trial.number) | {"title": name}
    yaml = DistillerSpec.from_data(entry.spec).to_yaml() if entry.spec else ""
    view = _distiller(catalog, card, name, yaml)
    return view | {"trial": None, "shares": "", "curve": "", "place": [], "relatives": []}


def spec_math(yaml: str) -> Markup | str:
    """Return the distiller of a YAML text in mathematical type; empty if it is none.

    Args:
        yaml: text of a distiller's file.
    """
    spec = read_spec(yaml)
    return "" if spec is None else Markup(distiller_mathml(spec))


def winner_math(results: Results | None) -> Markup | str:
    """Return the winner of a run in mathematical type; empty if there is none.

    Args:
        results: results of the run; None: there are none yet.
    """
    entry = None if results is None else next((e for e in results.entries if e.name == results.winner), None)
    return "" if entry is None or not entry.spec else spec_math(DistillerSpec.from_data(entry.spec).to_yaml())


def share_series(record: TrialRecord) -> dict[str, list[tuple[float, float]]]:
    """Return each term's share of the gradient after each epoch; empty if none was measured.

    Args:
        record: the trial.
    """
    series: dict[str, list[tuple[float, float]]] = {}
    for report in () if record.outcome is None else record.outcome.reports:
        for name, value in report.metrics.items():
            if (term := part_of(name, GRADIENT_SHARE)) is not None:
                series.setdefault(term, []).append((float(report.epoch), float(value)))
    return series


def place_in_tree(trial: TrialView, nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the nodes of the tree that a trial passed, the root first, as far as the tree lists them.

    Args:
        trial: the trial.
        nodes: nodes of the tree, parents first.
    """
    listed = [i for i, node in enumerate(nodes) if trial.number in node.get("trials", ())]
    if not listed:
        return []
    place, path = listed[-1], []
    while place >= 0:
        path.append(nodes[place])
        place = nodes[place]["parent"]
    return path[::-1]


def _distiller(catalog: Catalog, card: RunCard, title: str, yaml: str) -> Values:
    spec = read_spec(yaml)
    return {
        "catalog": catalog,
        "card": card,
        "title": title,
        "yaml": yaml,
        "math": "" if spec is None else Markup(distiller_mathml(spec)),
        "operators": [] if spec is None else [(each, Markup(each.math)) for each in operator_cards(spec)],
        "digest": "" if spec is None else spec.digest,
    }


def _curve(trial: TrialView) -> str:
    if len(trial.curve) < 2:
        return ""
    values = [value for _, value in trial.curve]
    return lines_svg({"reward": trial.curve}, "Reward after each epoch", min(0.0, *values), max(0.0, *values))
