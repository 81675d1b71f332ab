"""A framework of a few lines, registered here, passes the public suite and is searched without a change elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import autokd
from autokd.config import (
    DetectorSection,
    FrameworkRow,
    TeacherRecipe,
    framework_row,
    load_config,
    register_framework,
    registered_framework,
)
from autokd.detector_outputs import DetectorOutputs
from autokd.detectors import Detector, Framework, PredictionLayout, grid_cells, load_weights
from autokd.errors import ConfigError
from autokd.testing.frameworks import DetectorCase, DetectorConformance

# ------------------------------------------------------------------------------------------ the framework


class ToySection(DetectorSection):
    """A convolution of stride 8 whose cells each guess a class and a box of 32 pixels."""

    framework: Literal["toy"] = "toy"
    width: int = 16
    checkpoint: Path | None = None
    train: TeacherRecipe | None = None


class ToyDetector(Detector):
    strides: ClassVar = {"p3": 8}
    channels = 0
    pad_multiple_px = 8
    architecture = "toy"

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.channels, self.num_classes = width, num_classes
        self.model = nn.ModuleDict({"body": nn.Conv2d(3, width, 8, 8), "head": nn.Conv2d(width, num_classes + 4, 1)})
        self._choose_memory_format()

    def _run(self, images_BCHW, targets, taps, wants_detections):
        self._check_images(images_BCHW)
        self._check_taps(taps)
        height, width = images_BCHW.shape[-2:]
        padded_BCHW = F.pad(images_BCHW, (0, -width % 8, 0, -height % 8))
        map_BCHW = self.model["body"](padded_BCHW).float()
        outputs = {"pyramid": {"p3": map_BCHW}, "strides": self.strides, "image_size_px": padded_BCHW.shape[-2:]}
        if targets is None and not wants_detections and not {"class_logits", "boxes"} & set(taps):
            return DetectorOutputs(**outputs), []
        values_BAV = self.model["head"](map_BCHW).float().flatten(2).transpose(1, 2)
        rows, columns = torch.meshgrid(*(torch.arange(side) * 8.0 for side in map_BCHW.shape[-2:]), indexing="ij")
        corners_A2 = torch.stack([columns.flatten(), rows.flatten()], 1)
        sides_BA2 = 32 * values_BAV[..., -2:].clamp(max=4).exp()
        centers_BA2 = corners_A2 + 8 * values_BAV[..., -4:-2]
        given = {"class_logits": values_BAV[..., :-4], "boxes": torch.cat([centers_BA2, centers_BA2 + sides_BA2], 2)}
        outputs |= {tap: given[tap] for tap in taps if tap in given}
        if targets is not None:
            outputs["losses"] = self._losses(given, corners_A2, self._check_targets(targets, len(images_BCHW)))
        found = [self._found(*both, (height, width)) for both in zip(*given.values())] if wants_detections else []
        return DetectorOutputs(**outputs), found

    def _losses(self, given, corners_A2, targets):
        """Each box belongs to the cell nearest to its upper left corner."""
        wanted, distances = torch.zeros_like(given["class_logits"]), [given["boxes"].sum() * 0]
        for i, target in enumerate(targets):
            for box, label in zip(target["boxes"], target["labels"]):
                cell = torch.cdist(box[None, :2], corners_A2).argmin()
                wanted[i, cell, label] = 1
                distances.append(F.l1_loss(given["boxes"][i, cell], box) / 32)
        classes = F.binary_cross_entropy_with_logits(given["class_logits"], wanted)
        return {"loss_class": classes, "loss_box": torch.stack(distances).mean()}

    def _found(self, logits_AK, boxes_A4, size_px):
        scores_A, labels_A = logits_AK.sigmoid().max(1)
        best = scores_A.nan_to_num(-1).topk(min(20, len(scores_A))).indices
        best = best[boxes_A4[best].isfinite().all(1) & scores_A[best].isfinite()]
        limits = torch.tensor([size_px[1], size_px[0]] * 2)
        return {
            "boxes": boxes_A4[best].clamp(min=0).minimum(limits),
            "scores": scores_A[best],
            "labels": labels_A[best],
        }


class ToyFramework(Framework[ToySection]):
    def build(self, section, num_classes, image_size_px, classes):
        detector = ToyDetector(section.width, num_classes)
        if section.checkpoint is not None:
            load_weights(detector, section.checkpoint)
        return detector

    def taps(self, section):
        return ("fpn", "class_logits", "boxes")

    def layout(self, section, image_size_px, seen_size_px):
        return PredictionLayout(grid_cells([8], seen_size_px, 8))


TOY = FrameworkRow(ToySection, ToyFramework)


# ---------------------------------------------------------------------------------------------- the tests


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with registered_framework(TOY):
        yield


class TestToy(DetectorConformance):
    @pytest.fixture
    def case(self) -> DetectorCase:
        return DetectorCase("toy", ToySection(), head_of=lambda detector: detector.model["head"])


FILE = """\
data: {format: shapes, image_size_px: [64, 64], num_train: 8, num_val: 4, num_test: 4}
teacher: {framework: toy, train: {epochs: 1}}
student: {framework: toy, width: 8}
space: {terms: 1, sources: [feature_map, class_logits], distances: [l2]}
search: {trials: 2, finalists: 1, finalist_seeds: [1], enqueue: [], sampler: random}
proxy: {epochs: 1, subset: 1.0}
full: {epochs: 1, batch_size: 4, seeds: [0], baselines: [none]}
runtime: {workers: 0}
"""


def test_a_registered_framework_is_searched_from_file_to_student(tmp_path):
    results = autokd.search(FILE, run_dir=tmp_path / "run", cache_dir=tmp_path / "cache")
    assert {entry.name for entry in results.entries} == {"none", "searched"}
    assert all(ap is not None for entry in results.entries for ap in entry.test_ap)
    assert (tmp_path / "run" / "student.pt").is_file()


@pytest.mark.parametrize(
    ("student", "error"),
    [
        ("{framework: toy, width: wide}", "<text>:3: student.width: found 'wide'"),
        (
            "{framework: toy, wdth: 8}",
            "<text>:3: student.wdth: key 'wdth' is not one of checkpoint, framework, train, width",
        ),
        (
            "{framework: tyo}",
            "<text>:3: student.framework: 'tyo' is not one of backbone, mmdet, torchvision, toy, ",
        ),
    ],
)
def test_mistakes_in_its_section_are_named_as_in_any_other(student, error):
    text = FILE.replace("{framework: toy, width: 8}", student)
    with pytest.raises(ConfigError) as caught:
        load_config(text)
    assert error in str(caught.value)


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ConfigError, match="framework toy names no file that says how it trains"):
        load_config(FILE.replace("full: {", "full: {from_student_config: true, "))
    with pytest.raises(ConfigError, match=r"students of framework toy cannot be shared\. Set it to 1"):
        load_config(FILE.replace("workers: 0", "workers: 0, full_processes: 2"))


def test_a_name_is_taken_once_and_unknown_ones_are_named():
    with pytest.raises(ConfigError, match="there is a framework 'toy' already"):
        register_framework(TOY)
    with pytest.raises(ConfigError, match="Did you mean 'mmdet'"):
        framework_row("mmdte")
