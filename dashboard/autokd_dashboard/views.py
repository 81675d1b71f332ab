"""What each page shows, as plain values for its template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from autokd.jobs import NO_DISTILLATION
from autokd.report import TrialView, best_trial, entries_of
from autokd.report.headline import headline
from autokd.report.pictures import draw_panels
from autokd.report.pictures_file import difference, load_pictures
from autokd.report.race import EXPECTED, finalist_rows, race_words, round_rows
from autokd.report.svg import intervals_svg
from autokd.report.tables import FOOTNOTE, rows
from autokd.report.words import cards, class_rows, fidelity_words, size_rows, teacher_words
from autokd.storage.run_files import FILES, present_files
from autokd_dashboard.catalog import Catalog, RunCard
from autokd_dashboard.distiller_views import Values, spec_math, winner_math
from autokd_dashboard.heat_maps import heat_maps_of
from autokd_dashboard.run_reader import RunReader

PICTURES_A_TIME = 4


def list_view(catalog: Catalog, query: Mapping[str, str]) -> Values:
    """Return the list of runs, filtered by the query.

    Args:
        catalog: runs.
        query: owner, state and text; each may be absent.
    """
    wanted = {key: query.get(key, "") for key in ("owner", "state", "text")}
    found = catalog.cards(**wanted)
    return {"catalog": catalog, "cards": found, "wanted": wanted, "states": _STATES, "counts": _counts(found)}


_STATES = ("queued", "running", "stopping", "stopped", "finished", "failed")


def run_view(catalog: Catalog, run: str, reader: RunReader) -> Values:
    """Return the frame of a run's page; what changes is in its parts.

    Args:
        catalog: runs.
        run: id of the run.
        reader: the run.
    """
    view = live_view(catalog, run, reader)
    return view | {"log": catalog.log(run)[-200_000:]}


def live_view(catalog: Catalog, run: str, reader: RunReader) -> Values:
    """Return what of a run changes while it runs.

    Args:
        catalog: runs.
        run: id of the run.
        reader: the run.
    """
    card = catalog.card(run)
    trials = reader.trials()
    progress = reader.progress()
    race = reader.race()
    return {
        "catalog": catalog,
        "card": card,
        "verbs": catalog.verbs(run),
        "stages": () if progress is None else progress.stages,
        "best": best_trial(trials),
        "counts": Counter(trial.cause or trial.status for trial in trials),
        "num_trials": len(trials),
        "rungs": rung_rows(trials),
        "workers": worker_rows(reader, trials),
        "race_words": race_words(race),
        "finalist_rows": finalist_rows(race),
        "round_rows": round_rows(race),
        "has_results": reader.results() is not None,
        "winner_math": winner_math(reader.results()),
    }


def rung_rows(trials: Sequence[TrialView]) -> list[tuple[int, int, int, float]]:
    """Return for each epoch: trials that reached it, trials that were pruned after it, the best reward there.

    Args:
        trials: trials of the search.
    """
    reached: dict[int, list[float]] = {}
    pruned: Counter[int] = Counter()
    for trial in trials:
        for epoch, value in trial.curve:
            reached.setdefault(epoch, []).append(value)
        if trial.status == "pruned" and trial.curve:
            pruned[trial.curve[-1][0]] += 1
    return [(epoch, len(values), pruned[epoch], max(values)) for epoch, values in sorted(reached.items())]


def worker_rows(reader: RunReader, trials: Sequence[TrialView]) -> list[tuple[str, int, float, int]]:
    """Return for each worker: its name, its trainings, the seconds it trained, and the trial it ended last.

    Args:
        reader: the run.
        trials: trials of the search.
    """
    found: dict[str, tuple[int, float, int]] = {}
    for trial in trials:
        record = reader.record(trial.number)
        outcome = None if record is None or record.reused_from is not None else record.outcome
        if outcome is not None and outcome.worker:
            count, seconds, _ = found.get(outcome.worker, (0, 0.0, 0))
            found[outcome.worker] = (count + 1, seconds + outcome.seconds, trial.number)
    return [(name, *numbers) for name, numbers in sorted(found.items())]


def results_view(catalog: Catalog, run: str, reader: RunReader) -> Values:
    """Return the page of the results, made of the report's parts.

    Args:
        catalog: runs.
        run: id of the run.
        reader: the run.

    Raises:
        StorageError: if there is no study yet.
    """
    card, data = catalog.card(run), reader.report_data()
    class_entries = [entry.name for entry in data.entries if entry.per_class]
    class_entries += ["teacher"] if data.teacher_per_class else []
    first = pictures_view(catalog, run, reader, 0, "differ")
    return first | {
        "catalog": catalog,
        "card": card,
        "data": data,
        "headline": headline(data),
        "cards": cards(data),
        "rows": rows(data.entries, data.winner),
        "teacher": teacher_words(data),
        "footnote": FOOTNOTE,
        "intervals": Markup(intervals_svg(data.entries, data.teacher.test_ap, data.judged_on)),
        "class_entries": class_entries,
        "class_rows": class_rows(data),
        "size_rows": size_rows(data),
        "fidelity_words": fidelity_words(data),
        "finalist_rows": finalist_rows(data.race),
        "round_rows": round_rows(data.race),
        "race_words": race_words(data.race),
        "expected_footnote": EXPECTED,
        "winner_math": winner_math(reader.results()),
        "files": [(kind, FILES[kind].meaning, path.stat().st_size) for kind, path in _files(card).items()],
        "heat_maps": heat_maps_of(reader.folder),
    }


def pictures_view(catalog: Catalog, run: str, reader: RunReader, first: int, order: str) -> Values:
    """Return a few test images with everybody's boxes.

    Args:
        catalog: runs.
        run: id of the run.
        reader: the run.
        first: number of the first image.
        order: "differ": where winner and none differ most first; else the order of the data set.
    """
    images, threshold = load_pictures(reader.folder)
    results = reader.results()
    winner = results.winner if results is not None else ""
    if order == "differ":
        images.sort(key=lambda image: -difference(image, NO_DISTILLATION, winner))
    shown = images[first : first + PICTURES_A_TIME]
    return {
        "run": run,
        "pictures": [_picture(image, threshold, winner) for image in shown],
        "score_threshold": threshold,
        "next": first + PICTURES_A_TIME if first + PICTURES_A_TIME < len(images) else None,
        "order": order,
        "num_pictures": len(images),
    }


def compare_view(catalog: Catalog, chosen: Sequence[tuple[str, RunReader]]) -> Values:
    """Return two to four runs side by side.

    Args:
        catalog: runs.
        chosen: ids and readers.
    """
    columns = []
    for run, reader in chosen:
        trials, results = reader.trials(), reader.results()
        best = best_trial(trials)
        record = None if best is None else reader.record(best.number)
        math = winner_math(results) or spec_math(record.spec_yaml if record is not None else "")
        columns.append(
            {
                "card": catalog.card(run), "best": best, "math": math, "num_trials": len(trials),
                "rows": [] if results is None else rows(entries_of(results), results.winner),
            }
        )  # fmt: skip
    return {"catalog": catalog, "columns": columns}


def _picture(image: Any, threshold: float, winner: str) -> Values:
    try:
        panels = draw_panels(image, threshold)
    except OSError as error:
        return {"panels": [], "caption": f"{image.caption}: the image cannot be read ({error.__class__.__name__})"}
    count = difference(image, NO_DISTILLATION, winner)
    return {"panels": panels, "caption": f"{image.caption}; none and {winner} differ by {count} boxes"}


def _counts(found: Sequence[RunCard]) -> Counter[str]:
    return Counter(card.state for card in found)


def _files(card: RunCard) -> dict[str, Path]:
    return present_files(Path(card.run_dir))
