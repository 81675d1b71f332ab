"""Context of a run: the objects that its phases share, and the constants that they agree on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autokd.config import ResolvedConfig
from autokd.data import Datasets
from autokd.jobs import Outcome
from autokd.storage import RunDirectory, StudyFacts
from autokd.study.distillers import NamedDistiller
from autokd.study.observer import Observer
from autokd.study.resume import RunClock
from autokd.training import Preparation, TrainingEvaluatorFactory

if TYPE_CHECKING:
    import optuna

SEARCH_SEED = 0
"""Seed of the search's proxy trainings. All trials share it, so that they differ by their distiller alone."""

HARD_LIMIT_FACTOR, HARD_LIMIT_GRACE_S = 1.5, 60.0
"""A worker that overruns its recipe's time limit is killed after factor * limit + grace. It normally stops by itself;
the kill is for one that hangs, and comes late enough not to hit one that is only slow to stop."""


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """Everything that the phases of one run share.

    Args:
        config: resolved configuration.
        directory: locked run directory.
        study: Optuna study of the search; a run without a search keeps its facts there too.
        facts: facts stored on the study.
        clock: wall time of the run.
        datasets: train, val and test split.
        preparation: trained teachers, with their scores and cached features.
        factory: maker of evaluators for the workers.
        observer: receiver of progress.
        cache_dir: folder of teachers and cached features, shared by runs.
        storage_url: database of the study; None: study.db in the run directory.
    """

    config: ResolvedConfig
    directory: RunDirectory
    study: optuna.Study
    facts: StudyFacts
    clock: RunClock
    datasets: Datasets
    preparation: Preparation
    factory: TrainingEvaluatorFactory
    observer: Observer
    cache_dir: Path
    storage_url: str | None = None


@dataclass(frozen=True)
class FullResults:
    """Full trainings of a run and their outcomes.

    Args:
        distillers: rows of the results, in their order.
        outcomes: outcomes of all full trainings, by job id.
    """

    distillers: Sequence[NamedDistiller]
    outcomes: Mapping[str, Outcome]
