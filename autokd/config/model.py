"""The sections of a space file as frozen, validated values. Defaults are chosen so that five lines work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from autokd.errors import one_of
from autokd.presets import preset_names

NO_DISTILLATION = "none"
"""The baseline that every run has."""


def _known_distiller(name: str) -> str:
    """A preset's name, or the path of a distiller's YAML file."""
    if name in preset_names() or Path(name).suffix in (".yaml", ".yml"):
        return name
    raise ValueError(one_of(name, preset_names(), noun="preset") + " Or give a distiller's YAML file.")


def _known_baseline(name: str) -> str:
    if name == NO_DISTILLATION:
        return name
    if name not in preset_names() and Path(name).suffix not in (".yaml", ".yml"):
        raise ValueError(one_of(name, [NO_DISTILLATION, *preset_names()], noun="baseline"))
    return name


def _distinct_seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed stands twice; a repeated seed repeats the same training")
    return seeds


DistillerName = Annotated[str, AfterValidator(_known_distiller)]
BaselineName = Annotated[str, AfterValidator(_known_baseline)]
Seeds = Annotated[tuple[int, ...], AfterValidator(_distinct_seeds)]

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
SizePx = tuple[Annotated[int, Field(ge=32, le=4096)], Annotated[int, Field(ge=32, le=4096)]]


class Section(BaseModel):
    """Base of every section: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)


# ---------------------------------------------------------------------------------------------- data


class ShapesData(Section):
    """The generated set: textured shapes on textured ground, written once as COCO files."""

    format: Literal["shapes"]
    """Six kinds of shapes on textured ground, 8 to 64 px, partly hidden."""
    image_size_px: SizePx = (96, 96)
    """Height and width of the images."""
    num_train: PositiveInt = 600
    """Images to train on."""
    num_val: PositiveInt = 500
    """Images to choose on."""
    num_test: PositiveInt = 500
    """Images to report on."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Equal seeds give equal images, bit for bit."""


class CocoData(Section):
    """Any COCO-format detection set."""

    format: Literal["coco"] = "coco"
    """The ordinary format; may be left out."""
    root: Path
    """Folder of the set."""
    images: Path = Path("images")
    """Folder of the images, from ``root``."""
    train: Path
    """Annotation file of the training images, from ``root``."""
    val: Path
    """Annotation file on which everything is chosen."""
    test: Path | None = None
    """Annotation file on which the end is reported; null: on val, and the report says so."""
    image_size_px: SizePx = (480, 640)
    """Height and width that each image is scaled into, its aspect ratio kept, padded right and below."""


Data = Annotated[ShapesData | CocoData, Field(discriminator="format")]

# ------------------------------------------------------------------------------------------ detectors


class Backbone(Section):
    """A ResNet of basic blocks of a chosen depth and width, or an official one by name."""

    name: Literal["resnet18", "resnet34", "resnet50", "resnet101"] | None = None
    """An official torchvision ResNet; ``blocks`` and ``width`` are then fixed."""
    blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (1, 1, 1, 1)
    """Residual blocks in each of the four stages."""
    width: PositiveInt = 16
    """Channels of the first stage; each further stage doubles them."""


class Recipe(Section):
    """How a detector is trained."""

    epochs: PositiveInt = 20
    """Passes over the training images."""
    batch_size: PositiveInt = 8
    """Images of a step."""
    optimiser: Literal["adamw", "sgd", "dot"] = "adamw"
    """AdamW; SGD with Nesterov momentum 0.9; DOT: SGD with a momentum of its own for distillation (two backwards)."""
    dot_delta: Annotated[float, Field(ge=0, lt=0.1)] = 0.075
    """DOT only, 0 to below 0.1: momentum is 0.9 - dot_delta for the task, 0.9 + dot_delta for distillation."""
    learning_rate: PositiveFloat = 2e-3
    """The greatest of the schedule."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Not applied to norms and biases."""
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    """How the rate goes on."""
    warmup_fraction: Fraction = 0.1
    """Part of the one-cycle schedule in which the rate rises."""
    gradient_clip_norm: PositiveFloat | None = 10.0
    """Longer gradients are shortened to this; null: never."""
    flip_probability: Fraction = 0.5
    """Of a view being mirrored left to right."""
    scale_range: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    """Random zoom of a view; (1, 1) switches it off."""
    num_views: PositiveInt = 2
    """Different replayable views of an image; the teacher's taps are stored for each."""
    amp: bool | Literal["auto"] = "auto"
    """Mixed precision; auto: on a GPU only."""


class TeacherRecipe(Recipe):
    """How the run trains its teacher when there is no checkpoint."""

    epochs: PositiveInt = 40
    """Passes over the training images."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of weights, order of images and views."""


class TorchvisionDetector(Section):
    """A torchvision detector over a feature pyramid."""

    framework: Literal["torchvision"] = "torchvision"
    """Who builds the model."""
    architecture: Literal["fcos", "retinanet", "faster_rcnn"] = "fcos"
    """The detector, over a feature pyramid."""
    backbone: Backbone = Backbone()
    """A ResNet."""
    fpn_channels: PositiveInt = 64
    """Channels of every level of the pyramid, and of the head."""
    head_convs: PositiveInt = 2
    """Convolutions in each branch of a dense head."""
    checkpoint: Path | None = None
    """Weights to start from (a state dict, read with weights_only)."""
    train: TeacherRecipe | None = None
    """Teacher only: train it, when there is no checkpoint."""


class MmdetDetector(Section):
    """A detector of MMDetection 3.x: the user's own config, whose file is Python and runs as such."""

    framework: Literal["mmdet"]
    """Who builds the model."""
    config: Annotated[str, Field(min_length=1)]
    """Path of a config, or its name in MMDetection's zoo (``retinanet_r50_fpn_1x_coco``). The file's Python is run."""
    options: dict[str, Any] = Field(default={})
    """Keys of the config to set anew, by dotted name: ``{model.neck.out_channels: 64}``."""
    checkpoint: Path | None = None
    """Weights to start from, as mmengine saves them (data only: no code is run)."""
    classes: tuple[str, ...] | None = None
    """Names of the checkpoint's classes, in its order, where the checkpoint itself does not say."""
    new_head: bool = False
    """Take a checkpoint of other classes, and start the layers that depend on the classes anew."""
    train: TeacherRecipe | None = None
    """Teacher only: train it, when there is no checkpoint."""


Detector = Annotated[TorchvisionDetector | MmdetDetector, Field(discriminator="framework")]
"""Every framework's section, told apart by ``framework``; left out in a file, it is torchvision."""


def _distinct_teachers(teachers: tuple[Detector, ...]) -> tuple[Detector, ...]:
    if not teachers:
        raise ValueError("the list is empty. Give at least one teacher")
    for i, teacher in enumerate(teachers):
        if teacher in teachers[:i]:
            first = teachers.index(teacher)
            raise ValueError(f"teachers {first + 1} and {i + 1} are one and the same. Name it once, with its factor")
    return teachers


TeacherTag = Literal["one", "several"]


def _one_or_several(teacher: Any) -> TeacherTag:
    return "several" if isinstance(teacher, (list, tuple)) else "one"


Teachers = Annotated[
    Annotated[Detector, Tag("one")]
    | Annotated[tuple[Detector, ...], AfterValidator(_distinct_teachers), Tag("several")],
    Discriminator(_one_or_several),
]
"""One section, or a list of them; a list of one is that one."""

TeacherRule = Literal["equal", "gap", "gradient"]
"""How several teachers share the loss, without numbers of the user's: ``autokd.distill.teachers`` says how."""
TEACHER_RULES: tuple[TeacherRule, ...] = ("equal", "gap", "gradient")


def _known_factors(found: Any) -> Any:
    remedy = f"Write one of {', '.join(TEACHER_RULES)}, or a list of positive numbers, one a teacher"
    if isinstance(found, str):
        if found not in TEACHER_RULES:
            raise ValueError(f"{one_of(found, TEACHER_RULES)} {remedy}")
    elif not isinstance(found, (list, tuple)) or not all(_is_positive(number) for number in found):
        raise ValueError(f"found {found!r}. {remedy}")
    return found


def _is_positive(number: Any) -> bool:
    return isinstance(number, (int, float)) and not isinstance(number, bool) and 0 < number < float("inf")


TeacherFactors = Annotated[TeacherRule | tuple[float, ...], BeforeValidator(_known_factors)]

# --------------------------------------------------------------------------------------------- search


class SearchConfig(Section):
    """Which spec to try next, how often, and what is known before."""

    sampler: Literal["mcts", "tpe", "nsga2", "gp", "random"] = "mcts"
    """Who suggests the next spec."""
    trials: PositiveInt = 40
    """Specs to evaluate; duplicates are answered from the database and do not count."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the sampler: equal seeds and equal histories give equal suggestions."""
    enqueue: tuple[DistillerName, ...] = ("fitnet", "pkd", "cwd")
    """Presets tried first, at ``enqueue_strength``; the tree's priors come from them."""
    enqueue_strength: PositiveFloat = 40.0
    """Gradient ratio at which those presets are tried; a preset's terms share it."""
    pruner: Literal["none", "median", "percentile", "hyperband"] = "none"
    """Which of Optuna's pruners stops trials early."""
    finalists: PositiveInt = 3
    """The best few, tried again by the proxy with ``finalist_seeds``."""
    finalist_seeds: Seeds = (1, 2)
    """Of the finalists' further proxy trainings."""
    promote_after: PositiveInt | None = None
    """After so many finished trials the best student so far joins the teachers of all that follows; null: never."""


Metric = Literal["val_loss", "cka", "ap"]


class WarmStart(Section):
    """The half-trained undistilled student from which every candidate starts."""

    epochs: Annotated[int, Field(ge=0)] = 10
    """How long it was trained without distillation; left out: half of the full recipe's epochs."""
    of_epochs: PositiveInt | None = None
    """Length of the schedule that is cut off after ``epochs``; null: the full recipe's."""


class ProxyRecipe(Recipe):
    """The short training by which candidates are judged."""

    epochs: PositiveInt = 4
    """Of a candidate, after the warm start."""
    warm_start: WarmStart | None = WarmStart()
    """Where candidates start; null: from scratch."""
    reward: tuple[Metric, ...] = ("val_loss", "cka")
    """Each against "none" under the same random numbers, standardised, and added."""
    subset: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of the training images that a candidate sees."""
    val_subset: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of the validation images on which a candidate is judged."""
    calibration_trials: PositiveInt = 5
    """Trials whose spread, with "none", gives the scales of the reward's parts."""
    timeout_s: PositiveFloat | None = 3600.0
    """A trial that takes longer ends as failed with the cause timeout."""


class FullRecipe(Recipe):
    """The training that counts."""

    epochs: PositiveInt = 20
    """Of every full training."""
    seeds: Annotated[Seeds, Field(min_length=1)] = (0, 1, 2)
    """One full training each, of every entry."""
    baselines: tuple[BaselineName, ...] = ("none", "fitnet", "pkd", "cwd")
    """What is trained beside the winner: none (always), presets, or files of distillers."""
    baseline_strength: PositiveFloat | Literal["published"] = 40.0
    """Gradient ratio of each preset, shared by its terms; published: the weights of their papers."""
    timeout_s: PositiveFloat | None = None
    """As for the proxy; null: no limit."""


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
    space: dict[str, Any] = Field(default_factory=dict)
    """Read by ``autokd.space``; empty: the default space."""
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

    @field_validator("runtime")
    @classmethod
    def _can_share_full_trainings(cls, runtime: RuntimeConfig, info: ValidationInfo) -> RuntimeConfig:
        student, full = info.data.get("student"), info.data.get("full")
        if runtime.full_processes == 1 or student is None or full is None:
            return runtime
        if student.framework != "torchvision":
            raise ValueError(
                f"full_processes is {runtime.full_processes}, but only trainings of torchvision students are shared. "
                "Set it to 1, and train a student of MMDetection by mmengine's own launcher"
            )
        if full.optimiser == "dot":
            raise ValueError("full_processes above 1 and 'full.optimiser: dot' do not go together. Choose one of them")
        if full.batch_size < runtime.full_processes:
            raise ValueError(f"full.batch_size is {full.batch_size}, fewer images than full_processes. Give each one")
        return runtime

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        """What follows from other keys: COCO and torchvision are the ordinary ones, ``proxy`` trains as ``full`` does
        where it does not say otherwise, and its warm start is half of a full training."""
        if not isinstance(data, dict):
            return data
        if isinstance(data.get("data"), dict) and "format" not in data["data"]:
            data = data | {"data": {"format": "coco"} | data["data"]}
        teacher = data.get("teacher")
        if isinstance(teacher, (list, tuple)):
            teachers = [_with_framework(section) for section in teacher]
            data = data | {"teacher": teachers[0] if len(teachers) == 1 else teachers}
        for side in ("teacher", "student"):
            if side in data:
                data = data | {side: _with_framework(data[side])}
        full, proxy = data.get("full") or {}, data.get("proxy") or {}
        if isinstance(full, dict) and isinstance(proxy, dict):
            shared = {key: value for key, value in full.items() if key in Recipe.model_fields and key != "epochs"}
            epochs = full.get("epochs", FullRecipe.model_fields["epochs"].default)
            warm_start = proxy.get("warm_start", {})
            if isinstance(warm_start, dict) and isinstance(epochs, int):
                proxy = proxy | {"warm_start": {"epochs": max(1, epochs // 2)} | warm_start}
            data = data | {"proxy": shared | proxy}
        return data


def _with_framework(section: Any) -> Any:
    """A detector's section with the ordinary framework where it names none."""
    if isinstance(section, dict) and "framework" not in section:
        return {"framework": "torchvision"} | section
    return section
