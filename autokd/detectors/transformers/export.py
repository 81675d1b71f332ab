"""A student for plain transformers: a folder that ``from_pretrained`` loads, and which does not need AutoKD."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autokd.detectors.transformers.adapter import TransformersAdapter
from autokd.detectors.transformers.model_config import with_classes

FOLDER = "student"
_CARD = """\
# A distilled student

A {model_type} of {num_classes} classes. `AutoModelForObjectDetection.from_pretrained` loads this folder. It was trained
on images that were scaled with their aspect ratio kept and padded right and below, which the function below repeats:

```python
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForObjectDetection

model = AutoModelForObjectDetection.from_pretrained(FOLDER).eval()
processor = AutoImageProcessor.from_pretrained(FOLDER)


def detect(image, threshold=0.5):
    height, width = {height}, {width}
    if {has_two_frames} and (image.height - image.width) * (height - width) < 0:
        height, width = width, height  # the image lies across the frame
    scale = min(height / image.height, width / image.width)
    size = min(width, int(image.width * scale + 0.5)), min(height, int(image.height * scale + 0.5))
    canvas = Image.new("RGB", (width, height), {pad_rgb})
    canvas.paste(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))
    pixels = processor(canvas, return_tensors="pt", do_resize=False, do_pad=False).pixel_values
    below, right = -height % {multiple}, -width % {multiple}
    pixels = torch.nn.functional.pad(pixels, (0, right, 0, below))
    with torch.no_grad():
        output = model(pixel_values=pixels)
    sizes = torch.tensor([[height + below, width + right]])
    (found,) = processor.post_process_object_detection(output, threshold, sizes)
    scales = torch.tensor([image.width / size[0], image.height / size[1]]).repeat(2)
    limits = torch.tensor([image.width, image.height]).repeat(2)
    return found | {{"boxes": (found["boxes"] * scales).clamp(min=0).minimum(limits)}}
```
"""


def export_student(
    detector: TransformersAdapter,
    classes: Sequence[str],
    image_size_px: tuple[int, int],
    folder: Path,
    *,
    pad_rgb: tuple[int, int, int],
    has_two_frames: bool = False,
) -> tuple[Path, ...]:
    """Write the folder ``student`` as ``save_pretrained`` does, with a ``README.md`` that shows how to detect with it.

    Args:
        detector: the student, with its trained weights.
        classes: the data set's names.
        image_size_px: (height, width) into which the data were scaled.
        folder: where the folder goes.
        pad_rgb: color of the padding beside an image, 0 to 255.
        has_two_frames: whether images that lie across the frame have it turned.

    Returns:
        The paths of the files.
    """
    target = folder / FOLDER
    with_classes(detector.model.config, detector.model_classes or tuple(classes))
    detector.model.save_pretrained(target)
    detector.processor.save_pretrained(target)
    height, width = image_size_px
    card = _CARD.format(
        model_type=detector.model.config.model_type,
        num_classes=detector.model.config.num_labels,
        height=height,
        width=width,
        pad_rgb=tuple(pad_rgb),
        has_two_frames=has_two_frames,
        multiple=detector.pad_multiple_px,
    )
    (target / "README.md").write_text(card)
    return tuple(sorted(path for path in target.iterdir() if path.is_file()))
