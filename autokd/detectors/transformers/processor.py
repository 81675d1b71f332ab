"""The image processor of a model: its colors, its rules of size, and how it turns outputs into detections.

Legend: B images, H x W pixels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from autokd.config import TransformersDetector
from autokd.detectors.transformers.library import PROGRAM_ERRORS, first_line, transformers_library
from autokd.errors import DetectorError

CONFIG_FILE = "preprocessor_config.json"
_CLASSES = {
    "conditional_detr": "ConditionalDetrImageProcessor",
    "dab-detr": "ConditionalDetrImageProcessor",
    "deformable_detr": "DeformableDetrImageProcessor",
    "lw_detr": "DeformableDetrImageProcessor",
    "rf_detr": "RfDetrImageProcessor",
    "rt_detr": "RTDetrImageProcessor",
    "rt_detr_v2": "RTDetrImageProcessor",
    "d_fine": "RTDetrImageProcessor",
    "deimv2": "RTDetrImageProcessor",
    "yolos": "YolosImageProcessor",
}
"""Model type -> class of its image processor; the others have DETR's."""
_BYTES = 255.0


class Colors(nn.Module):
    """Normalization of an image processor: bytes times a factor, minus a mean, divided by a deviation.

    Args:
        processor: an image processor of transformers.
    """

    def __init__(self, processor: Any) -> None:
        super().__init__()
        self.scale = _BYTES * float(processor.rescale_factor) if processor.do_rescale else _BYTES
        is_normalizing = bool(processor.do_normalize)
        self.mean = tuple(processor.image_mean) if is_normalizing else (0.0, 0.0, 0.0)
        self.std = tuple(processor.image_std) if is_normalizing else (1.0, 1.0, 1.0)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the pixel values of RGB images in [0, 1]."""
        mean, std = (images_BCHW.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (images_BCHW * self.scale - mean) / std


def processor_of(section: TransformersDetector, model_type: str, image_size_px: tuple[int, int] | None) -> Any:
    """Return the image processor of a section's model: its own, or the ordinary one of the model's type.

    Args:
        section: the configuration.
        model_type: type of the model.
        image_size_px: (height, width) into which the data are scaled and padded; None: its rules are not checked.

    Raises:
        DetectorError: if the model's own cannot be read, or scales and pads otherwise than the data.
    """
    own = _own_processor(section)
    if own is None:
        return getattr(transformers_library(), _CLASSES.get(model_type, "DetrImageProcessor"))()
    if image_size_px is not None:
        _check_sizes(own, section, image_size_px)
    return own


def _own_processor(section: TransformersDetector) -> Any | None:
    if section.name is None or (section.folder is not None and not (section.folder / CONFIG_FILE).is_file()):
        return None
    try:
        return transformers_library().AutoImageProcessor.from_pretrained(
            section.name, revision=section.revision, trust_remote_code=False
        )
    except PROGRAM_ERRORS as error:
        raise DetectorError(
            f"{section.name}: its {CONFIG_FILE} cannot be read ({first_line(error)}). Correct it, or delete it to have "
            "the normalization that is ordinary for the model's type."
        ) from error


def _check_sizes(processor: Any, section: TransformersDetector, image_size_px: tuple[int, int]) -> None:
    """Refuse rules of size that the data do not follow; a size alone is no rule, since models take any."""
    where = f"{section.name}: its image processor"
    data = f"AutoKD scales images with their aspect ratio kept, pads right and below to {list(image_size_px)} px"
    remedy = f"Correct its {CONFIG_FILE}, or take a model that was trained on whole images"
    if getattr(processor, "do_center_crop", None):
        raise DetectorError(f"{where} crops images to their center, but {data} and crops nothing. {remedy}.")
    pad = getattr(processor, "pad_size", None)
    if getattr(processor, "do_pad", None) and pad and (pad["height"], pad["width"]) != image_size_px:
        size = [pad["height"], pad["width"]]
        raise DetectorError(
            f"{where} pads to {size} px, but {data}. Set 'data: {{image_size_px: {size}}}', or remove pad_size from "
            f"its {CONFIG_FILE}."
        )
    mode = getattr(processor, "padding_mode", None) or getattr(processor, "pad_mode", None)
    if mode not in (None, "constant"):
        raise DetectorError(f"{where} pads by {mode!r}, but {data} with one color. {remedy}.")
    if getattr(processor, "pad_position", None) not in (None, "bottom_right"):
        raise DetectorError(f"{where} pads at {processor.pad_position!r}, but {data}. {remedy}.")
