"""What every adapter of MMDetection promises, whatever its architecture."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import box_iou

from autokd.detectors import taps_of
from autokd.detectors.mmdet import mmdet_taps
from autokd.errors import DetectorError, NonFiniteError
from autokd.outputs import TAPS
from tests.support.mmdet_cases import ANCHORS_PER_CELL, DENSE, NUM_QUERIES, QUERY, STRIDES, TWO_STAGE, section

PADDED = {"detr": 1}
"""Multiples to which an input is padded, where it is not 32."""
UNCLIPPED = ("tood", "yolox")
"""MMDetection leaves their boxes reaching beyond the image; AP must be that of its own inference."""


def _shape(stride: int, size_px: tuple[int, int]) -> tuple[int, ...]:
    return tuple(-(-side // stride) for side in size_px)


def test_one_forward_gives_finite_losses_and_the_pyramid(name, make, images_BCHW, targets):
    detector = make(name)
    outputs = detector(images_BCHW, targets)
    assert tuple(outputs.strides.values()) == STRIDES[name] == tuple(detector.strides.values())
    assert list(outputs.pyramid) == [f"p{stride.bit_length() - 1}" for stride in STRIDES[name]]
    for level, map_BCHW in outputs.pyramid.items():
        assert map_BCHW.shape == (3, 16, *_shape(outputs.strides[level], (96, 128)))
    assert outputs.losses
    assert all(loss.ndim == 0 and loss.isfinite() for loss in outputs.losses.values())
    assert outputs.input_size_px == (96, 128)


def test_the_taps_are_those_declared(name, make, images_BCHW, targets):
    detector = make(name)
    assert detector(images_BCHW, targets, taps=TAPS).taps() == mmdet_taps(section(name)) == taps_of(section(name))
    assert detector(images_BCHW, taps=TAPS).taps() == mmdet_taps(section(name))


def test_taps_have_one_row_a_candidate(name, make, images_BCHW, targets):
    outputs = make(name)(images_BCHW, targets, taps=TAPS)
    assert outputs.proposals.shape == (3, 32, 4)
    if name in TWO_STAGE:
        assert outputs.class_logits is None
        return
    cells = sum(rows * columns for rows, columns in (_shape(stride, (96, 128)) for stride in STRIDES[name]))
    num_candidates = NUM_QUERIES if name in QUERY else cells * ANCHORS_PER_CELL[name]
    assert outputs.class_logits.shape == (3, num_candidates, 5)
    assert outputs.boxes.shape == (3, num_candidates, 4)
    assert outputs.boxes.isfinite().all()
    assert (outputs.boxes[..., 2:] >= outputs.boxes[..., :2]).all()
    if name == "gfl":
        assert outputs.edge_logits.shape == (3, num_candidates, 4, 9)


def test_taps_without_targets_are_those_with_targets(name, make, images_BCHW, targets):
    detector = make(name).eval()
    without, beside = detector(images_BCHW, taps=TAPS), detector(images_BCHW, targets, taps=TAPS)
    for level, map_BCHW in without.pyramid.items():
        torch.testing.assert_close(map_BCHW, beside.pyramid[level])
    if name == "dino":  # beside denoising queries the attention is computed in another order
        torch.testing.assert_close(without.boxes, beside.boxes, rtol=1e-3, atol=1e-2)
        return
    for tap in ("class_logits", "boxes", "edge_logits"):
        if getattr(without, tap) is not None:
            torch.testing.assert_close(getattr(without, tap), getattr(beside, tap))


def test_only_the_wanted_taps_are_given(name, make, images_BCHW, monkeypatch):
    detector = make(name).eval()

    def refuse(*_, **__):
        raise AssertionError("the head ran")

    head = detector.model.rpn_head if name in TWO_STAGE else detector.model.bbox_head
    monkeypatch.setattr(type(head), "forward", refuse)
    outputs = detector(images_BCHW, taps=("fpn",))
    assert outputs.taps() == ("fpn",)
    assert outputs.losses is None
    with pytest.raises(AssertionError, match="the head ran"):
        detector(images_BCHW, taps=("class_logits", "proposals"))


@pytest.mark.parametrize("size_px", [(70, 91), (64, 64)])
def test_odd_sizes_are_padded_and_never_resized(name, make, size_px):
    detector = make(name)
    images = torch.rand(2, 3, *size_px)
    targets = [{"boxes": torch.tensor([[4.0, 5.0, 40.0, 45.0]]), "labels": torch.tensor([1])}] * 2
    outputs = detector(images, targets)
    multiple = PADDED.get(name, 32)
    assert detector.pad_multiple_px == multiple
    padded = tuple(-(-side // multiple) * multiple for side in size_px)
    assert outputs.input_size_px == padded
    for level, map_BCHW in outputs.pyramid.items():
        assert tuple(map_BCHW.shape[-2:]) == _shape(outputs.strides[level], padded)
    assert outputs.task_loss.isfinite()
    for found in detector.detect(images):
        assert len(found["boxes"])
        limits = torch.tensor([size_px[1], size_px[0]] * 2)
        if name in UNCLIPPED:
            overlap = found["boxes"].clamp(min=0).minimum(limits)
            assert (overlap[:, 2:] >= overlap[:, :2]).all()
        else:
            assert (found["boxes"] >= 0).all()
            assert (found["boxes"] <= limits).all()


def test_detections_are_in_range_and_sorted(name, make, images_BCHW):
    for found in make(name).detect(images_BCHW):
        assert len(found["boxes"]) == len(found["scores"]) == len(found["labels"]) > 0
        assert ((found["labels"] >= 0) & (found["labels"] < 5)).all()
        assert ((found["scores"] >= 0) & (found["scores"] <= 1)).all()
        assert (found["scores"].diff() <= 0).all()


def test_a_single_image_trains(name, make, images_BCHW, targets):
    outputs = make(name).train()(images_BCHW[:1], targets[:1])
    outputs.task_loss.backward()
    assert outputs.task_loss.isfinite()


def test_images_without_boxes_give_a_finite_loss_and_gradient(name, make, images_BCHW, targets):
    detector = make(name).train()
    outputs = detector(images_BCHW, [targets[1]] * 3)
    outputs.task_loss.backward()
    assert outputs.task_loss.isfinite()
    gradients = [parameter.grad for parameter in detector.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_one_step_changes_the_weights_that_train(name, make, images_BCHW, targets):
    detector = make(name).train()
    before = {key: value.detach().clone() for key, value in detector.named_parameters()}
    optimiser = torch.optim.SGD(detector.parameters(), lr=0.1)
    detector(images_BCHW, targets).task_loss.backward()
    optimiser.step()
    changed = {key for key, value in detector.named_parameters() if not torch.equal(value, before[key])}
    assert any(key.startswith("model.backbone") for key in changed)
    assert any(key.startswith(("model.bbox_head", "model.roi_head.bbox_head")) for key in changed)
    assert not any("mask_head" in key for key in changed)


def test_taps_carry_gradient_to_the_backbone(name, make, images_BCHW):
    detector = make(name).train()
    with torch.no_grad():
        for parameter in detector.parameters():  # the last layers of query-based heads begin at zero
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    outputs = detector(images_BCHW, taps=TAPS)
    weight = next(p for key, p in detector.named_parameters() if "backbone" in key and p.requires_grad and p.ndim == 4)
    for tap in (*outputs.pyramid.values(), outputs.class_logits, outputs.boxes, outputs.edge_logits):
        if tap is not None:
            (gradient,) = torch.autograd.grad(tap.square().mean(), weight, retain_graph=True)
            assert gradient.isfinite().all()
            assert gradient.abs().sum() > 0
    assert outputs.proposals is None or not outputs.proposals.requires_grad


def test_evaluation_leaves_the_state_alone(name, make, images_BCHW, targets):
    detector = make(name).eval()
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    detector(images_BCHW, targets)
    detector.forward_and_detect(images_BCHW, targets)
    assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())
    assert not any(part.training for part in detector.modules())


def test_evaluation_losses_repeat_and_leave_the_random_state_alone(name, make, images_BCHW, targets):
    detector = make(name).eval()
    state = torch.get_rng_state()
    first = detector(images_BCHW, targets).losses
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    second = detector(images_BCHW, targets).losses
    assert {key: loss.item() for key, loss in first.items()} == {key: loss.item() for key, loss in second.items()}


def test_forward_and_detect_agrees_with_both(name, make, images_BCHW, targets):
    detector = make(name).train()
    outputs, found = detector.forward_and_detect(images_BCHW, targets)
    assert detector.training
    detector.eval()
    losses = detector(images_BCHW, targets).losses
    assert {key: loss.item() for key, loss in outputs.losses.items()} == {k: loss.item() for k, loss in losses.items()}
    for one, other in zip(found, detector.detect(images_BCHW)):
        assert all(torch.equal(one[key], other[key]) for key in ("boxes", "scores", "labels"))


def _or_blamed(run):
    """What it returns, or None where it says that the weights have run away; any other error is a bug."""
    try:
        return run()
    except NonFiniteError:
        return None


def test_diverged_weights_are_blamed_and_find_nothing(name, make, images_BCHW, targets):
    detector = make(name).train()
    with torch.no_grad():
        for parameter in detector.model.backbone.parameters():
            parameter.fill_(float("nan"))
    outputs = _or_blamed(lambda: detector(images_BCHW, targets))
    assert outputs is None or not outputs.task_loss.isfinite()
    detections = _or_blamed(lambda: detector.detect(images_BCHW))
    assert all(len(found["boxes"]) == 0 for found in detections or [])


def test_proposals_are_distinct_boxes_within_the_image(name, make, images_BCHW):
    proposals = make(name).eval()(images_BCHW, taps=("proposals",)).proposals
    is_box = proposals.isfinite().all(2)
    assert is_box[:, 0].all()
    assert (is_box.int().diff(dim=1) <= 0).all()
    for boxes, taken in zip(proposals, is_box):
        kept = boxes[taken]
        assert (kept >= 0).all()
        assert (kept <= torch.tensor([128.0, 96.0, 128.0, 96.0])).all()
        assert len(kept.unique(dim=0)) == len(kept)


def test_targets_stay_as_they_were(name, make, images_BCHW, targets):
    before = [{key: value.clone() for key, value in target.items()} for target in targets]
    make(name)(images_BCHW, targets)
    for target, old in zip(targets, before):
        assert all(torch.equal(target[key], old[key]) for key in old)


def test_equal_seeds_build_equal_detectors(name, make):
    torch.manual_seed(3)
    one = make(name).plain_state_dict()
    torch.manual_seed(3)
    other = make(name).plain_state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_half_precision_gives_float32_taps_and_finite_losses(name, make, images_BCHW, targets):
    detector = make(name).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = detector(images_BCHW, targets, taps=TAPS)
    taps = (outputs.class_logits, outputs.boxes, outputs.edge_logits, outputs.proposals, outputs.task_loss)
    for tap in (*outputs.pyramid.values(), *taps):
        assert tap is None or tap.dtype == torch.float32
    outputs.task_loss.backward()
    assert outputs.task_loss.isfinite()


def test_bad_input_is_refused(make, images_BCHW, targets):
    detector = make(DENSE[0])
    with pytest.raises(DetectorError, match="divide bytes by 255"):
        detector(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(DetectorError, match="2 targets were given for 3 images"):
        detector(images_BCHW, targets[:2])
    with pytest.raises(DetectorError, match="Did you mean 'class_logits'"):
        detector(images_BCHW, taps=("class_logit",))
    targets[2] = {"boxes": torch.tensor([[10.0, 10.0, 10.0, 20.0]]), "labels": torch.tensor([0])}
    with pytest.raises(DetectorError, match=r"targets\[2\]"):
        detector(images_BCHW, targets)


def test_every_tap_has_a_name_of_the_contract(name):
    assert set(mmdet_taps(section(name))) <= set(TAPS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gfl", "yolox", "faster_rcnn"])
def test_a_detector_learns_two_images_by_heart(name, make):
    images = torch.full((2, 3, 96, 128), 0.3)
    images[0, 0, 20:60, 30:80] = 1.0
    images[1, 2, 30:80, 50:90] = 1.0
    targets = [
        {"boxes": torch.tensor([[30.0, 20.0, 80.0, 60.0]]), "labels": torch.tensor([0])},
        {"boxes": torch.tensor([[50.0, 30.0, 90.0, 80.0]]), "labels": torch.tensor([1])},
    ]
    torch.manual_seed(0)
    detector = make(name).train()
    optimiser = torch.optim.AdamW([p for p in detector.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(150):
        loss = detector(images, targets, taps=("fpn",)).task_loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 10.0)
        optimiser.step()
    for found, target in zip(detector.detect(images), targets):
        assert found["labels"][0] == target["labels"][0]
        assert box_iou(found["boxes"][:1], target["boxes"]) > 0.6
