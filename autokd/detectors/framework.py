"""The protocol of a detector framework, and how a configuration's section finds its own by ``framework``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeVar

from autokd.config import DetectorSection, framework_row
from autokd.detectors.candidates import PredictionLayout
from autokd.detectors.contract import Detector
from autokd.detectors.inference_graph import InferenceGraph
from autokd.detectors.train_pipeline import TrainPipeline
from autokd.errors import DetectorError
from autokd.spec.families import DetectorFamily

PIPELINE_NOTE = "train pipeline: "
"""Beginning of the sentences of ``ConfigRecipe.left`` on augmentations."""

S = TypeVar("S", bound=DetectorSection)


@dataclass(frozen=True)
class ConfigRecipe:
    """The training that the files of a section describe, in the fields of a recipe.

    Args:
        fields: field of ``autokd.config.Recipe`` -> value.
        sources: field -> a remark on where its value comes from, for some.
        left: sentences on what the files say and a recipe does not take.
    """

    fields: Mapping[str, Any]
    sources: Mapping[str, str]
    left: tuple[str, ...]


class Framework(ABC, Generic[S]):
    """A detector framework, such as torchvision or MMDetection. It has no state: any instance is as good as another.

    ``build`` and ``taps`` suffice for a detector that can be searched and trained. The other methods have defaults for
    a framework whose sections name no files but checkpoints, and whose predictions are not compared row by row.
    ``autokd.testing.frameworks`` has the tests that every framework passes.
    """

    @abstractmethod
    def build(
        self, section: S, num_classes: int, image_size_px: tuple[int, int], classes: Sequence[str] | None
    ) -> Detector:
        """Build the detector of a section.

        Args:
            section: the configuration; weights come from its ``checkpoint``, if it has one.
            num_classes: object classes, without a background; at least 1.
            image_size_px: (height, width) of the network's input in full trainings. Other sizes may follow.
            classes: the data set's names, by which the classes of a checkpoint are found; None: the checkpoint has
                the data set's classes in its order.

        Returns:
            A detector in training mode, on the CPU. Random weights come from torch's global generator.

        Raises:
            DetectorError: if a config or a checkpoint is missing, broken or of another model.
        """

    @abstractmethod
    def taps(self, section: S) -> tuple[str, ...]:
        """Return the names of the taps that a forward with targets can give, in the order of ``TAPS``.

        Args:
            section: the configuration.
        """

    def detector_family(self, section: S) -> DetectorFamily | None:
        """Return the family of a section's detector, by which a published distiller has its weights.

        Args:
            section: the configuration.

        Returns:
            "anchor_based" or "anchor_free" for a dense head, "two_stage" for a head on proposals; None if it is none of
            these, such as a head on queries.
        """
        return None

    def layout(
        self, section: S, image_size_px: tuple[int, int], seen_size_px: tuple[int, int]
    ) -> PredictionLayout | None:
        """Return how the detector lists its candidates, without building it.

        Args:
            section: the configuration.
            image_size_px: (height, width) for which the detector is built.
            seen_size_px: (height, width) of the images that it is fed with.

        Returns:
            The layout; None if the detector has no taps that are compared row by row.
        """
        return None

    def structure(self, section: S) -> str:
        """Return a text for keys of caches: models of equal texts take each other's weights.

        It depends on the content of the files that a section names, and not on their paths.

        Args:
            section: the configuration.
        """
        return section.model_dump_json(exclude={"checkpoint", "train"})

    def contents(self, section: S) -> Mapping[str, str]:
        """Return field of the section -> text of the files that it names, for a run that is resumed.

        ``checkpoint`` is left out: its bytes are compared for every framework.

        Args:
            section: the configuration.
        """
        return {}

    def check_image_size(
        self, section: S, num_classes: int, image_size_px: tuple[int, int], classes: Sequence[str] | None
    ) -> None:
        """Check that the detector works on images of another size than it is built for.

        Args:
            section: the configuration.
            num_classes: object classes, without a background.
            image_size_px: (height, width) of the images.
            classes: the data set's names.

        Raises:
            DetectorError: if it does not.
        """
        return None

    def recipe(self, section: S, given: Mapping[str, Any]) -> ConfigRecipe | None:
        """Return what the files of a section say of their training; None if they say nothing.

        Args:
            section: the configuration; its class has ``has_recipe`` set if this method ever returns a recipe.
            given: fields of a recipe that the user's file says, which are left out of the result.

        Raises:
            ConfigError: if the files say something that a recipe cannot.
        """
        return None

    def train_pipeline(self, section: S, num_epochs: int) -> TrainPipeline | None:
        """Return the transforms by which the files of a section augment training images; None if they say nothing.

        Args:
            section: the student's configuration; its class has ``has_recipe`` set if this method ever returns some.
            num_epochs: epochs of the training.

        Raises:
            ConfigError: if they cannot be replayed.
        """
        return None

    def training_notes(self, section: S) -> tuple[str, ...]:
        """Return sentences for ``autokd space`` on what trainings take of the section's files beside the model.

        Args:
            section: the student's configuration.
        """
        return ()

    def export(
        self,
        section: S,
        load_detector: Callable[[], Detector],
        classes: Sequence[str],
        image_size_px: tuple[int, int],
        folder: Path,
        *,
        pad_rgb: tuple[int, int, int],
        original_sizes: Iterable[tuple[int, int]],
        has_two_frames: bool = False,
    ) -> tuple[Path, ...]:
        """Write the trained student as the framework's own tools load it, beside ``student.pt``.

        Args:
            section: the student's configuration.
            load_detector: builds the student with its trained weights; a framework without files leaves it uncalled.
            classes: the data set's names.
            image_size_px: (height, width) into which images are scaled.
            folder: where the files go.
            pad_rgb: color of the padding beside an image, 0 to 255.
            original_sizes: (height, width) of the data set's images before scaling.
            has_two_frames: whether images that lie across ``image_size_px`` have the same frame turned. It is given
                only if it is true.

        Returns:
            The paths of the files; none if the framework has no files of its own.
        """
        return ()

    def inference_graph(self, section: S, detector: Detector, image_size_px: tuple[int, int]) -> InferenceGraph:
        """Return the detector as ONNX and TorchScript exporters take it, for ``autokd export``.

        Args:
            section: the detector's configuration.
            detector: the detector with its weights, in evaluation mode; the graph shares its modules.
            image_size_px: (height, width) of the images.

        Raises:
            DetectorError: if the framework, or this detector of it, has no such form.
        """
        raise DetectorError(
            f"{detector.architecture}: the framework {section.framework!r} has no form for ONNX and TorchScript. "
            "Export it as safetensors."
        )


def framework_of(section: DetectorSection) -> Framework[Any]:
    """Return the framework of a section; its package is imported here, at the first use.

    Args:
        section: the configuration.

    Raises:
        ConfigError: if no framework of that name is known.
        DetectorError: if the row of the framework names no ``Framework``.
    """
    found = framework_row(section.framework).implementation
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        found = getattr(import_module(module), attribute)
    if not (isinstance(found, type) and issubclass(found, Framework)):
        raise DetectorError(
            f"framework {section.framework!r}: its implementation {found!r} is no subclass of "
            "autokd.detectors.Framework. Correct the row in its package."
        )
    return found()
