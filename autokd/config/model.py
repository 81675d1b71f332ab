"""The sections of a space file as frozen, validated values. Defaults are chosen so that five lines work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

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

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


# ---------------------------------------------------------------------------------------------- data


class ShapesData(Section):
    """The generated set: textured shapes on textured ground, written once as COCO files."""

    format: Literal["shapes"]
    image_size_px: SizePx = (96, 96)
    """Height and width of the images."""
    num_train: PositiveInt = 600
    num_val: PositiveInt = 500
    num_test: PositiveInt = 500
    seed: Annotated[int, Field(ge=0)] = 0


class CocoData(Section):
    """Any COCO-format detection set."""

    format: Literal["coco"] = "coco"
    root: Path
    images: Path = Path("images")
    """Folder of the images, from ``root``."""
    train: Path
    val: Path
    test: Path | None = None
    """Annotation files, from ``root``. Without a test file the report is on val, and says so."""
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
    batch_size: PositiveInt = 8
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: PositiveFloat = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    warmup_fraction: Fraction = 0.1
    """Part of the one-cycle schedule in which the rate rises."""
    gradient_clip_norm: PositiveFloat | None = 10.0
    flip_probability: Fraction = 0.5
    scale_range: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    """Random zoom of a view; (1, 1) switches it off."""
    num_views: PositiveInt = 2
    """Different replayable views of an image; the teacher's taps are stored for each."""
    amp: bool | Literal["auto"] = "auto"
    """Mixed precision; auto: on a GPU only."""


class TeacherRecipe(Recipe):
    """How the run trains its teacher when there is no checkpoint."""

    epochs: PositiveInt = 40
    seed: Annotated[int, Field(ge=0)] = 0


class TorchvisionDetector(Section):
    """A torchvision detector over a feature pyramid."""

    framework: Literal["torchvision"] = "torchvision"
    architecture: Literal["fcos", "retinanet", "faster_rcnn"] = "fcos"
    backbone: Backbone = Backbone()
    fpn_channels: PositiveInt = 64
    head_convs: PositiveInt = 2
    """Convolutions in each branch of a dense head."""
    checkpoint: Path | None = None
    """Weights to start from (a state dict, read with weights_only)."""
    train: TeacherRecipe | None = None
    """Teacher only: train it, when there is no checkpoint."""


Detector = TorchvisionDetector
"""Every framework's section; a second framework makes this a union told apart by ``framework``."""

# --------------------------------------------------------------------------------------------- search


class SearchConfig(Section):
    """Which spec to try next, how often, and what is known before."""

    sampler: Literal["mcts", "tpe", "nsga2", "gp", "random"] = "mcts"
    trials: PositiveInt = 40
    seed: Annotated[int, Field(ge=0)] = 0
    enqueue: tuple[DistillerName, ...] = ("fitnet", "pkd", "cwd")
    """Presets tried first, at ``enqueue_strength``; the tree's priors come from them."""
    enqueue_strength: PositiveFloat = 40.0
    pruner: Literal["none", "median", "percentile", "hyperband"] = "none"
    finalists: PositiveInt = 3
    """The best few, tried again by the proxy with ``finalist_seeds``."""
    finalist_seeds: Seeds = (1, 2)


Metric = Literal["val_loss", "cka", "ap"]


class WarmStart(Section):
    """The half-trained undistilled student from which every candidate starts."""

    epochs: Annotated[int, Field(ge=0)] = 10
    of_epochs: PositiveInt | None = None
    """Length of the schedule that is cut off after ``epochs``; None: the full recipe's."""


class ProxyRecipe(Recipe):
    """The short training by which candidates are judged."""

    epochs: PositiveInt = 4
    warm_start: WarmStart | None = WarmStart()
    reward: tuple[Metric, ...] = ("val_loss", "cka")
    """Each against "none" under the same random numbers, standardised, and added."""
    subset: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of the training images that a candidate sees."""
    val_subset: Annotated[float, Field(gt=0, le=1)] = 1.0
    calibration_trials: PositiveInt = 5
    """Trials whose spread, with "none", gives the scales of the reward's parts."""
    timeout_s: PositiveFloat | None = 3600.0


class FullRecipe(Recipe):
    """The training that counts."""

    epochs: PositiveInt = 20
    seeds: Annotated[Seeds, Field(min_length=1)] = (0, 1, 2)
    baselines: tuple[BaselineName, ...] = ("none", "fitnet", "pkd", "cwd")
    baseline_strength: PositiveFloat | Literal["published"] = 40.0
    """Gradient ratio at which the presets are trained; published: with the weights of their papers."""
    timeout_s: PositiveFloat | None = None


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


class RunConfig(Section):
    """A whole space file."""

    name: str = ""
    data: Data
    teacher: Detector
    student: Detector
    space: dict[str, Any] = Field(default_factory=dict)
    """Read by ``autokd.space``; empty: the default space."""
    search: SearchConfig = SearchConfig()
    proxy: ProxyRecipe = ProxyRecipe()
    full: FullRecipe = FullRecipe()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        """COCO is the ordinary format; ``proxy`` trains as ``full`` does where it does not say otherwise."""
        if not isinstance(data, dict):
            return data
        if isinstance(data.get("data"), dict) and "format" not in data["data"]:
            data = data | {"data": {"format": "coco"} | data["data"]}
        if isinstance(data.get("full"), dict):
            shared = {k: value for k, value in data["full"].items() if k in Recipe.model_fields and k != "epochs"}
            if data.get("proxy") is None or isinstance(data["proxy"], dict):
                data = data | {"proxy": shared | (data.get("proxy") or {})}
        return data
