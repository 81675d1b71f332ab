"""Preparation of a run: by the driver where it sits beside the cards, by the workers of a cluster otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from autokd.config import ResolvedConfig, RuntimeConfig
from autokd.data import Datasets
from autokd.errors import AutoKDError
from autokd.jobs import Outcome, RecipeName
from autokd.runtime import Runtime, make_runtime
from autokd.runtime.resources import has_local_gpus, own_resources
from autokd.storage import StudyFacts
from autokd.study.observer import Observer
from autokd.study.phased_driver import BatchDriver, PhasedDriver, Phases
from autokd.training import Preparation, prepare
from autokd.training.cost.places import cheapest, place_costs, with_places
from autokd.training.preparation_jobs import (
    Places,
    PreparationFactory,
    PreparationTask,
    last_tasks,
    places_from,
    preparation_from,
    teacher_tasks,
)


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to train.

    Args:
        config: configuration with the places of the teachers' outputs.
        preparation: scores of the teachers.
    """

    config: ResolvedConfig
    preparation: Preparation


def prepare_run(
    config: ResolvedConfig,
    datasets: Datasets,
    cache_dir: Path,
    seeds: Sequence[int],
    facts: StudyFacts,
    observer: Observer,
) -> Prepared:
    """Decide where outputs of teachers come from, and make what trainings need and the cache lacks.

    A resumed run keeps its places: the numbers of a live teacher are not rounded as stored ones are.

    Args:
        config: the run's configuration.
        datasets: its data sets.
        cache_dir: folder of the cache.
        seeds: seeds of the proxy trainings; empty if nothing is searched.
        facts: facts of the run, which keep the places.
        observer: receiver of progress.

    Raises:
        AutoKDError: if something is wrong with data, detectors or disk.
    """
    known = facts.teacher_outputs
    if known is not None:
        config = with_places(config, known)
    if prepares_on_workers(config.runtime):
        with make_runtime(config.runtime.model_copy(update={"full_processes": 1})) as runtime:
            prepared = prepare_on_workers(config, datasets, cache_dir, seeds, runtime, observer)
    else:
        prepared = _prepare_here(config, datasets, cache_dir, seeds, observer)
    if known is None:
        facts.set_teacher_outputs(
            {"proxy": prepared.config.proxy.teacher_outputs, "full": prepared.config.full.teacher_outputs}
        )
    return prepared


def prepares_on_workers(runtime: RuntimeConfig) -> bool:
    """Return whether the workers of a runtime prepare: those of a cluster, and those that share GPUs here.

    The driver then touches no GPU, whose memory it would hold all search long. On a machine without GPUs the driver has
    all cores while no worker trains.

    Args:
        runtime: section of the configuration.
    """
    return runtime.workers > 0 and (runtime.ray_address is not None or has_local_gpus(runtime.gpus_per_worker))


def prepare_on_workers(
    config: ResolvedConfig,
    datasets: Datasets,
    cache_dir: Path,
    seeds: Sequence[int],
    runtime: Runtime,
    observer: Observer,
) -> Prepared:
    """Prepare by jobs of a runtime: a check, the teachers, then their outputs and the warm starts.

    Args:
        config: the run's configuration.
        datasets: its data sets.
        cache_dir: folder of the cache, on each machine.
        seeds: seeds of the proxy trainings.
        runtime: runtime of the workers, entered.
        observer: receiver of progress.

    Raises:
        AutoKDError: if a job fails; with its message.
    """
    driver = PhasedDriver(_phases(config, seeds, runtime.num_workers, observer))
    runtime.run(driver, PreparationFactory(config, cache_dir, tuple(seeds), datasets))
    assert driver.result is not None, "the runtime ends when the driver has no more jobs"
    return driver.result


def _phases(config: ResolvedConfig, seeds: Sequence[int], workers: int, observer: Observer) -> Phases[Prepared]:
    [checked] = yield from _run("check", [PreparationTask("check")], observer)
    places = places_from(checked.metrics)
    _say_places(places, observer)
    teachers = yield from _run("teachers", teacher_tasks(config), observer)
    tasks = last_tasks(config, seeds, places, workers)
    found = yield from _run("teachers' outputs and warm starts", tasks, observer)
    outputs = [outcome for task, outcome in zip(tasks, found, strict=True) if task.kind == "outputs"]
    return Prepared(with_places(config, places), preparation_from(teachers, outputs))


def _run(name: str, tasks: Iterable[PreparationTask], observer: Observer) -> Phases[list[Outcome]]:
    jobs = [task.job() for task in tasks]
    driver = BatchDriver(name, jobs, {}, _require_finished, observer)
    if driver.is_missing_any:
        yield driver
    return [driver.outcomes[job.id] for job in jobs]


def _require_finished(outcome: Outcome) -> None:
    if outcome.status != "finished":
        kind = outcome.job_id.removeprefix("prepare ")
        raise AutoKDError(f"The preparation {kind} failed on {outcome.worker} ({outcome.cause}): {outcome.message}")


def _prepare_here(
    config: ResolvedConfig, datasets: Datasets, cache_dir: Path, seeds: Sequence[int], observer: Observer
) -> Prepared:
    device = own_resources(0, config.runtime.gpus_per_worker).device
    costs = place_costs(config, datasets, cache_dir, torch.device(device), searches=bool(seeds))
    places = {recipe: cheapest(of_recipe) for recipe, of_recipe in costs.items()}
    _say_places(places, observer)
    config = with_places(config, places)
    preparation = prepare(config, datasets, cache_dir, seeds=tuple(seeds), device=device, on_progress=observer.stage)
    return Prepared(config, preparation)


def _say_places(places: Places, observer: Observer) -> None:
    names: dict[RecipeName, str] = {"full": "full trainings", "proxy": "proxies"}
    for recipe, place in places.items():
        if place != "disk":
            observer.say(f"teachers' outputs of {names[recipe]}: {place}, the cheapest by the measured costs")
