"""One run, from the file to the report: prepare, search, finalists, full trainings, hand-over.

Everything a run finds out goes into the study's database as it comes, so that ``resume`` repeats nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autokd.config import NO_DISTILLATION, ResolvedConfig, RunConfig, config_digest
from autokd.data import Datasets, load_datasets
from autokd.detectors import FirstTrials, check_trainable, first_trials, pair_of, resolve, try_detectors
from autokd.errors import AutoKDError
from autokd.outcomes import Job, Outcome
from autokd.presets import load_distiller
from autokd.report import SEARCHED
from autokd.runtime import make_runtime
from autokd.runtime.resources import own_resources
from autokd.search import make_pruner, make_sampler
from autokd.space import Space, count_specs
from autokd.spec import DistillerSpec
from autokd.storage import Results, RunDirectory, open_study
from autokd.study.batch import BatchDriver
from autokd.study.contents import contents_of
from autokd.study.driver import SearchDriver, SearchPlan
from autokd.study.entries import Entry, baseline_entries
from autokd.study.finalists import Finalist, best_trials, full_finalist_seed, reference_job
from autokd.study.handover import hand_over
from autokd.study.ledger import Ledger
from autokd.study.observer import Observer, SilentObserver
from autokd.study.phases import PhasedDriver, Phases
from autokd.study.promotion import Promotion
from autokd.study.race import FinalistRace, round_words, winner_words
from autokd.study.reward import Reward, reference_curve
from autokd.training import Preparation, TrainingEvaluatorFactory, prepare

if TYPE_CHECKING:
    import optuna

Trained = tuple[Sequence[Entry], dict[str, Outcome]]
"""What was trained in full, and how each training ended, by job id."""

HARD_LIMIT_FACTOR, HARD_LIMIT_GRACE_S = 1.5, 60.0
"""A worker that does not keep its recipe's time limit itself is killed after factor * limit + grace."""

SEARCH_SEED = 0
"""Of the proxy trainings: all candidates share it, so that they differ by their distiller alone."""


def run_search(
    config: RunConfig,
    directory: Path,
    *,
    cache_dir: Path,
    storage_url: str | None = None,
    resume: bool = False,
    observer: Observer | None = None,
) -> Results:
    """Search, retrain the winner beside baselines, write everything into ``directory``; return the results.

    Raises AutoKDError for what is wrong with the input, before anything is trained; KeyboardInterrupt passes,
    with what is finished kept for ``resume``.
    """
    observer = observer or SilentObserver()
    config = resolve(config)
    check_trainable(config)
    pair = pair_of(config)
    space, reasons = pair.part_of(config.space)
    first = first_trials(config, pair, space)
    for note in (*config.notes, *(f"left out of the space: {reason}" for reason in reasons), *first.notes):
        observer.say(note)
    with _run(config, directory, cache_dir, storage_url, resume, observer, space=space) as run:
        return hand_over(run, *run.execute(_search_phases(run, space, first)))


def _search_phases(run: Run, space: Space, first: FirstTrials) -> Phases[Trained]:
    reward = yield from run.search(space, first)
    winner = yield from run.best_finalist(reward)
    entries = baseline_entries(run.config.full)
    if winner is not None:
        entries.append(Entry(SEARCHED, winner.spec, winner.promoted))
    return (yield from run.retrain(entries))


def run_distill(
    config: RunConfig,
    spec: DistillerSpec,
    directory: Path,
    *,
    cache_dir: Path,
    resume: bool = False,
    observer: Observer | None = None,
) -> Results:
    """Train the student in full with ``spec`` beside the file's baselines; no search.

    ConfigError, before anything is trained, for a distiller that this pair cannot supply.
    """
    observer = observer or SilentObserver()
    config = resolve(config)
    check_trainable(config, spec)
    for note in config.notes:
        observer.say(note)
    with _run(config, directory, cache_dir, None, resume, observer, proxy_seeds=()) as run:
        entries = baseline_entries(config.full)
        if all(entry.digest != spec.digest for entry in entries):
            entries.append(Entry(spec.name or "given", spec))
        return hand_over(run, *run.execute(run.retrain(entries)))


@contextmanager
def _run(
    config: ResolvedConfig,
    directory: Path,
    cache_dir: Path,
    storage_url: str | None,
    resume: bool,
    observer: Observer,
    proxy_seeds: tuple[int, ...] = (SEARCH_SEED,),
    space: Space | None = None,
) -> Iterator[Run]:
    """Check everything that can be wrong, prepare, start the runtime; give it all back at the end.

    proxy_seeds: of the proxy trainings whose warm starts are made beforehand; none where nothing is searched.
    space: that is searched, if any.
    """
    for name in (*config.search.enqueue, *config.full.baselines):
        if name != NO_DISTILLATION:
            load_distiller(name)
    datasets = load_datasets(config.data, cache_dir)
    for report in datasets.check():
        for warning in report.warnings():
            observer.say(f"{report.split}: {warning}")
    try_detectors(config, datasets.classes, datasets.train.image_size_px)
    with RunDirectory.start(directory, config, resume=resume) as run_directory:
        study = open_study(
            storage_url or run_directory.study_path,
            config.name,
            sampler=make_sampler(config.search, space),
            pruner=make_pruner(config.search),
        )
        ledger = Ledger(study, run_directory.owner)
        ledger.claim(config_digest(config))
        ledger.claim_contents(contents_of(config, datasets))
        with ledger.clock():
            preparation = prepare(
                config,
                datasets,
                cache_dir,
                seeds=proxy_seeds,
                device=own_resources(0, config.runtime.gpus_per_worker).device,
                on_progress=observer.stage,
            )
            factory = TrainingEvaluatorFactory(config, cache_dir, run_directory.path, datasets)
            yield Run(
                config, run_directory, study, ledger, datasets, preparation, factory, observer, cache_dir, storage_url
            )


@dataclass
class Run:
    """Everything that the phases of one run share."""

    config: ResolvedConfig
    directory: RunDirectory
    study: optuna.Study
    ledger: Ledger
    datasets: Datasets
    preparation: Preparation
    factory: TrainingEvaluatorFactory
    observer: Observer
    cache_dir: Path
    storage_url: str | None = None

    # ---------------------------------------------------------------------------------------- search

    def search(self, space: Space, first: FirstTrials) -> Phases[Reward]:
        """Run the search until its budget is spent; return the reward with its scales."""
        proxy = self.config.proxy
        self.observer.say(f"{count_specs(space):,} distinct distillers (strengths aside)")
        outcomes = yield from self.run_jobs("reference", [reference_job(SEARCH_SEED)])
        none = outcomes[reference_job(SEARCH_SEED).id]
        if none.status != "finished":
            raise AutoKDError(
                f"The student cannot be trained even without distillation ({none.cause}: {none.message}). "
                "Lower the learning rate, or look at the data."
            )
        reward = Reward(proxy.reward, reference_curve(none), self.ledger.scales())
        plan = SearchPlan(self.config.search.trials, proxy.calibration_trials, reward.num_epochs, SEARCH_SEED)
        untold = self.ledger.reclaim()
        driver = SearchDriver(
            self.study, space, reward, plan, self.observer, self.directory.owner, self.make_promotion()
        )
        for record in untold:
            driver.adopt(record)
        if not self.study.get_trials(deepcopy=False):
            for name, decisions in first.decisions.items():
                self.study.enqueue_trial(dict(decisions), user_attrs={"preset": name})
        yield driver
        return driver.finish()

    def make_promotion(self) -> Promotion | None:
        """Who lets a good student teach; None where the file does not ask for it."""
        after = self.config.search.promote_after
        return None if after is None else Promotion(self.study, after, self.directory.path, self.observer)

    def best_finalist(self, reward: Reward) -> Phases[Finalist | None]:
        """Let the best few race over seeds; return the winner, or None if no trial finished."""
        search = self.config.search
        trials = best_trials(self.study)
        if not trials:
            self.observer.say("no trial of the search finished: there is no distiller to retrain.")
            return None
        race = FinalistRace(trials, search.finalists, reward, SEARCH_SEED)
        for seed in search.finalist_seeds:
            if race.is_over:
                break
            if seed != SEARCH_SEED:  # known: it is that of the trials themselves
                outcomes = yield from self.run_jobs(f"finalists, seed {seed}", race.jobs(seed))
                self.observer.say(round_words(race.finish_round(seed, outcomes)))
        if search.full_finalists > 1:
            seed = full_finalist_seed(self.config.full.seeds)
            outcomes = yield from self.run_jobs("finalists in full", race.full_jobs(search.full_finalists, seed))
            race.finish_in_full(seed, outcomes)
        result = race.result()
        self.ledger.save_race(result)
        self.observer.say(winner_words(result))
        return race.winner()

    # --------------------------------------------------------------------------------------- retrain

    def retrain(self, entries: Sequence[Entry]) -> Phases[Trained]:
        """Train every entry in full with every seed."""
        seeds = self.config.full.seeds
        outcomes = yield from self.run_jobs("full trainings", [job for e in entries for job in e.jobs(seeds)])
        return entries, outcomes

    def run_jobs(self, name: str, jobs: Iterable[Job]) -> Phases[dict[str, Outcome]]:
        """Run a list of jobs; what the database knows already is not run again."""
        batch = BatchDriver(name, jobs, self.ledger.outcomes(), self.ledger.save_outcome, self.observer)
        if batch.is_missing_any:
            yield batch
        return batch.outcomes

    def execute(self, phases: Phases[Trained]) -> Trained:
        """Lead a runtime through all phases; where the database knows everything, none is started."""
        driver = PhasedDriver(phases)
        timeouts = {"proxy": self.config.proxy.timeout_s, "full": self.config.full.timeout_s}
        limits = {
            name: None if s is None else HARD_LIMIT_FACTOR * s + HARD_LIMIT_GRACE_S for name, s in timeouts.items()
        }
        try:
            if not driver.is_done:
                with make_runtime(self.config.runtime) as runtime:
                    runtime.run(driver, self.factory, job_timeouts_s=limits)
        except BaseException:
            self.ledger.interrupt()
            raise
        assert driver.result is not None, "the runtime ends when the driver has no more jobs"
        return driver.result
