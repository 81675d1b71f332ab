"""Export small students of each framework to each format, and compare every file with the detector.

    python experiments/export/table.py            # table.json, a row at a time; rows that are there are kept
    python experiments/export/table.py --write    # the table into README.md

Weights are random, those of the heads drawn so that scores spread and neither tie nor saturate: differences of
arithmetic, sizes and times do not depend on what was learned, but for the number of boxes that suppression sees.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from autokd.benchmark.markdown import write_table
from autokd.config import Detector, MmdetDetector, TorchvisionDetector
from autokd.data import network_input
from autokd.detectors import build_detector
from autokd.errors import DetectorError
from autokd.inference import FORMATS, ExportFormat, TrainedDetector, export_model
from autokd.inference.export_run import weights_bytes
from autokd.inference.exporting import SUFFIXES
from autokd.storage import StudentCard

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TABLE = HERE / "table.json"
CONFIGS = ROOT / "tests" / "detectors" / "mmdet" / "configs"
PHOTOGRAPHS = Path(os.environ.get("AUTOKD_BCCD", ROOT.parent / "shared" / "data" / "bccd")) / "images"
CLASSES = ("RBC", "WBC", "Platelets")
SIZE_PX = (192, 256)
NUM_IMAGES, REPEATS = 4, 10
TORCHVISION = ("fcos", "retinanet", "faster_rcnn")
MMDET = ("gfl", "faster_rcnn", "cascade_rcnn", "deformable_detr", "yolox")


def sections() -> dict[str, Detector]:
    """Return the students: framework and architecture -> section."""
    small = {"backbone": {"blocks": (1, 1, 1, 1), "width": 16}, "fpn_channels": 64}
    found: dict[str, Detector] = {
        f"torchvision {name}": TorchvisionDetector(architecture=name, **small) for name in TORCHVISION
    }
    return found | {
        f"mmdet {name}": MmdetDetector(framework="mmdet", config=str(CONFIGS / f"{name}.py")) for name in MMDET
    }


def trained(section: Detector) -> TrainedDetector:
    """Return a student with random weights, and heads whose scores spread.

    Args:
        section: its section.
    """
    torch.manual_seed(0)
    detector = build_detector(section, len(CLASSES), SIZE_PX, CLASSES).eval()
    for name, parameter in detector.named_parameters():
        with torch.no_grad():
            if "head" in name and parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            elif "head" in name and name.endswith("bias"):
                parameter.zero_()
    card = StudentCard(detector=section, classes=CLASSES, category_ids=(1, 2, 3), image_size_px=SIZE_PX)
    return TrainedDetector(detector, card, None)


def measured(section: Detector, name: ExportFormat, images: list[torch.Tensor]) -> dict[str, Any]:
    """Return the measurements of one student in one format, or why it has none.

    Args:
        section: the student.
        name: the format.
        images: images in the network's input.
    """
    with tempfile.TemporaryDirectory() as folder:
        student = trained(section)
        try:
            found = export_model(student, name, Path(folder) / f"student{SUFFIXES[name]}", images, repeats=REPEATS)
        except DetectorError as error:
            if "has no form" not in str(error):
                raise
            return {"refused": str(error)}
        return {**found.to_data(), "path": "", "weights_bytes": weights_bytes(student.detector)}


def record() -> None:
    """Measure every row that the table lacks; the file is written after each."""
    table: dict[str, Any] = json.loads(TABLE.read_text()) if TABLE.exists() else {"rows": {}}
    table |= {"machine": f"{platform.processor() or platform.machine()}, one thread", "torch": torch.__version__}
    table["commit"] = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    torch.set_num_threads(1)
    images = [network_input(path, SIZE_PX).image for path in sorted(PHOTOGRAPHS.iterdir())[:NUM_IMAGES]]
    for student, section in sections().items():
        for name in reversed(FORMATS):  # ONNX last: its exporter takes most of the time
            key = f"{student}, {name}"
            if key not in table["rows"]:
                table["rows"][key] = measured(section, name, images)
                TABLE.write_text(json.dumps(table, indent=1) + "\n")
                print(key, table["rows"][key], flush=True)


def write() -> None:
    """Write the table into README.md."""
    rows = json.loads(TABLE.read_text())["rows"]
    lines = [
        "| student | format | boxes | box differs, px | score differs | unmatched | file | latency | PyTorch |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for key, row in rows.items():
        student, _, name = key.rpartition(", ")
        if "refused" in row:
            lines.append(f"| {student} | {name} | refused | | | | | | |")
            continue
        there = row["differences"]
        numbers = (
            there["num_boxes"],
            f"{there['max_box_px']:.1e}",
            f"{there['max_score']:.1e}",
            there["num_unmatched"],
            f"{row['size_bytes'] / 1e6:.2f} MB",
            f"{row['latency_ms']:.1f} ms",
            f"{row['eager_latency_ms']:.1f} ms",
        )
        lines.append(f"| {student} | {name} | {' | '.join(map(str, numbers))} |")
    write_table(HERE / "README.md", "export", lines)


if __name__ == "__main__":
    write() if "--write" in sys.argv else record()
