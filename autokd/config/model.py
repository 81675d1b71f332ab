"""A whole space file as a frozen, validated value. Defaults are chosen so that five lines work."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator, model_validator

from autokd.config.data import Data
from autokd.config.detectors import Detector, TeacherFactors, Teachers, with_framework
from autokd.config.proxy import ProxyRecipe
from autokd.config.recipes import FullRecipe
from autokd.config.section import DistillerName, Section, Seeds
from autokd.config.space_section import SpaceSection, default_space


class SearchConfig(Section):
    """Which spec to try next, how often, and what is known before."""

    sampler: Literal["mcts", "tpe", "nsga2", "gp", "random"] = "mcts"
    """Who suggests the next spec."""
    prior: Literal["published", "none"] = "published"
    """What `mcts` thinks of options before the first trial: how often published distillers take them, or nothing."""
    trials: PositiveInt = 40
    """Specs to evaluate; duplicates are answered from the database and do not count."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the sampler: equal seeds and equal histories give equal suggestions."""
    enqueue: tuple[DistillerName, ...] = ("fitnet", "pkd", "cwd")
    """Presets or files of distillers tried first, at ``enqueue_strength``; what they score counts as any trial does."""
    enqueue_strength: PositiveFloat = 40.0
    """Gradient ratio at which those presets are tried; a preset's terms share it."""
    pruner: Literal["none", "median", "percentile", "halving", "hyperband"] = "none"
    """Which of Optuna's pruners stops trials early, by their reward after each epoch (docs/judging.md)."""
    finalists: PositiveInt = 3
    """The best few, which race: they are tried again by the proxy, with one seed more a round."""
    finalist_seeds: Seeds = (1, 2)
    """One a round; who can no longer win falls before the next, and the race ends when one is left."""
    full_finalists: PositiveInt = 1
    """The best so many of the race are also trained in full once, and the best val AP wins; 1: the race decides."""
    promote_after: PositiveInt | None = None
    """After so many finished trials the best student so far joins the teachers of all that follows; null: never."""

    @field_validator("full_finalists")
    @classmethod
    def _are_finalists(cls, count: int, info: ValidationInfo) -> int:
        finalists = info.data.get("finalists")
        if finalists is not None and count > finalists:
            raise ValueError(f"found {count} of {finalists} finalists. Take at most as many, or raise 'finalists'")
        return count


class RuntimeConfig(Section):
    """Where the work is done."""

    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that train; 0: in the driver's own process, without Ray."""
    ray_address: str | None = None
    """None: a local Ray; else a cluster's address, or "auto"."""
    threads_per_worker: Annotated[int, Field(ge=0)] = 0
    """0: the cores divided among the workers."""
    gpus_per_worker: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """Fractions share a card; auto: the cards divided among the workers, none where there is none."""
    max_worker_losses: Annotated[int, Field(ge=0)] = 1
    """How often a trial whose worker died is tried again."""
    full_processes: PositiveInt = 1
    """Processes (and cards) that share the batches of each full training; above 1: Ray Train, torchvision only."""


class RunConfig(Section):
    """A whole space file."""

    name: str = ""
    data: Data
    teacher: Teachers
    teacher_factors: TeacherFactors = "equal"
    student: Detector
    space: SpaceSection = Field(default_factory=default_space)
    """Tree of choices; left out: the default space."""
    search: SearchConfig = SearchConfig()
    proxy: ProxyRecipe = ProxyRecipe()
    full: FullRecipe = FullRecipe()
    runtime: RuntimeConfig = RuntimeConfig()

    @property
    def teachers(self) -> tuple[Detector, ...]:
        """Every teacher, in the file's order; as a rule there is one."""
        return self.teacher if isinstance(self.teacher, tuple) else (self.teacher,)

    @field_validator("teacher_factors")
    @classmethod
    def _fits_the_teachers(cls, factors: TeacherFactors, info: ValidationInfo) -> TeacherFactors:
        teacher = info.data.get("teacher")
        if teacher is None:  # wrong itself, and told so
            return factors
        if not isinstance(teacher, tuple):
            if isinstance(factors, tuple):
                raise ValueError("there is one teacher, which shares with nobody. Leave it out, or list more teachers")
        elif isinstance(factors, tuple) and len(factors) != len(teacher):
            raise ValueError(f"found {len(factors)} numbers for {len(teacher)} teachers. Give one a teacher")
        return factors

    @field_validator("proxy")
    @classmethod
    def _sees_images_of_at_most_the_size(cls, proxy: ProxyRecipe, info: ValidationInfo) -> ProxyRecipe:
        data, size = info.data.get("data"), proxy.image_size_px
        if data is not None and size is not None and any(ours > full for ours, full in zip(size, data.image_size_px)):
            raise ValueError(
                f"image_size_px is {list(size)}, larger than data.image_size_px, {list(data.image_size_px)}. A proxy's "
                "images are of that height and width at most; null takes just these"
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
        return full

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
        if full.optimiser == "dot":
            raise ValueError("full_processes above 1 and 'full.optimiser: dot' do not go together. Choose one of them")
        if full.batch_size < runtime.full_processes:
            raise ValueError(f"full.batch_size is {full.batch_size}, fewer images than full_processes. Give each one")
        return runtime

    @model_validator(mode="before")
    @classmethod
    def _name_the_ordinary(cls, data: Any) -> Any:
        """Write out the ordinary format and framework, by which pydantic chooses a section's class."""
        if not isinstance(data, dict):
            return data
        if isinstance(data.get("data"), dict) and "format" not in data["data"]:
            data = data | {"data": {"format": "coco"} | data["data"]}
        teacher = data.get("teacher")
        if isinstance(teacher, (list, tuple)):
            teachers = [with_framework(section) for section in teacher]
            data = data | {"teacher": teachers[0] if len(teachers) == 1 else teachers}
        for side in ("teacher", "student"):
            if side in data:
                data = data | {side: with_framework(data[side])}
        return data
