"""Proposals, maps inside the heads, and heads cut in two: what they hold, and that nothing else is computed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from autokd.config import TorchvisionDetector
from autokd.detector_outputs import TAPS
from autokd.detectors import taps_of
from autokd.detectors.proposals import NUM_PROPOSALS, best_boxes, stacked
from autokd.errors import DetectorError

DENSE = ("fcos", "retinanet")
SIZES_PX = [(96, 128), (97, 131), (33, 50), (480, 340)]


@pytest.fixture(params=DENSE)
def dense(request) -> str:
    return request.param


def _lively(detector):
    """Scores that differ from cell to cell, boxes that reach beyond the image."""
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if name.endswith(("cls_logits.weight", "bbox_reg.weight", "bbox_ctrness.weight", "bbox_pred.weight")):
                parameter.normal_(std=0.1)
            if name.endswith("bbox_reg.bias"):
                parameter.fill_(1.0)
    return detector


def _iou(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return common / (sum(areas) - common)


def _best_by_loops(boxes_A4, scores_A, size_px, threshold):
    """Greedy suppression among the best 256, box by box."""
    height, width = size_px
    limits = np.array([width, height, width, height])
    kept: list[np.ndarray] = []
    for index in np.argsort(-scores_A, kind="stable")[:256]:
        box = np.clip(boxes_A4[index], 0, limits)
        is_box = box[2] > box[0] and box[3] > box[1]
        if is_box and all(_iou(box, other) <= threshold for other in kept):
            kept.append(box)
    rows = np.full((NUM_PROPOSALS, 4), np.nan)
    rows[: len(kept[:NUM_PROPOSALS])] = np.array(kept[:NUM_PROPOSALS]).reshape(-1, 4)
    return rows


def test_the_configuration_tells_the_taps_that_a_forward_gives(architecture, make_detector, images_BCHW, targets):
    outputs = make_detector(architecture)(images_BCHW, targets, taps=TAPS)
    assert outputs.taps() == taps_of(TorchvisionDetector(architecture=architecture))


@pytest.mark.parametrize("tap", TAPS[1:])
def test_each_tap_comes_alone(architecture, make_detector, images_BCHW, tap):
    given = make_detector(architecture)(images_BCHW, taps=(tap,)).taps()
    wanted = ("fpn", tap) if tap in taps_of(TorchvisionDetector(architecture=architecture)) else ("fpn",)
    assert given == wanted


def test_taps_are_the_same_whatever_else_is_asked_for(dense, make_detector, images_BCHW, targets):
    detector = make_detector(dense).eval()
    together, alone = detector(images_BCHW, targets, taps=TAPS), detector(images_BCHW, taps=("class_logits", "boxes"))
    assert torch.equal(together.class_logits, alone.class_logits)
    assert torch.equal(together.boxes, alone.boxes)
    assert torch.equal(together.proposals, detector(images_BCHW, taps=("proposals",)).proposals)


# ----------------------------------------------------------------------------------------- proposals


@pytest.mark.parametrize("size_px", SIZES_PX)
def test_proposals_of_dense_detectors_equal_a_search_box_by_box(dense, make_detector, size_px):
    detector = _lively(make_detector(dense, image_size_px=size_px)).eval()
    images = torch.rand(2, 3, *size_px)
    outputs = detector(images, taps=("class_logits", "boxes", "proposals"))
    scores_BA = 1 / (1 + np.exp(-outputs.class_logits.detach().double().numpy().max(2)))
    if dense == "fcos":
        with torch.no_grad():
            centerness = detector.model.head(list(outputs.pyramid.values()))["bbox_ctrness"]
        scores_BA = np.sqrt(scores_BA / (1 + np.exp(-centerness.double().numpy()[..., 0])))
    for index in range(2):
        wanted = _best_by_loops(
            outputs.boxes[index].detach().double().numpy(),
            scores_BA[index],
            size_px,
            {"fcos": 0.6, "retinanet": 0.5}[dense],
        )
        np.testing.assert_allclose(outputs.proposals[index].numpy(), wanted, atol=1e-3)
        assert np.isfinite(wanted[:5]).all()


def test_proposals_of_two_stages_are_the_best_of_the_first(make_detector, images_BCHW):
    detector = _lively(make_detector("faster_rcnn")).eval()
    outputs = detector(images_BCHW, taps=("proposals",))
    with torch.no_grad():
        # torchvision's own first stage, on the same maps
        from torchvision.models.detection.image_list import ImageList

        images = ImageList(detector.normalize_and_pad(images_BCHW), [(96, 128)] * 3)
        wanted, _ = detector.model.rpn(images, dict(outputs.pyramid))
    for found, boxes in zip(outputs.proposals, wanted):
        number = min(len(boxes), NUM_PROPOSALS)
        assert number > 10
        torch.testing.assert_close(found[:number], boxes[:number], atol=1e-3, rtol=1e-4)
        assert found[number:].isnan().all()


def test_proposals_lie_in_the_image_without_gradient_and_repeat(architecture, make_detector):
    detector = _lively(make_detector(architecture, image_size_px=(97, 131))).train()
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    images = torch.rand(2, 3, 97, 131)
    proposals = detector(images, taps=("proposals",)).proposals
    assert proposals.shape == (2, NUM_PROPOSALS, 4)
    assert not proposals.requires_grad
    boxes = proposals[~proposals.isnan().any(2)]
    assert len(boxes) > 10
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([131.0, 97.0, 131.0, 97.0])).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    again = detector(images, taps=("proposals",)).proposals
    assert torch.equal(proposals.nan_to_num(-1), again.nan_to_num(-1))


def test_diverged_weights_propose_nothing(architecture, make_detector, images_BCHW):
    detector = make_detector(architecture)
    with torch.no_grad():
        detector.model.backbone.body.conv1.weight[0] = float("nan")
    assert detector(images_BCHW, taps=("proposals",)).proposals.isnan().all()


def test_empty_boxes_are_no_proposals_and_an_image_may_have_none():
    boxes = torch.tensor([[[5.0, 5, 5, 9], [0, 0, 8, 8]], [[-9.0, -9, -2, -2], [99, 99, 120, 120]]])
    found = best_boxes(boxes, torch.tensor([[0.9, 0.1], [0.9, 0.8]]), (32, 32), 0.5)
    assert found[0, 0].tolist() == [0, 0, 8, 8]
    assert found[0, 1:].isnan().all()
    assert found[1].isnan().all()


def test_lists_of_boxes_are_cut_and_padded():
    many = torch.arange(40.0)[:, None].expand(-1, 4)
    found = stacked([many[:2], many[:0], many])
    assert found[0, :2, 0].tolist() == [0, 1]
    assert found[0, 2:].isnan().all()
    assert found[1].isnan().all()
    assert found[2, :, 0].tolist() == list(range(NUM_PROPOSALS))


# ------------------------------------------------------------------------------- heads cut in two


@pytest.mark.parametrize("head_convs", [1, 2, 4])
@pytest.mark.parametrize("size_px", [(96, 128), (97, 131), (400, 340)])
def test_a_head_cut_in_two_gives_the_detectors_own_taps(dense, make_detector, head_convs, size_px):
    detector = _lively(make_detector(dense, image_size_px=size_px, head_convs=head_convs)).eval()
    outputs = detector(torch.rand(2, 3, *size_px), taps=TAPS)
    head_maps = outputs.head.begin(outputs.pyramid)
    class_logits, boxes = outputs.head.finish(head_maps, outputs.input_size_px)
    torch.testing.assert_close(class_logits, outputs.class_logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(boxes, outputs.boxes, atol=1e-3, rtol=1e-5)
    assert list(outputs.head_maps) == list(head_maps) == list(outputs.pyramid)
    for level, maps in outputs.head_maps.items():
        for found, wanted in zip(maps, head_maps[level]):
            torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_the_maps_at_the_cut_are_all_blocks_but_the_last_and_an_activation(dense, make_detector, images_BCHW):
    """CrossKD's released code holds the map of the last block but one before its ReLU, and aligns it there."""
    detector = make_detector(dense, head_convs=3).eval()
    outputs = detector(images_BCHW, taps=("head_maps",))
    head = detector.model.head
    for level, map_BCHW in outputs.pyramid.items():
        for branch, found in zip((head.classification_head, head.regression_head), outputs.head_maps[level]):
            layers = [layer for layer in branch.conv.modules() if not list(layer.children())]
            convolutions = [i for i, layer in enumerate(layers) if isinstance(layer, torch.nn.Conv2d)]
            wanted = map_BCHW
            for layer in layers[: convolutions[-1] - 1]:
                wanted = layer(wanted)
            assert isinstance(layers[convolutions[-1] - 1], torch.nn.ReLU)
            torch.testing.assert_close(found, wanted)
            assert (found < 0).any()


def test_a_frozen_head_leaves_the_maps_that_it_is_given_as_they_are(dense, make_detector, images_BCHW):
    outputs = make_detector(dense, head_convs=3).eval()(images_BCHW, taps=TAPS)
    before = {level: [tap.clone() for tap in maps] for level, maps in outputs.head_maps.items()}
    outputs.head.finish(outputs.head_maps, outputs.input_size_px)
    for level, maps in outputs.head_maps.items():
        assert all(torch.equal(tap, kept) for tap, kept in zip(maps, before[level]))


def test_with_one_convolution_the_maps_at_the_cut_are_the_pyramid(dense, make_detector, images_BCHW):
    outputs = make_detector(dense, head_convs=1)(images_BCHW, taps=("head_maps",))
    for level, (class_map, box_map) in outputs.head_maps.items():
        assert class_map is outputs.pyramid[level]
        assert box_map is outputs.pyramid[level]


def test_gradient_flows_through_the_frozen_head_into_the_maps_alone(dense, make_detector, images_BCHW):
    teacher, student = make_detector(dense).train(), make_detector(dense).train()
    outputs = student(images_BCHW, taps=("head_maps",))
    head = teacher(images_BCHW, taps=("head",)).head
    class_logits, boxes = head.finish(outputs.head_maps, outputs.input_size_px)
    (class_logits.square().mean() + boxes.square().mean()).backward()
    assert student.model.backbone.body.conv1.weight.grad.abs().sum() > 0
    for branch in (student.model.head.classification_head, student.model.head.regression_head):
        assert next(branch.conv.parameters()).grad.abs().sum() > 0  # of the first block, before the cut
        assert list(branch.conv.parameters())[-1].grad is None
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(not p.requires_grad and p.grad is None for p in head.parameters())


def test_a_frozen_head_is_a_copy_of_the_head_alone_and_stays_in_evaluation_mode(dense, make_detector, images_BCHW):
    detector = make_detector(dense).train()
    head = detector.cross_head()
    number = sum(parameter.numel() for parameter in detector.model.head.parameters())
    assert sum(parameter.numel() for parameter in head.parameters()) == number
    pyramid = {name: tap.detach() for name, tap in detector.eval()(images_BCHW, taps=("fpn",)).pyramid.items()}
    before = head.finish(head.begin(pyramid), (96, 128))
    parent = torch.nn.Sequential(head).train()
    assert parent.training
    assert not any(module.training for module in head.modules())
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.add_(1.0)
    after = head.finish(head.begin(pyramid), (96, 128))
    assert all(torch.equal(one, other) for one, other in zip(before, after))


def test_the_tap_is_made_once_and_anew_only_when_the_weights_change(dense, make_detector, images_BCHW):
    detector = make_detector(dense).eval()
    names = list(detector.state_dict())
    first = detector(images_BCHW, taps=("head",)).head
    assert detector(images_BCHW, taps=("head",)).head is first
    assert list(detector.state_dict()) == names
    detector.load_state_dict({name: value + 0.1 for name, value in detector.state_dict().items()})
    changed = detector(images_BCHW, taps=TAPS)
    assert changed.head is not first
    class_logits, _ = changed.head.finish(changed.head_maps, (96, 128))
    torch.testing.assert_close(class_logits, changed.class_logits, atol=1e-4, rtol=1e-4)
    assert copy.deepcopy(detector)(images_BCHW, taps=("head",)).head is not changed.head


def test_the_heads_rest_when_a_frozen_copy_is_all_that_is_wanted(dense, make_detector, images_BCHW, monkeypatch):
    detector = make_detector(dense)

    def refuse(*_):
        raise AssertionError("the head ran")

    monkeypatch.setattr(detector, "_predict", refuse)
    assert detector(images_BCHW, taps=("head",)).head is not None
    for tap in ("proposals", "head_maps"):
        with pytest.raises(AssertionError, match="the head ran"):
            detector(images_BCHW, taps=(tap,))


def test_hooks_are_gone_after_a_forward(dense, make_detector, images_BCHW):
    detector = make_detector(dense)
    detector(images_BCHW, taps=("head_maps",))
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in detector.modules())


def test_half_precision_gives_float32_taps_of_every_kind(dense, make_detector, images_BCHW):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = make_detector(dense, head_convs=3)(images_BCHW, taps=TAPS)
    maps = [tap for pair in outputs.head_maps.values() for tap in pair]
    assert {tap.dtype for tap in (*maps, outputs.proposals)} == {torch.float32}


def test_maps_of_other_levels_or_sizes_are_refused(dense, make_detector, images_BCHW):
    detector = make_detector(dense)
    outputs = detector(images_BCHW, taps=("head_maps", "head"))
    without = {level: maps for level, maps in outputs.head_maps.items() if level != "p5"}
    with pytest.raises(DetectorError, match=r"levels p3, p4, p5 and got p3, p4\."):
        outputs.head.finish(without, (96, 128))
    with pytest.raises(DetectorError, match=r"\(12, 16\) cells at p3; for an input of \(64, 128\) pixels at stride 8"):
        outputs.head.finish(outputs.head_maps, (64, 128))


def test_two_stages_have_no_head_to_cut(make_detector):
    with pytest.raises(DetectorError, match=r"faster_rcnn has no dense head .* Take fcos or retinanet"):
        make_detector("faster_rcnn").cross_head()
