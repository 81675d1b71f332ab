"""Synchronizing calls of a training step of 16 images: those for which a host waits for its GPU, counted on a CPU.

Forward, losses, distiller, backward, clipping and update, of steps in which a relative weight is measured and of those
between. Code that does something else on a GPU than on a CPU is told that it computes on one. An older AutoKD, which
makes no difference, is counted by the same script if its checkout comes first on PYTHONPATH; give it this one's
``autokd/testing/synchronizing.py``.

    python experiments/scale/synchronizing.py [--json experiments/scale/synchronizing.json]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from autokd.config import Backbone, Recipe, TorchvisionDetector
from autokd.detectors import Detector, build_detector
from autokd.distill import build_distiller
from autokd.presets import load_preset
from autokd.testing.synchronizing import SynchronizingCalls
from autokd.training.optim.update import make_update_rule

NUM_IMAGES, NUM_CLASSES, SIZE_PX = 16, 20, (128, 128)
STEPS = 26
"""The first ones measure relative weights; so does every 25th."""
PRESETS = {"fcos": "fgd", "retinanet": "fgd", "faster_rcnn": "pkd"}


def detector_of(architecture: str, width: int) -> Detector:
    """Return a small detector; the calls of a step do not depend on its width."""
    backbone = Backbone(blocks=(1, 1, 1, 1), width=width)
    section = TorchvisionDetector(architecture=architecture, backbone=backbone, fpn_channels=16)  # type: ignore[arg-type]
    return build_detector(section, NUM_CLASSES, SIZE_PX)


def targets_of(generator: torch.Generator) -> list[dict[str, Tensor]]:
    """Return 1 to 7 boxes an image."""
    targets = []
    for index in range(NUM_IMAGES):
        corners = torch.rand(1 + index % 7, 2, generator=generator) * 80
        boxes = torch.cat([corners, corners + 8 + torch.rand(len(corners), 2, generator=generator) * 36], dim=1)
        labels = torch.randint(NUM_CLASSES, (len(boxes),), generator=generator)
        targets.append({"boxes": boxes, "labels": labels})
    return targets


def checked(targets: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Return the targets as a loader gives them."""
    try:
        from autokd.targets import CheckedTargets
    except ImportError:  # an older AutoKD
        return targets
    return CheckedTargets(targets, NUM_CLASSES)


def counts(architecture: str, preset: str | None) -> list[dict[str, int]]:
    """Return the calls of each of the first steps by name."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    student, teacher = detector_of(architecture, 8), detector_of(architecture, 16).eval()
    images = torch.rand(NUM_IMAGES, 3, *SIZE_PX, generator=generator)
    targets = checked(targets_of(generator))
    distiller = None
    if preset is not None:
        spec = load_preset(preset, "anchor_free" if architecture == "fcos" else "anchor_based")
        with torch.no_grad():
            seen = teacher(images, taps=("fpn",))
        distiller = build_distiller(spec, student(images, targets, taps=("fpn",)), seen, NUM_CLASSES).train()
        distiller.begin_epoch(1, 12, 1000)
    rule = make_update_rule(student, distiller, Recipe(batch_size=NUM_IMAGES), torch.device("cpu"))
    found = []
    for _ in range(STEPS):
        with SynchronizingCalls() as calls:
            outputs = student(images, targets, taps=("fpn",))
            total = task = torch.stack(list(outputs.losses.values())).sum()  # type: ignore[union-attr]
            if distiller is not None:
                total = task + distiller(outputs, seen, targets).total
            rule.set_rate(1e-4)
            rule.differentiate({"task": task, "total": total})
            rule.step()
        found.append(dict(calls.by_name))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = {}
    with mock.patch("autokd.tensors.computes_asynchronously", return_value=True, create=True):
        for architecture, preset in PRESETS.items():
            for name in (None, preset):
                steps = counts(architecture, name)
                totals = [sum(step.values()) for step in steps]
                rows[f"{architecture}, {name or 'no distiller'}"] = {
                    "fewest of a step": min(totals), "most of a step": max(totals),
                    "mean of a step": round(sum(totals) / len(totals), 1),
                    "by name, of the last but one": steps[-2],
                }  # fmt: skip
                print(architecture, name, totals, steps[-2], flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
