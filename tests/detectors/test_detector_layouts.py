"""Levels, anchors and backbones."""

from __future__ import annotations

import pytest
import torch

from autokd.config import Backbone, TorchvisionDetector
from autokd.detectors import build_detector, choose_layout, describe
from autokd.detectors.torchvision.bodies import NarrowResNet
from autokd.detectors.torchvision.plain import num_groups
from autokd.errors import DetectorError


def test_large_images_get_the_levels_and_anchors_of_the_papers():
    fcos = choose_layout("fcos", (480, 640))
    assert list(fcos.strides.items()) == [("p3", 8), ("p4", 16), ("p5", 32), ("p6", 64), ("p7", 128)]
    assert fcos.anchor_sizes_px == ((8,), (16,), (32,), (64,), (128,))
    retinanet = choose_layout("retinanet", (480, 640))
    assert retinanet.anchor_sizes_px[0] == (32, 40, 50)
    assert retinanet.num_anchors_per_cell == 9
    faster = choose_layout("faster_rcnn", (480, 640))
    assert list(faster.strides.values()) == [4, 8, 16, 32, 64]
    assert faster.anchor_sizes_px == ((32,), (64,), (128,), (256,), (512,))


@pytest.mark.parametrize("size_px", [(96, 96), (120, 160), (320, 320)])
@pytest.mark.parametrize("architecture", ["fcos", "retinanet", "faster_rcnn"])
def test_small_images_pad_to_no_more_than_32_and_keep_several_cells_on_each_level(architecture, size_px):
    layout = choose_layout(architecture, size_px)
    assert layout.pad_multiple_px == 32
    assert all(min(size_px) // stride >= 3 for stride in layout.strides.values())
    assert len(layout.anchor_sizes_px) == len(layout.levels)


def test_anchors_of_small_images_meet_boxes_up_to_64_px():
    """Each square box of the sizes in use has, at the best position, an anchor of IoU 0.4 or more."""
    for architecture, smallest in (("retinanet", 16), ("faster_rcnn", 8)):
        sizes = [size for level in choose_layout(architecture, (96, 96)).anchor_sizes_px for size in level]
        for box in range(smallest, 65):
            assert max(min(box, size) ** 2 / max(box, size) ** 2 for size in sizes) >= 0.4


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_official_backbones_build_without_a_download(name):
    config = TorchvisionDetector(backbone=Backbone(name=name))
    detector = build_detector(config, 3, (64, 64))
    outputs = detector(torch.rand(1, 3, 64, 64), taps=("fpn",))
    assert outputs.pyramid["p3"].shape == (1, 64, 8, 8)
    assert describe(detector).num_parameters > 11e6


def test_a_narrow_resnet_has_the_parameters_of_torchvisions_at_width_64():
    from torchvision.models import resnet18

    official = {k: v.shape for k, v in resnet18(weights=None).state_dict().items() if not k.startswith("fc.")}
    assert {k: v.shape for k, v in NarrowResNet((2, 2, 2, 2), 64).state_dict().items()} == official


def test_a_narrow_resnet_of_width_64_computes_what_torchvisions_does():
    from torchvision.models import resnet18

    official = resnet18(weights=None).eval()
    narrow = NarrowResNet((2, 2, 2, 2), 64).eval()
    narrow.load_state_dict({k: v for k, v in official.state_dict().items() if not k.startswith("fc.")})
    official.avgpool, official.fc = torch.nn.Identity(), torch.nn.Identity()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(narrow(images).flatten(1), official(images))


@pytest.mark.parametrize("head_convs", [1, 2, 6])
def test_each_branch_of_a_head_has_the_chosen_number_of_convolutions(architecture, make_detector, head_convs):
    names = make_detector(architecture, head_convs=head_convs).plain_state_dict()
    branches = {
        "fcos": ["head.classification_head.conv.", "head.regression_head.conv."],
        "retinanet": ["head.classification_head.conv.", "head.regression_head.conv."],
        "faster_rcnn": ["rpn.head.conv."],
    }[architecture]
    for branch in branches:
        assert sum(name.startswith(branch) and value.ndim == 4 for name, value in names.items()) == head_convs


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (64, 8), (48, 6), (20, 2), (7, 1), (13, 1), (100, 10)])
def test_groups_divide_the_channels_into_about_eight_each(channels, groups):
    assert num_groups(channels) == groups
    assert channels % groups == 0


def test_any_number_of_pyramid_channels_builds(architecture, make_detector, images_BCHW):
    assert make_detector(architecture, fpn_channels=20).detect(images_BCHW) is not None


def test_sides_of_boxes_start_where_they_are_told_and_nothing_else_changes():
    detectors = []
    for start in (0.0, 1.0):
        torch.manual_seed(0)
        detectors.append(build_detector(TorchvisionDetector(box_init=start), 3, (128, 128)))
    plain, started = (detector.state_dict() for detector in detectors)
    assert [name for name in plain if not torch.equal(plain[name], started[name])] == [
        "model.head.regression_head.bbox_reg.bias"
    ]
    images_BCHW = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    strides = torch.cat([torch.full(((128 // stride) ** 2,), stride) for stride in (8, 16, 32)])
    sizes = []
    for detector in detectors:
        with torch.no_grad():
            boxes_BA4 = detector(images_BCHW, taps=("fpn", "boxes")).boxes
        sizes.append((boxes_BA4[..., 2:] - boxes_BA4[..., :2]) / (2 * strides[:, None]))
    assert float(sizes[0].mean()) < 0.2
    # The last convolution's weights have a deviation of 0.01 over 64 x 3 x 3 inputs of about 1: up to 0.24 a side.
    assert float(sizes[1].mean()) == pytest.approx(1.0, abs=0.1)
    assert float(sizes[1].min()) > 0.2


def test_no_classes_are_refused():
    with pytest.raises(DetectorError, match="num_classes is 0"):
        build_detector(TorchvisionDetector(), 0, (96, 96))
