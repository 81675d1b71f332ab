"""The frozen half of a dense head: what it says of the detector's own maps, and of another's."""

from __future__ import annotations

import pytest
import torch

from autokd.detector_outputs import TAPS
from autokd.detectors.mmdet import mmdet_taps
from autokd.detectors.mmdet.cross_head import CUT_HEADS
from autokd.errors import DetectorError
from tests.support.mmdet_cases import section

CUT = ("retinanet", "fcos", "atss", "gfl", "reppoints")
TWO_BLOCKS = {"options": {"model.bbox_head.stacked_convs": 2}}


def test_every_head_that_can_be_cut_is_tried():
    assert len(CUT) == len(CUT_HEADS)
    assert all("head" in mmdet_taps(section(name)) for name in CUT)


@pytest.mark.parametrize("settings", [{}, TWO_BLOCKS], ids=["one block", "two blocks"])
@pytest.mark.parametrize("name", CUT)
def test_a_head_says_of_its_own_maps_what_the_detector_says(name, settings, make, images_BCHW, targets):
    detector = make(name, **settings).eval()
    for outputs in (detector(images_BCHW, taps=TAPS), detector(images_BCHW, targets, taps=TAPS)):
        class_logits, boxes = outputs.head.finish(outputs.head_maps, outputs.input_size_px)
        torch.testing.assert_close(class_logits, outputs.class_logits)
        torch.testing.assert_close(boxes, outputs.boxes)
        for level, begun in outputs.head.begin(outputs.pyramid).items():
            for one, other in zip(begun, outputs.head_maps[level]):
                torch.testing.assert_close(one, other)
                assert settings or torch.equal(one, outputs.pyramid[level])


@pytest.mark.parametrize("name", CUT)
def test_the_maps_at_the_cut_come_before_an_activation(name, make, images_BCHW):
    """CrossKD's released code holds the last block but one without its activation, aligns it, then activates."""
    detector = make(name, **TWO_BLOCKS).eval()
    outputs = detector(images_BCHW, taps=TAPS)
    head = detector.model.bbox_head
    kept = {level: [tap.clone() for tap in maps] for level, maps in outputs.head_maps.items()}
    for level, map_BCHW in outputs.pyramid.items():
        for branch, found in zip((head.cls_convs, head.reg_convs), outputs.head_maps[level]):
            block = branch[0]
            wanted = block.conv(map_BCHW)
            wanted = block.norm(wanted) if block.with_norm else wanted
            torch.testing.assert_close(found, wanted)
            assert (found < 0).any()
    outputs.head.finish(outputs.head_maps, outputs.input_size_px)
    for level, maps in outputs.head_maps.items():
        assert all(torch.equal(tap, before) for tap, before in zip(maps, kept[level]))


@pytest.mark.parametrize("name", CUT)
def test_the_frozen_head_teaches_maps_and_learns_nothing(name, make, images_BCHW, targets):
    teacher, student = make(name, **TWO_BLOCKS).eval(), make(name, **TWO_BLOCKS).train()
    head = teacher(images_BCHW, taps=("head",)).head
    head.train()
    outputs = student(images_BCHW, targets, taps=("head_maps",))
    class_logits, boxes = head.finish(outputs.head_maps, outputs.input_size_px)
    (class_logits.sum() + boxes.sum()).backward()
    assert not any(parameter.requires_grad for parameter in head.parameters())
    assert student.model.bbox_head.cls_convs[0].conv.weight.grad.abs().sum() > 0
    assert student.model.bbox_head.reg_convs[0].conv.weight.grad.abs().sum() > 0


def test_the_head_is_copied_once_until_its_weights_change(make, images_BCHW):
    detector = make("retinanet").eval()
    first = detector(images_BCHW, taps=("head",)).head
    assert detector(images_BCHW, taps=("head",)).head is first
    with torch.no_grad():
        detector.model.bbox_head.retina_cls.bias.add_(1)
    assert detector(images_BCHW, taps=("head",)).head is not first
    assert not any("_kept_head" in key for key in detector.state_dict())


def test_maps_of_other_levels_or_sizes_are_refused(make, images_BCHW):
    outputs = make("fcos").eval()(images_BCHW, taps=TAPS)
    some = {level: maps for level, maps in outputs.head_maps.items() if level != "p7"}
    with pytest.raises(DetectorError, match="takes maps of the levels p3, p4, p5, p6, p7"):
        outputs.head.finish(some, outputs.input_size_px)
    with pytest.raises(DetectorError, match="at p3; for an input of"):
        outputs.head.finish(outputs.head_maps, (192, 128))


def test_a_detector_without_such_a_head_says_so(make):
    with pytest.raises(DetectorError, match="no dense head that could read"):
        make("faster_rcnn").cross_head()
