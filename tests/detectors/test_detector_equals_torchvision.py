"""Adapters against torchvision's own forward, on the same weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from autokd.config import Backbone, TorchvisionDetector
from autokd.detectors import build_detector, plain_torchvision_model, plain_torchvision_source

CONFIG = {
    name: TorchvisionDetector(
        architecture=name, backbone=Backbone(blocks=(1, 2, 1, 1), width=8), fpn_channels=48, head_convs=convs
    )
    for name, convs in (("fcos", 1), ("retinanet", 5), ("faster_rcnn", 2))
}


def _lively(detector):
    """Raise the scores of random weights, so that there is something to suppress and to compare."""
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if name.endswith(("cls_logits.bias", "cls_score.bias")):
                parameter.zero_()
            if name.endswith(("cls_logits.weight", "bbox_reg.weight", "bbox_pred.weight", "cls_score.weight")):
                parameter.normal_(std=0.05)
        for module in detector.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 2.0)
    return detector


def _pair(architecture, size_px):
    config = CONFIG[architecture]
    detector = _lively(build_detector(config, 5, size_px)).eval()
    plain = plain_torchvision_model(config, 5, size_px)
    plain.load_state_dict(detector.plain_state_dict())
    return detector, plain.to(memory_format=detector.memory_format).eval()  # the same order of sums: no ties flip


def _shifted(architecture, labels):
    """torchvision's FasterRCNN counts its classes from 1."""
    return labels + 1 if architecture == "faster_rcnn" else labels


@pytest.mark.parametrize("size_px", [(96, 128), (97, 131), (480, 340)])
def test_losses_equal_torchvisions_training_losses_with_frozen_statistics(architecture, size_px):
    detector, plain = _pair(architecture, size_px)
    images = torch.rand(3, 3, *size_px)
    targets = [
        {"boxes": torch.tensor([[10.0, 12, 30, 40], [50, 20, 95, 80]]), "labels": torch.tensor([0, 4])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
        {"boxes": torch.tensor([[5.0, 50, 17, 61]]), "labels": torch.tensor([2])},
    ]
    plain.train()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    plain.transform._skip_resize = True  # its resize to the same size would draw random numbers
    shifted = [{"boxes": t["boxes"], "labels": _shifted(architecture, t["labels"])} for t in targets]
    torch.manual_seed(0)
    expected = plain(list(images), shifted)
    losses = detector(images, targets).losses
    assert losses.keys() == expected.keys()
    for name, loss in expected.items():
        assert losses[name].item() == pytest.approx(loss.item(), rel=2e-4), name


@pytest.mark.parametrize("size_px", [(96, 128), (97, 131)])
def test_detections_equal_torchvisions(architecture, size_px):
    detector, plain = _pair(architecture, size_px)
    images = torch.rand(2, 3, *size_px)
    with torch.no_grad():
        expected = plain(list(images))
    for found, wanted in zip(detector.detect(images), expected):
        assert len(wanted["boxes"]) > 5
        torch.testing.assert_close(found["boxes"], wanted["boxes"], atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(found["scores"], wanted["scores"], atol=1e-5, rtol=1e-4)
        assert torch.equal(_shifted(architecture, found["labels"]), wanted["labels"])
        assert found["labels"].min() >= 0
        assert found["labels"].max() < 5


@pytest.mark.parametrize("architecture", ["fcos", "retinanet"])
def test_boxes_and_logits_equal_a_decoding_by_hand(architecture):
    """Anchor by anchor from the head's raw numbers, in Python floats."""
    detector, plain = _pair(architecture, (96, 128))
    images = torch.rand(2, 3, 96, 128)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        raw = plain.head(list(plain.backbone((images - mean.view(3, 1, 1)) / std.view(3, 1, 1)).values()))
        outputs = detector(images)
    torch.testing.assert_close(outputs.class_logits, raw["cls_logits"], atol=1e-4, rtol=1e-4)
    base = {"fcos": [(8.0, 8.0)], "retinanet": None}[architecture]
    if base is None:
        # base size 3 strides, three octave fractions, three ratios h / w; sizes and corners are rounded
        sides = [int(24 * 2 ** (third / 3)) for third in range(3)]
        half = [
            (round(side / math.sqrt(ratio) / 2), round(side * math.sqrt(ratio) / 2))
            for ratio in (0.5, 1.0, 2.0)
            for side in sides
        ]
        base = [(2.0 * w, 2.0 * h) for w, h in half]
    for row, column in [(0, 0), (3, 7), (11, 15)]:  # cells of p3, 12 x 16
        for index, (width, height) in enumerate(base):
            anchor = (row * 16 + column) * len(base) + index
            a, b, c, d = raw["bbox_regression"][1, anchor].tolist()
            x, y = 8.0 * column, 8.0 * row
            if architecture == "fcos":
                wanted = (x - a * width, y - b * height, x + c * width, y + d * height)
            else:
                cx, cy, w, h = x + a * width, y + b * height, width * math.exp(c), height * math.exp(d)
                wanted = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
            assert outputs.boxes[1, anchor].tolist() == pytest.approx(wanted, abs=1e-2)


@pytest.mark.parametrize(
    ("backbone", "size_px", "fpn_channels"),
    [
        (Backbone(blocks=(1, 2, 1, 1), width=12), (96, 128), 48),
        (Backbone(blocks=(1, 1, 1, 1), width=8), (400, 350), 64),
        (Backbone(name="resnet18"), (120, 160), 64),
    ],
    ids=["narrow", "large-layout", "official"],
)
def test_weights_load_in_the_written_script_of_pure_torchvision(
    architecture, backbone, size_px, fpn_channels, tmp_path, monkeypatch
):
    config = TorchvisionDetector(architecture=architecture, backbone=backbone, fpn_channels=fpn_channels)
    detector = _lively(build_detector(config, 5, size_px))
    torch.save(detector.plain_state_dict(), tmp_path / "student.pt")
    source = plain_torchvision_source(config, 5, size_px)
    assert "autokd" not in source
    assert max(map(len, source.splitlines())) <= 120
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(source, "rebuild.py", "exec"), names)
    model = names["model"].to(memory_format=detector.memory_format)
    assert not model.training
    image = torch.rand(3, *size_px)
    with torch.no_grad():
        (wanted,) = model([image])
    (found,) = detector.detect(image[None])
    assert len(wanted["boxes"]) > 3
    torch.testing.assert_close(found["boxes"], wanted["boxes"], atol=1e-2, rtol=1e-4)
    assert torch.equal(_shifted(architecture, found["labels"]), wanted["labels"])
