"""Fill the values of a report from a run: its study, its results, its configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from autokd.errors import AutoKDError
from autokd.metrics import SIZES, TEST_AP, part_of, size_ap
from autokd.report.pictures import ComparisonImage
from autokd.report.statistics import summarize
from autokd.report.trials import trials_of
from autokd.report.view import (
    EntryView,
    FidelityPoint,
    ReportData,
    SearchView,
    TrialView,
)
from autokd.spec import DistillerSpec, formula_lines
from autokd.storage import Entry, Results, RunDirectory, SearchSummary, StudyFacts

if TYPE_CHECKING:
    import optuna

SCORE_THRESHOLD = 0.3
"""Least score of a detection that a picture shows."""
_PACKAGES = ("autokd", "torch", "torchvision", "optuna", "ray", "numpy")


def gather(
    run_dir: Path,
    study: optuna.Study,
    results: Results | None = None,
    *,
    images: Sequence[ComparisonImage] = (),
    score_threshold: float = SCORE_THRESHOLD,
    environment: Mapping[str, str] | None = None,
) -> ReportData:
    """Return everything that a report shows.

    Args:
        run_dir: run directory, whose configuration is shown.
        study: study of the search.
        results: results of the run; None: the full trainings have not ended.
        images: test images with everybody's boxes.
        score_threshold: least score of a detection that is drawn, in [0, 1].
        environment: versions, device and the like; None: the versions in ``results``, else those installed here.
    """
    trials = trials_of(study)
    config_yaml, config = _configuration(run_dir)
    searched = _search_view(study, trials, results, config)
    found = results or Results(search=SearchSummary(sampler=searched.sampler))
    return ReportData(
        name=found.name or study.study_name,
        search=searched,
        trials=trials,
        entries=entries_of(found),
        winner=found.winner,
        teacher=found.teacher,
        teacher_per_class=_teacher_per_class(found),
        teacher_per_size=_teacher_per_size(found),
        race=found.race or StudyFacts(study).race,  # before there are results, the database has it
        proxy_fidelity=found.proxy_fidelity,
        fidelity=fidelity_of(found),
        images=tuple(images),
        score_threshold=score_threshold,
        judged_on=_judged_on(config),
        config_yaml=config_yaml,
        environment=dict(environment or found.versions or _versions()),
        notes=found.notes,
    )


def entries_of(results: Results) -> tuple[EntryView, ...]:
    """Return the rows of the results, with NaN for unknown numbers.

    Args:
        results: results of a run.
    """
    return tuple(_entry_view(entry) for entry in results.entries)


def fidelity_of(results: Results) -> tuple[FidelityPoint, ...]:
    """Return the entries that have both a proxy reward and a val AP.

    Args:
        results: results of a run.
    """
    points = []
    for entry in results.entries:
        summary = summarize(_numbers(entry.val_ap))
        if entry.proxy_reward is not None and summary is not None and not entry.is_inactive:
            points.append(FidelityPoint(entry.name, entry.proxy_reward, summary.mean))
    return tuple(points)


def _entry_view(entry: Entry) -> EntryView:
    lines, yaml = _described(entry)
    return EntryView(
        name=entry.name,
        seeds=entry.seeds,
        val_ap=_numbers(entry.val_ap),
        test_ap=_numbers(entry.test_ap),
        train_seconds=_numbers(entry.train_seconds),
        digest=entry.digest if entry.spec else "",
        formula_lines=lines,
        yaml=yaml,
        per_class={name: _numbers(values) for name, values in entry.test_ap_per_class.items()},
        per_size={
            size: _numbers(entry.metrics[name]) for size in SIZES if (name := size_ap("test", size)) in entry.metrics
        },
    )


def _described(entry: Entry) -> tuple[tuple[str, ...], str]:
    """Return an entry's formula and YAML; its one-line formula alone if an operator is not installed here."""
    if not entry.spec:
        return (), ""
    try:
        spec = DistillerSpec.from_data(entry.spec)
        return tuple(formula_lines(spec)), spec.to_yaml()
    except AutoKDError:
        return (entry.formula,), ""


def _search_view(
    study: optuna.Study, trials: Sequence[TrialView], results: Results | None, config: Mapping[str, Any]
) -> SearchView:
    search = config.get("search")
    sampler = str(search.get("sampler", "")) if isinstance(search, Mapping) else ""
    return SearchView(
        sampler=results.search.sampler if results is not None else sampler,
        finished=sum(trial.status == "finished" for trial in trials),
        failed=sum(trial.status == "failed" and trial.cause != "interrupted" for trial in trials),
        pruned=sum(trial.status == "pruned" for trial in trials),
        reused=sum(trial.reused_from is not None for trial in trials),
        seconds=results.search.seconds if results is not None else StudyFacts(study).seconds_used,
        cost=_cost_words(results.search) if results is not None else "",
        direction="minimize" if study.direction.name == "MINIMIZE" else "maximize",
        none_value=0.0,
    )


def _cost_words(search: SearchSummary) -> str:
    """Return the cost of a search with a budget, and the gain in val AP that each full training and hour bought."""
    if search.full_trainings is None:
        return ""
    words = f"It cost {search.full_trainings:.1f} full trainings"
    hours = (search.training_seconds or 0.0) / 3600
    if hours:
        words += f" ({hours:.2f} hours of a worker)"
    if search.gain_per_training is None:
        return f"{words}."
    words += f", which bought {search.gain_per_training:+.5f} val AP over none each"
    if hours:
        words += f", {search.gain_per_training * search.full_trainings / hours:+.4f} an hour"
    return f"{words}."


def _configuration(run_dir: Path) -> tuple[str, Mapping[str, Any]]:
    """Return the resolved configuration as text and as data, both empty if the folder holds none."""
    try:
        run = RunDirectory.existing(run_dir)
        return run.config_path.read_text(encoding="utf-8"), run.read_config()
    except AutoKDError:
        return "", {}


def _judged_on(config: Mapping[str, Any]) -> Literal["test", "val"]:
    data = config.get("data")
    has_test = not isinstance(data, Mapping) or data.get("format") == "shapes" or data.get("test") is not None
    return "test" if has_test else "val"


def _teacher_per_class(results: Results) -> dict[str, float]:
    """Return the teacher's test AP by class."""
    by_class = {part_of(name, TEST_AP): value for name, value in results.teacher.metrics.items()}
    return {name: value for name, value in by_class.items() if name is not None and value is not None}


def _teacher_per_size(results: Results) -> dict[str, float]:
    """Return the teacher's test AP by size of objects."""
    found = {size: results.teacher.metrics.get(size_ap("test", size)) for size in SIZES}
    return {size: value for size, value in found.items() if value is not None}


def _numbers(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if value is None else float(value) for value in values)


def _versions() -> dict[str, str]:
    """Return the versions installed here."""
    installed = {}
    for package in _PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed
