"""The phases of a run: the search, the finalists' race, the full trainings.

Each is a generator of drivers, so that workers live through all of them; ``phased_driver`` says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autokd.config import ResolvedConfig
from autokd.detectors import FirstTrials
from autokd.errors import AutoKDError
from autokd.jobs import Job, Outcome, RecipeName
from autokd.space import AnySpace, size_words
from autokd.study.context import SEARCH_SEED, FullResults, RunContext
from autokd.study.distillers import NamedDistiller
from autokd.study.driver import SearchDriver, SearchPlan
from autokd.study.finalists import Finalist, best_trials, full_finalist_seed, reference_job
from autokd.study.phased_driver import BatchDriver, Phases
from autokd.study.promotion import Promotion
from autokd.study.race import FinalistRace, round_words, winner_words
from autokd.study.resume import enqueue_once, recover_trials
from autokd.study.reward import Reward, reference_curve


@dataclass(frozen=True)
class Stage:
    """The trainings by which trials are judged.

    Args:
        reference: the training without distillation, against which they are compared.
        num_trials: number of trials.
        seed: training seed of all of them.
        recipe: their recipe.
        stop_after: epoch after which they are cut off; None: they run to their end.
    """

    reference: Job
    num_trials: int
    seed: int
    recipe: RecipeName
    stop_after: int | None


def proxy_stage(config: ResolvedConfig) -> Stage:
    """Return the trainings of a search by proxies.

    Args:
        config: the run's configuration.
    """
    return Stage(reference_job(SEARCH_SEED), config.search.trials, SEARCH_SEED, "proxy", None)


def search(run: RunContext, space: AnySpace, first: FirstTrials, stage: Stage) -> Phases[Reward]:
    """Evaluate trials until the budget is spent; return the reward with its scales.

    Args:
        run: the run.
        space: space to search.
        first: trials to begin with.
        stage: the trainings by which they are judged.

    Raises:
        AutoKDError: if the training without distillation fails, against which all trials are compared.
    """
    config = run.config
    run.observer.say(size_words(space))
    outcomes = yield from run_jobs(run, "reference", [stage.reference])
    none = outcomes[stage.reference.id]
    if none.cause == "timeout":
        raise AutoKDError(
            f"The proxy without distillation, against which all trials are compared, ran out of time: {none.message} "
            "Every trial would. The student trains; the limit is too short for a proxy of this length. Lower "
            "proxy.images, proxy.steps, proxy.subset or proxy.val_subset, or raise proxy.timeout_s or "
            "proxy.timeout_factor; `autokd plan` shows how long a proxy takes."
        )
    if none.status != "finished":
        raise AutoKDError(
            f"The student cannot be trained even without distillation ({none.cause}: {none.message}). "
            "Lower the learning rate, or check the data."
        )
    reward = Reward(config.proxy.reward, reference_curve(none), run.facts.reward_scales)
    plan = SearchPlan(
        stage.num_trials,
        config.proxy.calibration_trials,
        reward.num_epochs,
        stage.seed,
        stage.recipe,
        stage.stop_after,
    )
    # Before the driver is made, which counts the trials in flight.
    untold = recover_trials(run.study, run.directory.owner)
    driver = SearchDriver(run.study, space, reward, plan, run.observer, run.directory.owner, _promotion(run))
    for record in untold:
        driver.recover(record)
    enqueue_once(run.study, first.for_trials(stage.num_trials))
    yield driver
    return driver.finish()


def race_finalists(run: RunContext, reward: Reward) -> Phases[Finalist | None]:
    """Let the best trials race over seeds; return the winner, or None if no trial finished.

    Args:
        run: the run.
        reward: reward of the search, with its scales.
    """
    config = run.config.search
    trials = best_trials(run.study)
    if not trials:
        run.observer.say(
            "no trial of the search finished with an active term, so there is no distiller to train in full"
        )
        return None
    race = FinalistRace(trials, config.finalists, reward, SEARCH_SEED)
    for seed in config.finalist_seeds:
        if race.is_over:
            break
        if seed != SEARCH_SEED:  # the trials themselves had that seed
            outcomes = yield from run_jobs(run, f"finalists, seed {seed}", race.jobs(seed))
            run.observer.say(round_words(race.finish_round(seed, outcomes)))
    if config.full_finalists > 1:
        seed = full_finalist_seed(run.config.full.seeds)
        outcomes = yield from run_jobs(run, "finalists in full", race.full_jobs(config.full_finalists, seed))
        race.finish_in_full(seed, outcomes)
    result = race.result()
    run.facts.set_race(result)
    run.observer.say(winner_words(result))
    return race.winner()


def train_in_full(run: RunContext, distillers: Sequence[NamedDistiller]) -> Phases[FullResults]:
    """Train every distiller in full with every seed.

    Args:
        run: the run.
        distillers: rows of the results.
    """
    seeds = run.config.full.seeds
    outcomes = yield from run_jobs(run, "full trainings", [job for each in distillers for job in each.jobs(seeds)])
    return FullResults(distillers, outcomes)


def run_jobs(run: RunContext, name: str, jobs: Iterable[Job]) -> Phases[dict[str, Outcome]]:
    """Run a list of jobs, except those whose outcome the database holds; return all outcomes by job id.

    A training whose files are gone counts as not done, unless it was cut off: its metrics are all that counts, and its
    checkpoint goes once it is continued or not promoted.

    Args:
        run: the run.
        name: name of the stage, for the observer.
        jobs: jobs to run.
    """
    jobs = list(jobs)
    cut_off = {job.id for job in jobs if job.stop_after is not None}
    finished = run.facts.finished_outcomes().items()
    folder = run.directory.path
    known = {job_id: outcome for job_id, outcome in finished if job_id in cut_off or outcome.has_files(folder)}
    batch = BatchDriver(name, jobs, known, run.facts.add_job_outcome, run.observer)
    if batch.is_missing_any:
        yield batch
    return batch.outcomes


def _promotion(run: RunContext) -> Promotion | None:
    after = run.config.search.promote_after
    return None if after is None else Promotion(run.study, after, run.directory.path, run.observer)
