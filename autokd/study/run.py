"""One run from the configuration to the report: prepare, search, race, train in full, write the results.

Everything that a run finds out is stored in the study's database at once, so that ``resume`` repeats no training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from autokd.config import ResolvedConfig, RunConfig, config_data, config_digest
from autokd.data import content_of, load_datasets
from autokd.detectors import (
    check_trainable,
    detector_family_of,
    family_notes,
    first_trials,
    pair_of,
    resolve,
    try_detectors,
)
from autokd.errors import AutoKDError, StorageError
from autokd.files import make_private_folder
from autokd.jobs import NO_DISTILLATION
from autokd.portfolio import Portfolio
from autokd.presets import load_distiller
from autokd.runtime import make_runtime
from autokd.runtime.resources import has_local_gpus
from autokd.search import make_pruner, make_sampler
from autokd.space import AnySpace
from autokd.spec import DistillerSpec
from autokd.storage import Results, RunDirectory, StudyFacts, heartbeat, open_study
from autokd.study.contents import contents_of
from autokd.study.context import SEARCH_SEED, FullResults, RunContext
from autokd.study.distillers import NamedDistiller, baseline_distillers
from autokd.study.finish import write_results
from autokd.study.full_disk import disks_explained, require_writable
from autokd.study.learned import portfolio_of
from autokd.study.limits import HardLimits
from autokd.study.observer import Observer, SilentObserver
from autokd.study.phased_driver import PhasedDriver, Phases
from autokd.study.phases import train_in_full
from autokd.study.planning import make_plan
from autokd.study.preparing import prepare_run
from autokd.study.progress import ProgressRecorder
from autokd.study.resume import RunClock, claim_study, end_open_trials
from autokd.study.strategy import search_phases
from autokd.study.tracked_driver import TrackedDriver, run_summary
from autokd.temporary import remove_abandoned
from autokd.tracking import TrackedRun, Trackers, check_trackers, open_trackers
from autokd.training import TrainingEvaluatorFactory


def run_search(
    config: RunConfig,
    directory: Path,
    *,
    cache_dir: Path,
    storage_url: str | None = None,
    resume: bool = False,
    observer: Observer | None = None,
    forecast_s: float = 0.0,
    trackers: Sequence[str] = (),
) -> Results:
    """Search a distiller, train the winner in full beside the baselines, and write everything into a run directory.

    Ctrl-C (KeyboardInterrupt) and other exceptions pass through; what has finished is kept for ``resume``.

    Args:
        config: configuration as ``autokd.config.load_config`` returns it.
        directory: run directory; it must be new or empty, or hold the run to resume.
        cache_dir: folder of trained teachers and cached features, shared by runs.
        storage_url: address of the study's database; None: study.db in the run directory.
        resume: continue the run in ``directory``.
        observer: receiver of progress; None: progress is discarded.
        forecast_s: seconds to measure before a new run, for a line of what it costs; 0: no line.
        trackers: names of the trackers that receive curves and results (``autokd.tracking.TRACKERS``).

    Returns:
        The content of results.json.

    Raises:
        AutoKDError: if the input is wrong, before anything is trained; its subclass names the kind.
    """
    check_trackers(trackers)
    observer = ProgressRecorder(observer or SilentObserver())
    require_writable(cache_dir)
    config = resolve(config)
    content = content_of(config.data, cache_dir)
    check_trainable(config, content=content)
    pair = pair_of(config, content)
    space, reasons = pair.part_of(config.space)
    portfolio = portfolio_of(config, space)
    first = first_trials(config, pair, space, portfolio)
    left_out = (f"left out of the space: {reason}" for reason in reasons)
    families = family_notes(_published(config, pair.family), pair.family)
    for note in (*config.notes, *left_out, *first.notes, *families):
        observer.say(note)
    with _open_run(
        config=config,
        directory=directory,
        cache_dir=cache_dir,
        storage_url=storage_url,
        resume=resume,
        observer=observer,
        proxy_seeds=(SEARCH_SEED,) if config.search.budget is None else (),
        space=space,
        portfolio=portfolio,
        forecast_s=0.0 if resume else forecast_s,
    ) as run:
        phases = search_phases(run, space, first)  # a generator: nothing has been trained yet
        return _execute(run, phases, trackers)


def run_distill(
    config: RunConfig,
    spec: DistillerSpec,
    directory: Path,
    *,
    cache_dir: Path,
    resume: bool = False,
    observer: Observer | None = None,
    trackers: Sequence[str] = (),
) -> Results:
    """Train the student in full with a given distiller, beside the configuration's baselines; nothing is searched.

    Args:
        config: configuration as ``autokd.config.load_config`` returns it.
        spec: distiller.
        directory: run directory; it must be new or empty, or hold the run to resume.
        cache_dir: folder of trained teachers and cached features, shared by runs.
        resume: continue the run in ``directory``.
        observer: receiver of progress; None: progress is discarded.
        trackers: names of the trackers that receive curves and results (``autokd.tracking.TRACKERS``).

    Returns:
        The content of results.json.

    Raises:
        ConfigError: if this pair of detectors cannot supply what the distiller reads, before anything is trained.
        AutoKDError: if other input is wrong, before anything is trained.
    """
    check_trackers(trackers)
    observer = ProgressRecorder(observer or SilentObserver())
    require_writable(cache_dir)
    config = resolve(config)
    check_trainable(config, spec, content_of(config.data, cache_dir))
    family = detector_family_of(config.student)
    for note in (*config.notes, *family_notes(_published(config, family, spec), family)):
        observer.say(note)
    with _open_run(
        config=config,
        directory=directory,
        cache_dir=cache_dir,
        storage_url=None,
        resume=resume,
        observer=observer,
        proxy_seeds=(),
        space=None,
    ) as run:
        distillers = baseline_distillers(config.full, family)
        if all(baseline.digest != spec.digest for baseline in distillers):
            distillers.append(NamedDistiller(spec.name or "given", spec))
        return _execute(run, train_in_full(run, distillers), trackers)


def _published(config: ResolvedConfig, family: str | None, *others: DistillerSpec) -> list[DistillerSpec]:
    """Return the distillers that the configuration names, as they are loaded for a pair of a family, and others."""
    names = dict.fromkeys((*config.search.named_distillers, *config.full.baselines))
    return [*(load_distiller(name, family) for name in names if name != NO_DISTILLATION), *others]


@contextmanager
def _open_run(
    *,
    config: ResolvedConfig,
    directory: Path,
    cache_dir: Path,
    storage_url: str | None,
    resume: bool,
    observer: ProgressRecorder,
    proxy_seeds: tuple[int, ...],
    space: AnySpace | None,
    portfolio: Portfolio | None = None,
    forecast_s: float = 0.0,
) -> Iterator[RunContext]:
    """Check everything that can be wrong, prepare teachers and caches, and hold the run directory until the end.

    Args:
        proxy_seeds: seeds of the proxy trainings whose warm starts are prepared; empty if nothing is searched.
        space: space to search; None if nothing is searched.
        portfolio: recorded distillers, from which the sampler has its prior; None: AutoKD's own.
        forecast_s: seconds to measure for a forecast; 0: none is made.
    """
    with disks_explained(cache_dir):
        make_private_folder(cache_dir)
        remove_abandoned(cache_dir)
        datasets = load_datasets(config.data, cache_dir)
    try_detectors(config, datasets.classes, datasets.train.image_size_px)
    runtime = config.runtime
    if forecast_s > 0 and (runtime.ray_address is None or has_local_gpus(runtime.gpus_per_worker)):
        # A head node without GPUs would measure its own cores, for long.
        bill = make_plan(config, cache_dir=cache_dir, budget_s=forecast_s, datasets=datasets)
        observer.say(bill.line())
        if excess := bill.excess():
            raise AutoKDError(f"The run does not fit on this machine: {excess}")
    here = directory.absolute()
    with (
        disks_explained(cache_dir, here),
        RunDirectory.start(here, config, resume=resume) as run_directory,
        observer.recording(run_directory.path),
    ):
        study = open_study(
            storage_url or run_directory.study_path,
            run_directory.name,
            sampler=make_sampler(config.search, space, detector_family_of(config.student), portfolio),
            pruner=make_pruner(config.search),
        )
        contents = contents_of(config, datasets)
        claim_study(study, config_digest(config), contents, is_known=run_directory.has_study)
        run_directory.mark_study()
        facts = StudyFacts(study)
        clock = RunClock(facts)
        with clock.running(), heartbeat(study, run_directory.owner) if storage_url else nullcontext():
            prepared = prepare_run(config, datasets, cache_dir, proxy_seeds, facts, observer)
            yield RunContext(
                config=config.model_copy(update={"name": run_directory.name}),
                directory=run_directory,
                study=study,
                facts=facts,
                clock=clock,
                datasets=datasets,
                preparation=prepared.preparation,
                factory=TrainingEvaluatorFactory(prepared.config, cache_dir, run_directory.path, datasets),
                observer=observer,
                cache_dir=cache_dir,
                storage_url=storage_url,
            )


def _execute(run: RunContext, phases: Phases[FullResults], trackers: Sequence[str]) -> Results:
    """Train all phases under the trackers, write the results, and let the trackers have them."""
    about = TrackedRun(run.config.name, run.directory.path, run.directory.owner, config_data(run.config))
    with open_trackers(trackers, about) as tracking:
        results = write_results(run, _train(run, phases, tracking))
        if tracking:
            tracking.finish(run_summary(run, results))
        return results


def _train(run: RunContext, phases: Phases[FullResults], tracking: Trackers) -> FullResults:
    """Lead a runtime through all phases; if the database answers every job, no runtime is started."""
    driver = PhasedDriver(phases)
    try:
        if not driver.is_done:
            with make_runtime(run.config.runtime) as runtime:
                shown = TrackedDriver(driver, tracking) if tracking else driver
                runtime.run(shown, run.factory, job_timeouts_s=HardLimits(run))
    except BaseException:
        # Ctrl-C included. Back in the queue, the trials in flight are the first that a resumed run evaluates. If the
        # database is what failed, the resumed run puts them back.
        with suppress(StorageError):
            end_open_trials(run.study, run.directory.owner)
        raise
    assert driver.result is not None, "the runtime ends when the driver has no more jobs"
    return driver.result
