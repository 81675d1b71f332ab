"""How well each rule of measured weights keeps its target along a training: the true ratio, step by step.

    python experiments/weight_rules/follow.py

Each rule trains a student of its own on generated shapes with PKD. In every fourth step the gradient norms of the task
loss and of the distiller's total are measured on the student's maps, apart from the distiller's own measurement.
Writes follow.json and the table of README.md.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autokd.benchmark.markdown import markdown_table, write_table
from autokd.config import RunConfig, ShapesData
from autokd.data import collate, load_datasets
from autokd.detectors import build_detector
from autokd.distill import build_distiller
from autokd.files import write_text_atomically
from autokd.presets import load_preset
from autokd.spec import DistillerSpec, Weight

HERE = Path(__file__).parent
SHARE = 0.8
RATIO = SHARE / (1 - SHARE)
EPOCHS, STEPS, BATCH, EVERY = 8, 25, 4, 4
RULES: dict[str, tuple[Weight, int | None]] = {
    "ratio every 20 steps": (Weight("relative", RATIO), 20),
    "share within a band": (Weight("share", SHARE), 20),
    "the first factor stays": (Weight("relative", RATIO), None),
}
CONFIG = RunConfig.model_validate(
    {
        "data": {"format": "shapes", "num_train": 100, "num_val": 20, "num_test": 20},
        "teacher": {"architecture": "fcos", "backbone": {"blocks": [1, 1, 1, 1], "width": 24}, "train": {}},
        "student": {"architecture": "fcos", "backbone": {"blocks": [1, 1, 1, 1], "width": 8}},
    }
)


def norm_of(value: Tensor, taps: list[Tensor]) -> float:
    found = torch.autograd.grad(value, taps, retain_graph=True, allow_unused=True)
    return float(torch.cat([gradient.flatten() for gradient in found if gradient is not None]).norm())


def follow(weight: Weight, every: int | None, data: Any) -> dict[str, list[float]]:
    """Return the true ratio over the asked one, and the factor, in every fourth step."""
    torch.manual_seed(0)
    teacher, student = (build_detector(each, 6, (96, 96)) for each in (CONFIG.teacher, CONFIG.student))
    teacher.eval()
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    spec = DistillerSpec(tuple(replace(term, weight=weight) for term in load_preset("pkd").terms))
    distiller, found = None, {"off": [], "factor": []}
    for epoch in range(1, EPOCHS + 1):
        for step in range(STEPS):
            rows = torch.randint(0, data.num_images, (BATCH,), generator=generator).tolist()
            images, targets = collate([data.load(row) for row in rows])
            with torch.no_grad():
                outputs_t = teacher(images)
            outputs_s = student(images, targets)
            if distiller is None:
                distiller = build_distiller(spec, outputs_s, outputs_t, num_classes=6, recalibrate_every=every)
            if step == 0:
                distiller.begin_epoch(epoch, EPOCHS, STEPS)
            result = distiller(outputs_s, outputs_t, targets)
            if step % EVERY == 0:
                taps = list(outputs_s.pyramid.values())
                found["off"].append(norm_of(result.total, taps) / norm_of(outputs_s.task_loss, taps) / RATIO)
                found["factor"].append(float(next(iter(result.terms.values())).weight))
            optimizer.zero_grad()
            (outputs_s.task_loss + result.total).backward()
            optimizer.step()
    return found


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        assert isinstance(CONFIG.data, ShapesData)
        data = load_datasets(CONFIG.data, Path(cache)).train
        found = {name: follow(weight, every, data) for name, (weight, every) in RULES.items()}
    rounded = {
        name: {key: [float(f"{x:.4g}") for x in row] for key, row in each.items()} for name, each in found.items()
    }
    write_text_atomically(HERE / "follow.json", json.dumps(rounded) + "\n")
    rows = []
    for name, each in rounded.items():
        off = [max(x, 1 / x) for x in each["off"]]
        within = sum(x < 2 for x in off) / len(off)
        spread = f"{min(each['factor']):.3g} to {max(each['factor']):.3g}"
        rows.append((name, f"{statistics.median(off):.2f}", f"{max(off):.2f}", f"{within:.0%}", spread))
    head = ("rule", "off by, median", "off by, at most", "within twice", "factor")
    write_table(HERE / "README.md", "follow", markdown_table(head, rows))


if __name__ == "__main__":
    main()
