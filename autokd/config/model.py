"""A config file as a frozen, validated value. Defaults are chosen so that a file of five lines works."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from autokd.config.cache import CacheConfig
from autokd.config.data import Data
from autokd.config.detectors import Detector, Teachers, TeacherWeights, with_framework
from autokd.config.layouts import with_layout
from autokd.config.proxy import ProxyRecipe
from autokd.config.recipes import FullRecipe
from autokd.config.section import PORTFOLIO, QueuedName, Section, Seeds
from autokd.config.space_section import SpaceSection, default_space
from autokd.errors import name_list
from autokd.files import name_problem

FOLLOW_FROM_BUDGET = frozenset(
    {"trials", "enqueue_gradient_ratio", "pruner", "finalists", "finalist_seeds", "full_finalists", "promote_after"}
)
"""Keys of ``search`` that a budget makes superfluous."""
DEFAULT_BUDGET = 10.0
"""Full trainings that a search costs if the file says nothing about it."""


class SearchConfig(Section):
    """The search: its sampler, its budget, the selection of finalists."""

    written_if_set: ClassVar[frozenset[str]] = frozenset({"budget", "portfolio_without", "learn_from"})

    budget: Annotated[float, Field(ge=2, le=10_000)] | None = None
    """Cost of the search in full trainings, split between rungs and a race of full trainings (docs/judging.md); trials,
    their length and finalists follow from it. null: `trials` proxies and `finalists`, as these keys say. Left out: 10
    if the file gives no section `proxy` and none of the keys that follow from a budget, else null."""
    sampler: Literal["mcts", "tpe", "nsga2", "gp", "random"] = "mcts"
    """Sampler that suggests the next spec: AutoKD's tree search, or one of Optuna's."""
    prior: Literal["portfolio", "published", "none"] = "portfolio"
    """Prior of `mcts` over options: what they were worth over recorded pairs (in a space of parts), how often published
    distillers use them (which `portfolio` means in other spaces), or none; it fades with an option's trials."""
    trials: PositiveInt = 40
    """Number of specs to evaluate. Duplicates take their outcome from the database and do not count."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the sampler; equal seeds and equal histories of trials give equal suggestions."""
    enqueue: tuple[QueuedName, ...] = (PORTFOLIO,)
    """Distillers that are tried first, presets or YAML files; they count as trials. `portfolio`: those that were best
    over recorded pairs (in a space without `parts`: fitnet, pkd, cwd)."""
    portfolio_without: tuple[str, ...] = ()
    """Recorded pairs that the portfolio leaves out, such as one on which this search is to be judged."""
    learn_from: tuple[str, ...] = ()
    """Earlier runs, as run directories or addresses of databases, whose distillers join the portfolio and the prior."""
    enqueue_gradient_ratio: PositiveFloat = 40.0
    """Gradient ratio of each enqueued distiller, shared by its terms."""
    pruner: Literal["none", "median", "percentile", "halving", "hyperband"] = "none"
    """Pruner of Optuna's that stops trials early by their reward after each epoch (docs/judging.md); none: every trial
    runs to its end."""
    finalists: PositiveInt = 3
    """Number of best trials that become finalists, whose proxies are repeated with another seed in each round of a
    race (docs/judging.md)."""
    finalist_seeds: Seeds = (1, 2)
    """Seeds of the rounds, one a round. Finalists that can no longer win leave the race after each; it ends when one is
    left."""
    full_finalists: PositiveInt = 1
    """Number of top finalists also trained in full once; the best val AP wins. 1: the winner of the race is kept."""
    promote_after: PositiveInt | None = None
    """Number of finished trials after which the best student so far becomes a further teacher of all later trainings;
    null: never."""

    @field_validator("full_finalists")
    @classmethod
    def _are_finalists(cls, count: int, info: ValidationInfo) -> int:
        finalists = info.data.get("finalists")
        if finalists is not None and count > finalists:
            raise ValueError(f"found {count} of {finalists} finalists. Give at most {finalists}, or raise 'finalists'")
        return count

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        given = sorted(self.model_fields_set & FOLLOW_FROM_BUDGET)
        if self.budget is not None and given:
            raise ValueError(
                f"found budget {self.budget:g} beside {name_list(given)}, which follow from a budget. Leave out the "
                "one or the other"
            )
        return self

    def unwritten(self) -> set[str]:
        """As for every section; with a budget, the keys that follow from it are left out too."""
        return super().unwritten() | (FOLLOW_FROM_BUDGET if self.budget is not None else set())

    @property
    def named_distillers(self) -> tuple[str, ...]:
        """Presets and files of ``enqueue``."""
        return tuple(name for name in self.enqueue if name != PORTFOLIO)


class RuntimeConfig(Section):
    """The processes that train."""

    workers: Annotated[int, Field(ge=0)] = 2
    """Number of Ray workers that train; 0: the driver's own process trains, without Ray."""
    ray_address: str | None = None
    """Address of a Ray cluster, or "auto"; null: a local Ray is started."""
    threads_per_worker: Annotated[int, Field(ge=0)] = 0
    """CPU threads of each worker; 0: the cores divided by the number of workers."""
    gpus_per_worker: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """GPUs of each worker; workers with fractions share a GPU. auto: the GPUs divided by the number of workers, 0 if
    there is none."""
    decode_threads: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Threads of each worker that decode and augment images ahead of the training; 0: the training's own thread does.
    auto: beside a GPU the worker's CPU threads, at most 8; on a CPU 0, since they would take its time from the
    training."""
    decode_on: Literal["cpu", "gpu"] = "cpu"
    """Decoder of images that are not kept in memory. cpu: the host's. gpu: torchvision's of JPEG files on the card, if
    it has one; pixels then differ by rounding."""
    max_worker_losses: Annotated[int, Field(ge=0)] = 1
    """Number of times in a row that a training is repeated after its worker died without another epoch; then it fails
    with the cause worker_lost. Workers that were asked to end (SIGTERM) do not count."""
    checkpoint_every_s: NonNegativeFloat | None = 300.0
    """Most seconds between two checkpoints within a training, from which an interrupted one goes on. They are written
    earlier where that takes less than 1% of the time, later where it took more than 5%. 0: after every step; null:
    none."""
    full_processes: PositiveInt = 1
    """Number of processes, each with a GPU if there are any, that share every batch of a full training; above 1: by Ray
    Train, for torchvision students only."""


_HAVE_DEFAULTS = ("search", "proxy", "full", "runtime")


class RunConfig(Section):
    """A config file as it was written. ``autokd.detectors.resolve`` fills in what its recipes leave open."""

    written_if_set: ClassVar[frozenset[str]] = frozenset({"cache"})

    name: str = ""
    """Name of the study in its database and of the folder of its runs; left out: the name of the file."""
    data: Data
    """Data set."""
    teacher: Teachers
    """Detector that teaches, or a list of several."""
    teacher_weights: TeacherWeights = "equal"
    """Weights of several teachers' losses: a rule that computes them, or a number per teacher."""
    student: Detector
    """Detector that learns."""
    space: SpaceSection = Field(default_factory=default_space)
    """Tree of choices; left out: sums of all published parts and free terms."""
    search: SearchConfig = SearchConfig()
    """Sampler, budget and finalists."""
    proxy: ProxyRecipe = ProxyRecipe()
    """Recipe of the short trainings by which candidates are compared."""
    full: FullRecipe = FullRecipe()
    """Recipe of the full trainings of the winner and the baselines."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Processes that train."""
    cache: CacheConfig = CacheConfig()
    """Teachers' outputs on disk."""

    @property
    def teachers(self) -> tuple[Detector, ...]:
        """Every teacher, in the file's order."""
        return self.teacher if isinstance(self.teacher, tuple) else (self.teacher,)

    @field_validator("name")
    @classmethod
    def _is_one_component_of_a_path(cls, name: str) -> str:
        problem = name_problem(name) if name else None
        if problem is not None:
            raise ValueError(f"{name[:80]!r} {problem}. The run's folder and study bear it: write one plain word")
        return name

    @field_validator("teacher_weights")
    @classmethod
    def _fits_the_teachers(cls, factors: TeacherWeights, info: ValidationInfo) -> TeacherWeights:
        teacher = info.data.get("teacher")
        if teacher is None:  # invalid, which is an error of its own
            return factors
        if not isinstance(teacher, tuple):
            if isinstance(factors, tuple):
                raise ValueError("found a list, but there is one teacher. Remove it, or add teachers")
        elif isinstance(factors, tuple) and len(factors) != len(teacher):
            raise ValueError(f"found {len(factors)} numbers for {len(teacher)} teachers. Give one number per teacher")
        return factors

    @field_validator("student")
    @classmethod
    def _finds_objects(cls, student: Detector) -> Detector:
        if not student.finds_objects:
            raise ValueError(
                f"found a {student.framework}, which finds no objects and teaches alone. Give a detector, such as "
                "torchvision's with 'backbone: {name: ...}'"
            )
        return student

    @field_validator("proxy")
    @classmethod
    def _sees_images_of_at_most_the_size(cls, proxy: ProxyRecipe, info: ValidationInfo) -> ProxyRecipe:
        data, size = info.data.get("data"), proxy.image_size_px
        if data is not None and size is not None and any(ours > full for ours, full in zip(size, data.image_size_px)):
            raise ValueError(
                f"image_size_px is {list(size)}, larger than data.image_size_px, {list(data.image_size_px)}. Give a "
                "height and width of at most that; null takes just these"
            )
        return proxy

    @field_validator("proxy")
    @classmethod
    def _gives_the_pruner_what_it_needs(cls, proxy: ProxyRecipe, info: ValidationInfo) -> ProxyRecipe:
        search = info.data.get("search")
        if search is not None and search.pruner != "none" and proxy.measure == "last_epoch":
            raise ValueError(
                f"measure is last_epoch, but search.pruner is {search.pruner}, which compares trials by their rewards "
                "after earlier epochs. Set 'measure: every_epoch', or 'search: {pruner: none}'"
            )
        return proxy

    @field_validator("full")
    @classmethod
    def _asks_a_config_that_tells(cls, full: FullRecipe, info: ValidationInfo) -> FullRecipe:
        student = info.data.get("student")
        if full.from_student_config and student is not None and not student.has_recipe:
            raise ValueError(
                f"from_student_config is true, but a section of framework {student.framework} names no file that says "
                "how it trains. Leave it out"
            )
        if full.pipeline == "student_config" and student is not None and not student.has_recipe:
            raise ValueError(
                f"pipeline is student_config, but a section of framework {student.framework} names no file that has a "
                "train pipeline. Set 'pipeline: views'"
            )
        return full

    @field_validator("proxy", "full")
    @classmethod
    def _can_be_cut_into_micro_batches(
        cls, recipe: ProxyRecipe | FullRecipe, info: ValidationInfo
    ) -> ProxyRecipe | FullRecipe:
        student = info.data.get("student")
        if recipe.micro_batch_size is not None and student is not None and not student.can_share_trainings:
            raise ValueError(
                f"micro_batch_size is {recipe.micro_batch_size}, but it is not known by what numbers students of "
                f"framework {student.framework} divide their losses, so that those of micro-batches cannot be joined. "
                "Remove it, and lower batch_size"
            )
        return recipe

    @field_validator("proxy", "full")
    @classmethod
    def _takes_unlabeled_images_whole(
        cls, recipe: ProxyRecipe | FullRecipe, info: ValidationInfo
    ) -> ProxyRecipe | FullRecipe:
        if recipe.micro_batch_size is not None and getattr(info.data.get("data"), "unlabeled", None) is not None:
            raise ValueError(
                f"micro_batch_size is {recipe.micro_batch_size}, but the images of data.unlabeled are not cut into "
                "micro-batches. Remove one of the two"
            )
        return recipe

    @field_validator("runtime")
    @classmethod
    def _can_share_full_trainings(cls, runtime: RuntimeConfig, info: ValidationInfo) -> RuntimeConfig:
        student, full = info.data.get("student"), info.data.get("full")
        if runtime.full_processes == 1 or student is None or full is None:
            return runtime
        if not student.can_share_trainings:
            raise ValueError(
                f"full_processes is {runtime.full_processes}, but trainings of students of framework "
                f"{student.framework} cannot be shared. {student.sharing_remedy}"
            )
        if full.optimizer in ("dot", "trajectory"):
            raise ValueError(
                f"full_processes above 1 and 'full.optimizer: {full.optimizer}' do not go together. Choose one of them"
            )
        if full.teacher_outputs in ("live", "memory") or full.num_views == "endless":
            raise ValueError(
                f"full_processes is {runtime.full_processes}: each reads the teacher's outputs of all images of a "
                "batch, and has the pixels of its own alone. Set 'full: {teacher_outputs: disk}' and a number of "
                "views, or full_processes to 1"
            )
        if getattr(info.data.get("data"), "unlabeled", None) is not None:
            raise ValueError(
                f"full_processes is {runtime.full_processes}, but the images of data.unlabeled are not shared between "
                "processes. Remove one of the two"
            )
        if full.micro_batch_size is not None:
            raise ValueError(
                "full_processes above 1 share each batch already. Remove full.micro_batch_size, or set full_processes "
                "to 1"
            )
        if full.batch_size < runtime.full_processes:
            raise ValueError(f"full.batch_size is {full.batch_size}, fewer images than full_processes. Give each one")
        return runtime

    @model_validator(mode="before")
    @classmethod
    def _name_the_ordinary(cls, data: Any) -> Any:
        """Write out the layout of the data and the ordinary framework; pydantic chooses classes by them."""
        if not isinstance(data, dict):
            return data
        # A section whose every line is commented out is one that is left out.
        data = {key: value for key, value in data.items() if value is not None or key not in _HAVE_DEFAULTS}
        if isinstance(data.get("data"), dict):
            data = data | {"data": with_layout(data["data"])}
        teacher = data.get("teacher")
        if isinstance(teacher, (list, tuple)):
            teachers = [with_framework(section) for section in teacher]
            data = data | {"teacher": teachers[0] if len(teachers) == 1 else teachers}
        for side in ("teacher", "student"):
            if side in data:
                data = data | {side: with_framework(data[side])}
        return data
