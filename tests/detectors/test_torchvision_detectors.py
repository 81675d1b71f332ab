"""What torchvision's adapters promise beyond the suite of all frameworks: levels, anchors, and where losses reach."""

from __future__ import annotations

import pytest
import torch

from autokd.detector_outputs import TAPS

LEVELS = {"fcos": ["p3", "p4", "p5"], "retinanet": ["p3", "p4", "p5"], "faster_rcnn": ["p2", "p3", "p4", "p5"]}
ANCHORS_PER_CELL = {"fcos": 1, "retinanet": 9}


def test_small_images_have_the_levels_of_their_family(architecture, make_detector, images_BCHW, targets):
    outputs = make_detector(architecture)(images_BCHW, targets)
    assert list(outputs.pyramid) == LEVELS[architecture]
    for level, map_BCHW in outputs.pyramid.items():
        assert outputs.strides[level] == 2 ** int(level[1])
        assert map_BCHW.shape[1] == 32


def test_dense_taps_have_one_row_an_anchor(architecture, make_detector, images_BCHW):
    outputs = make_detector(architecture)(images_BCHW, taps=TAPS)
    if architecture == "faster_rcnn":
        assert outputs.taps() == ("fpn", "proposals")
        return
    num_cells = 12 * 16 + 6 * 8 + 3 * 4
    assert outputs.class_logits.shape == (3, num_cells * ANCHORS_PER_CELL[architecture], 5)


def test_the_losses_reach_every_parameter(architecture, make_detector, images_BCHW, targets):
    detector = make_detector(architecture).train()
    detector(images_BCHW, targets).task_loss.backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
    assert detector.model.backbone.body.conv1.weight.grad.abs().sum() > 0


def test_one_diverged_channel_is_enough_for_a_loss_that_is_nan(architecture, make_detector, images_BCHW, targets):
    detector = make_detector(architecture).train()
    detector.model.backbone.body.conv1.weight.data[0] = float("nan")
    assert detector(images_BCHW, targets).task_loss.isnan()
    assert all(len(found["boxes"]) == 0 for found in detector.detect(images_BCHW))


@pytest.mark.parametrize("size_px", [(97, 131), (33, 50)])
def test_sizes_just_beyond_a_multiple_are_padded(architecture, make_detector, size_px):
    detector = make_detector(architecture, image_size_px=size_px)
    images = torch.rand(2, 3, *size_px)
    targets = [{"boxes": torch.tensor([[4.0, 5.0, 20.0, 25.0]]), "labels": torch.tensor([1])}] * 2
    outputs = detector(images, targets)
    padded = tuple(-(-side // 32) * 32 for side in size_px)
    assert outputs.input_size_px == padded
    for level, map_BCHW in outputs.pyramid.items():
        assert tuple(map_BCHW.shape[-2:]) == tuple(side // outputs.strides[level] for side in padded)
    assert outputs.task_loss.isfinite()
    for found in detector.detect(images):
        assert (found["boxes"] >= 0).all()
        assert (found["boxes"][:, 2:] <= torch.tensor([size_px[1], size_px[0]])).all()
