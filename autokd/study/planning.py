"""Plans a run: measures its parts for half a minute, and forecasts disk, memory, hours and money of each phase."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from autokd.config import ResolvedConfig, RunConfig
from autokd.data import Datasets, content_of, load_datasets
from autokd.detectors import check_trainable, detector_family_of, first_trials, pair_of, resolve, try_detectors
from autokd.files import make_private_folder
from autokd.jobs import NO_DISTILLATION, WorkerResources
from autokd.runtime.resources import divide, num_local_cores, own_resources
from autokd.space import DataContent, spec_of
from autokd.spec import DistillerSpec
from autokd.study.bill import Bill, Phase
from autokd.study.budget import split_budget
from autokd.study.distillers import baseline_distillers
from autokd.study.full_disk import require_writable
from autokd.study.planned_places import with_cheapest_places
from autokd.training.assets.teacher_outputs import CacheNeed, OutputNeeds
from autokd.training.cost.measure import measure_costs
from autokd.training.cost.measured import MeasuredCosts
from autokd.training.cost.speed import Clock, StepCost
from autokd.training.length import Length, recipe_length, training_length
from autokd.training.teacher.cache_bytes import free_bytes

MEASURED_DISTILLERS = 3
"""Enqueued distillers that are measured at most; as many samples of the space are."""
SAMPLES = 2
"""Random distillers of the space that are measured."""


def make_plan(
    config: RunConfig,
    *,
    cache_dir: Path,
    price: float | None = None,
    gpus: float | None = None,
    budget_s: float = 30.0,
    clock: Clock = time.monotonic,
    datasets: Datasets | None = None,
) -> Bill:
    """Measure what a search's parts cost here, and forecast the whole.

    Nothing is written but generated images and what is kept of the data set's annotations.

    Args:
        config: configuration as ``autokd.config.load_config`` returns it.
        cache_dir: folder of trained teachers and cached features; what it holds is not counted again.
        price: price of an hour of one card, or of the machine if it has none.
        gpus: cards that the run will hold, of the kind that is measured; None: those of this machine.
        budget_s: seconds of measuring, roughly.
        clock: clock of the measurement.
        datasets: the data sets, if they are read already.

    Returns:
        The bill.

    Raises:
        AutoKDError: if the configuration, its data or its detectors are wrong, as ``run_search`` would find.
    """
    config = resolve(config)
    require_writable(cache_dir)
    make_private_folder(cache_dir)
    content = content_of(config.data, cache_dir)
    check_trainable(config, content=content)
    datasets = datasets or load_datasets(config.data, cache_dir, check=False)
    try_detectors(config, datasets.classes, datasets.train.image_size_px)
    resources, cards = _resources(config, gpus)
    previous = torch.get_num_threads()
    if resources.num_threads:
        torch.set_num_threads(resources.num_threads)
    try:
        config, places = with_cheapest_places(config, datasets, cache_dir, torch.device(resources.device))
        costs = measure_costs(
            config,
            datasets,
            cache_dir,
            measured_distillers(config, content),
            device=torch.device(resources.device),
            budget_s=budget_s,
            clock=clock,
        )
    finally:
        torch.set_num_threads(previous)
    train = datasets.train
    sizes = SplitSizes(train.num_images, datasets.val.num_images, _test_images(datasets), train.frames.num_turned)
    on_cpu = resources.device == "cpu"
    sharing = 1 / resources.gpu_fraction if resources.gpu_fraction else config.runtime.workers
    return Bill(
        name=config.name,
        phases=tuple(forecast(config, sizes, costs)),
        workers=max(1, config.runtime.workers),
        gpus=cards,
        price=price,
        free_bytes=free_bytes(cache_dir),
        present_bytes=costs.stored_bytes,
        worker_bytes=costs.memory_bytes,
        memory_bytes=costs.total_memory_bytes,
        workers_in_memory=max(1, round(sharing)),
        device=f"{costs.device_name}, {costs.threads} threads" if on_cpu else costs.device_name,
        measured_s=costs.seconds,
        notes=(*places, *_notes(config, datasets)),
    )


@dataclass(frozen=True)
class SplitSizes:
    """Images of each split; ``test``: 0 if results are reported on the validation images; ``turned``: training images
    that are shown in the turned frame."""

    train: int
    val: int
    test: int
    turned: int = 0


def measured_distillers(config: ResolvedConfig, content: DataContent) -> dict[str, DistillerSpec]:
    """Return the distillers whose steps are measured: those that are tried first, and samples of the space.

    Args:
        config: the run's configuration.
        content: classes and objects of its training images.
    """
    pair = pair_of(config, content)
    found: dict[str, DistillerSpec] = {}
    space, _ = pair.part_of(config.space)
    for name, decisions in list(first_trials(config, pair, space).decisions.items())[:MEASURED_DISTILLERS]:
        found[Path(name).stem] = spec_of(space, decisions)
    rng = np.random.default_rng(0)
    return found | {f"sample {number}": space.sample(rng) for number in range(1, SAMPLES + 1)}


def forecast(config: ResolvedConfig, sizes: SplitSizes, costs: MeasuredCosts) -> Iterator[Phase]:
    """Yield the phases of a search.

    Args:
        config: the run's configuration.
        sizes: images of the splits.
        costs: what its parts cost.
    """
    counting = _Counting(config, sizes, costs)
    yield from counting.preparation()
    yield from counting.search()
    yield from counting.full()


class _Counting:
    """Counts trainings, and multiplies."""

    def __init__(self, config: ResolvedConfig, sizes: SplitSizes, costs: MeasuredCosts) -> None:
        self._config = config
        self._sizes = sizes
        self._costs = costs
        self._needs = OutputNeeds(config, sizes.train, sizes.val, sizes.turned)

    def preparation(self) -> Iterator[Phase]:
        """Yield what one process does before the search."""
        config, sizes, costs = self._config, self._sizes, self._costs
        seconds, images = 0.0, 0
        for position, step in costs.teacher_steps.items():
            train = config.teachers[position].train
            assert train is not None, "only teachers with a recipe are trained"
            length = recipe_length(train, sizes.train, sizes.turned)
            seconds += step.seconds(length.steps)
            images += length.images
        measured = len(config.teachers) * (sizes.val + sizes.test)
        seconds += measured * costs.measure_image_s
        trains = len(costs.teacher_steps)
        turn = "teacher.checkpoint, or teacher.train.epochs" if trains else ""
        yield Phase("teacher", len(config.teachers), images + measured, seconds, seconds, turn=turn)
        yield self._outputs()
        searches_by_proxies = config.search.budget is None
        if (warm := config.proxy.warm_start) is not None and warm.epochs > 0 and searches_by_proxies:
            seeds, length = self._needs.num_seeds("proxy"), self._warm_length()
            one_s = self._costs.recipes["full"].none.seconds(length.steps) * self._area_factor()
            yield Phase("warm starts", seeds, seeds * length.images, seeds * one_s, seeds * one_s, turn="warm_start")

    def _outputs(self) -> Phase:
        views, seconds, disk = 0, 0.0, 0
        for need in self._needs.caches(searches=self._config.search.budget is None):
            copies = self._needs.num_seeds(need.recipe) if need.is_a_seeds else 1
            for position in range(len(self._config.teachers)):
                views += copies * need.num_views
                seconds += copies * need.num_views * self._image_s(position, need)
                disk += copies * need.num_views * self._bytes(position, need)
        proxy = self._config.proxy
        by_features = self._config.search.budget is None and proxy.subset_rule == "k_center" and proxy.subset < 1
        if by_features and not self._needs.holds_all("proxy"):
            more = self._sizes.train * self._needs.num_views("proxy")
            views, seconds = views + more, seconds + more * min(self._costs.teacher_image_s.values())
        return Phase("teachers' outputs", len(self._config.teachers), views, seconds, seconds, disk, self._turn())

    def _turn(self) -> str:
        """Return the setting that shrinks the caches most."""
        if self._needs.is_cached("full"):
            return "set full.num_views to endless, so that the teacher runs beside the full trainings"
        if self._needs.holds_all("proxy"):
            return "lower proxy.images or proxy.subset"
        return "lower proxy.images, proxy.subset or proxy.image_size_px"

    def _image_s(self, position: int, need: CacheNeed) -> float:
        found = self._costs.teacher_image_s
        return found.get((position, need.image_size_px), max(found.values()))

    def _bytes(self, position: int, need: CacheNeed) -> int:
        return self._costs.bytes_per_view[position, need.image_size_px, need.taps]

    def _warm_length(self) -> Length:
        full, warm = self._config.full, self._config.proxy.warm_start
        assert warm is not None, "the caller has looked"
        limits = [] if warm.images is None else [-(-warm.images // full.batch_size)]
        limits += [] if full.most_steps is None else [full.most_steps]
        sizes = self._sizes
        return training_length(sizes.train, full.batch_size, warm.epochs, min(limits, default=None), sizes.turned)

    def _area_factor(self) -> float:
        """Return the share of pixels that warm starts see, which are as small as the proxy's images."""
        size, full = self._config.proxy.image_size_px, self._config.data.image_size_px
        return 1.0 if size is None else size[0] * size[1] / (full[0] * full[1])

    def search(self) -> Iterator[Phase]:
        """Yield the proxies: the search's, and those of the race if no finalist is eliminated."""
        search, proxy = self._config.search, self._config.proxy
        if search.budget is not None:
            yield self._budget(search.budget)
            return
        length = recipe_length(proxy, self._sizes.train, self._sizes.turned)
        images, none_s = self._proxy(length, self._costs.recipes["proxy"].none)
        _, distilled_s = self._proxy(length, self._costs.recipes["proxy"].distilled)
        turn = "search.trials, proxy.images, proxy.val_subset, proxy.measure"
        # The reference comes first, alone; the others keep all workers busy.
        yield self._phase("proxies", 1 + search.trials, images, none_s + search.trials * distilled_s, turn, none_s)
        rounds = len(search.finalist_seeds) if search.finalists > 1 else 0
        finalists = min(search.finalists, search.trials)
        if rounds:
            seconds = rounds * (none_s + finalists * distilled_s)
            yield self._phase("finalists' race", rounds * (1 + finalists), images, seconds, "search.finalist_seeds")

    def _budget(self, budget: float) -> Phase:
        """Return the rungs and the race as one phase, without the measurements at the rungs."""
        config, costs = self._config, self._costs.recipes["full"]
        length = recipe_length(config.full, self._sizes.train, self._sizes.turned)
        split = split_budget(budget, length.epochs, len(config.full.seeds))
        one_s = costs.start_s + costs.distilled.seconds(length.steps) + self._sizes.val * costs.val_image_s
        trainings = 1 + split.candidates[0]
        images = math.ceil(split.cost * length.images / trainings)
        return self._phase("rungs and race", trainings, images, split.cost * one_s, "search.budget, full.epochs")

    def _proxy(self, length: Length, step: StepCost) -> tuple[int, float]:
        proxy, costs = self._config.proxy, self._costs.recipes["proxy"]
        measurements = length.epochs if proxy.measure == "every_epoch" else 1
        val_images = measurements * max(1, round(self._sizes.val * proxy.val_subset))
        seconds = costs.start_s + step.seconds(length.steps) + val_images * costs.val_image_s
        return length.images + val_images, seconds

    def full(self) -> Iterator[Phase]:
        """Yield the full trainings."""
        config, costs = self._config, self._costs.recipes["full"]
        length = recipe_length(config.full, self._sizes.train, self._sizes.turned)
        # ``patience`` measures after every epoch, and is counted as if no training stopped early.
        val_images = self._sizes.val * (1 if config.full.patience is None else 1 + length.epochs)
        measured_s = val_images * costs.val_image_s + self._sizes.test * costs.test_image_s
        images = length.images + val_images + self._sizes.test
        none_s = costs.start_s + costs.none.seconds(length.steps) + measured_s
        seeds = len(config.full.seeds)
        if config.search.full_finalists > 1:
            count = config.search.full_finalists
            one_s = self._distilled_s(None, length, measured_s)
            yield self._phase("finalists in full", count, images, count * one_s, "search.full_finalists")
        winner_s = seeds * self._distilled_s(None, length, measured_s)
        yield self._phase("winner in full", seeds, images, winner_s, "full.epochs, full.images or full.seeds")
        baselines = baseline_distillers(config.full, detector_family_of(config.student))
        each_s = [
            none_s if each.name == NO_DISTILLATION else self._distilled_s(each.name, length, measured_s)
            for each in baselines
        ]
        count = seeds * len(baselines)
        yield self._phase("baselines in full", count, images, seeds * sum(each_s), "full.baselines or full.seeds")

    def _distilled_s(self, name: str | None, length: Length, measured_s: float) -> float:
        costs = self._costs.recipes["full"]
        step = costs.by_distiller.get(name or "", costs.distilled)
        return costs.start_s + step.seconds(length.steps) + measured_s

    def _phase(self, name: str, jobs: int, images: int, seconds: float, turn: str, alone_s: float = 0.0) -> Phase:
        """Return a phase of equal jobs, which the workers share; ``alone_s`` of them are done by one worker alone."""
        workers = max(1, self._config.runtime.workers)
        shared = max(seconds - alone_s, 0.0)
        longest = seconds / jobs
        return Phase(name, jobs, jobs * images, seconds, alone_s + max(shared / workers, longest), turn=turn)


def _resources(config: ResolvedConfig, gpus: float | None) -> tuple[WorkerResources, float]:
    """Return a worker's resources on this machine, and the cards of the run."""
    runtime = config.runtime
    own = own_resources(runtime.threads_per_worker, runtime.gpus_per_worker)
    here = torch.cuda.device_count() if own.device == "cuda" else 0
    cards = float(here) if gpus is None else gpus
    if runtime.workers == 0:
        return own, min(cards, 1.0)
    share = divide(
        [num_local_cores()],
        cards if here else 0,
        workers=runtime.workers,
        threads_per_worker=runtime.threads_per_worker,
        gpus_per_worker=runtime.gpus_per_worker,
    )
    return (share if here else WorkerResources(share.num_threads, "cpu", 0.0)), cards if here else 0.0


def _test_images(datasets: Datasets) -> int:
    return 0 if datasets.test is datasets.val else datasets.test.num_images


def _notes(config: ResolvedConfig, datasets: Datasets) -> tuple[str, ...]:
    notes = ["The race is counted as if no finalist were eliminated; a pruner and duplicates are not counted."]
    if config.runtime.ray_address:
        notes.append("Times are those of this machine's device, taken for each worker of the cluster.")
    if datasets.frames_note:
        notes.append(f"{datasets.frames_note[0].upper()}{datasets.frames_note[1:]}.")
    return tuple(notes)
