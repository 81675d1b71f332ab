"""A run directory with a student that finds boxes, without a training: random weights, and scores that spread."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image

from autokd.config import Detector, TorchvisionDetector
from autokd.detectors import build_detector
from autokd.storage import StudentCard

CLASSES = ("disc", "square", "bar")
CATEGORY_IDS = (4, 7, 9)
SIZE_PX = (96, 128)


def write_run(folder: Path, section: Detector | None = None, *, size_px: tuple[int, int] = SIZE_PX) -> Path:
    """Write student.pt and student.json into a folder that looks like a run's."""
    section = section or TorchvisionDetector(backbone={"blocks": (1, 1, 1, 1), "width": 8}, fpn_channels=16)
    torch.manual_seed(3)
    detector = build_detector(section, len(CLASSES), size_px, CLASSES).eval()
    spread_scores(detector)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(detector.plain_state_dict(), folder / "student.pt")
    (folder / "config.yaml").write_text("name: sample\n")
    StudentCard(
        name="sample", detector=section, classes=CLASSES, category_ids=CATEGORY_IDS, image_size_px=size_px
    ).write(folder)
    return folder


def spread_scores(detector: torch.nn.Module) -> None:
    """Draw the weights of the heads anew, so that scores differ between cells and neither tie nor saturate.

    Heads start with small weights and a bias for rare objects: a random detector of theirs finds ties, or nothing.
    """
    for name, parameter in detector.named_parameters():
        if "head" not in name:
            continue
        with torch.no_grad():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            elif name.endswith("bias"):
                parameter.zero_()


def write_images(folder: Path, sizes_px: tuple[tuple[int, int], ...] = ((60, 90), (200, 120), (96, 128))) -> Path:
    """Write noisy images of some (height, width)."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(5)
    for number, (height, width) in enumerate(sizes_px):
        pixels = (torch.rand(height, width, 3, generator=generator) * 255).byte().numpy()
        Image.fromarray(pixels).save(folder / f"photo {number} [a].png")
    return folder


def write_coco(folder: Path, images: Path) -> Path:
    """Write one annotation file over the images of a folder, in the order of their names."""
    rows = []
    for number, path in enumerate(sorted(images.glob("*.png"))):
        with Image.open(path) as image:
            rows.append({"id": number + 1, "file_name": path.name, "width": image.width, "height": image.height})
    categories = [{"id": category, "name": name} for category, name in zip(CATEGORY_IDS, CLASSES)]
    annotations = [{"id": 1, "image_id": 1, "category_id": 4, "bbox": [1, 2, 30, 20], "area": 600, "iscrowd": 0}]
    annotations += [{**annotations[0], "id": 2 + k, "category_id": category} for k, category in enumerate((7, 9))]
    path = folder / "set.json"
    path.write_text(json.dumps({"images": rows, "annotations": annotations, "categories": categories}))
    return path
