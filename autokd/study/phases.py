"""The phases of a run: the search, the finalists' race, the full trainings.

Each is a generator of drivers, so that workers live through all of them; ``phased_driver`` says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from autokd.detectors import FirstTrials, detector_family_of
from autokd.errors import AutoKDError
from autokd.jobs import SEARCHED, Job, Outcome
from autokd.space import Space, count_specs
from autokd.study.context import SEARCH_SEED, FullResults, RunContext
from autokd.study.distillers import NamedDistiller, baseline_distillers
from autokd.study.driver import SearchDriver, SearchPlan
from autokd.study.finalists import Finalist, best_trials, full_finalist_seed, reference_job
from autokd.study.phased_driver import BatchDriver, Phases
from autokd.study.promotion import Promotion
from autokd.study.race import FinalistRace, round_words, winner_words
from autokd.study.resume import enqueue_once, recover_trials
from autokd.study.reward import Reward, reference_curve


def search_phases(run: RunContext, space: Space, first: FirstTrials) -> Phases[FullResults]:
    """Search, let the finalists race, train the winner in full beside the baselines.

    Args:
        run: the run.
        space: the part of the space that the pair of detectors supplies.
        first: trials to begin the search with.
    """
    reward = yield from search(run, space, first)
    winner = yield from race_finalists(run, reward)
    distillers = baseline_distillers(run.config.full, detector_family_of(run.config.student))
    if winner is not None:
        distillers.append(NamedDistiller(SEARCHED, winner.spec, winner.promoted))
    return (yield from train_in_full(run, distillers))


def search(run: RunContext, space: Space, first: FirstTrials) -> Phases[Reward]:
    """Evaluate trials until the budget is spent; return the reward with its scales.

    Args:
        run: the run.
        space: space to search.
        first: trials to begin with.

    Raises:
        AutoKDError: if the training without distillation fails, against which all trials are compared.
    """
    config = run.config
    run.observer.say(f"space: {count_specs(space):,} distinct distillers (a range of numbers counts as one)")
    outcomes = yield from run_jobs(run, "reference", [reference_job(SEARCH_SEED)])
    none = outcomes[reference_job(SEARCH_SEED).id]
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
    plan = SearchPlan(config.search.trials, config.proxy.calibration_trials, reward.num_epochs, SEARCH_SEED)
    # Before the driver is made, which counts the trials in flight.
    untold = recover_trials(run.study, run.directory.owner)
    driver = SearchDriver(run.study, space, reward, plan, run.observer, run.directory.owner, _promotion(run))
    for record in untold:
        driver.recover(record)
    enqueue_once(run.study, first.decisions)
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

    A training whose files are gone counts as not done.

    Args:
        run: the run.
        name: name of the stage, for the observer.
        jobs: jobs to run.
    """
    finished = run.facts.finished_outcomes().items()
    known = {job_id: outcome for job_id, outcome in finished if outcome.has_files(run.directory.path)}
    batch = BatchDriver(name, jobs, known, run.facts.add_job_outcome, run.observer)
    if batch.is_missing_any:
        yield batch
    return batch.outcomes


def _promotion(run: RunContext) -> Promotion | None:
    after = run.config.search.promote_after
    return None if after is None else Promotion(run.study, after, run.directory.path, run.observer)
