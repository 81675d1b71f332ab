"""What every adapter promises, whatever its architecture."""

from __future__ import annotations

import pytest
import torch

from autokd.detectors import describe
from autokd.detectors.contract import DEFAULT_TAPS
from autokd.errors import DetectorError

LEVELS = {"fcos": ["p3", "p4", "p5"], "retinanet": ["p3", "p4", "p5"], "faster_rcnn": ["p2", "p3", "p4", "p5"]}
ANCHORS_PER_CELL = {"fcos": 1, "retinanet": 9}


def _batch_norms(detector):
    return [module for module in detector.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def test_one_forward_gives_finite_losses_and_taps(architecture, make_detector, images_BCHW, targets):
    detector = make_detector(architecture)
    outputs = detector(images_BCHW, targets)
    assert list(outputs.pyramid) == LEVELS[architecture] == list(detector.level_names)
    for level, map_BCHW in outputs.pyramid.items():
        stride = 2 ** int(level[1])
        assert outputs.strides[level] == stride
        assert map_BCHW.shape == (3, 32, 96 // stride, 128 // stride)
    assert outputs.losses
    assert all(loss.ndim == 0 and loss.isfinite() for loss in outputs.losses.values())
    assert outputs.input_size_px == (96, 128)


def test_dense_taps_have_one_row_an_anchor(architecture, make_detector, images_BCHW, targets):
    outputs = make_detector(architecture)(images_BCHW, targets)
    if architecture == "faster_rcnn":
        assert outputs.taps() == ("fpn",)
        return
    num_cells = 12 * 16 + 6 * 8 + 3 * 4
    num_anchors = num_cells * ANCHORS_PER_CELL[architecture]
    assert outputs.class_logits.shape == (3, num_anchors, 5)
    assert outputs.boxes.shape == (3, num_anchors, 4)
    assert outputs.taps() == DEFAULT_TAPS


def test_only_the_wanted_taps_are_given(architecture, make_detector, images_BCHW):
    detector = make_detector(architecture).eval()
    outputs = detector(images_BCHW, taps=("fpn",))
    assert outputs.taps() == ("fpn",)
    assert outputs.losses is None
    assert outputs.task_loss is None


def test_the_heads_rest_when_only_the_pyramid_is_wanted(architecture, make_detector, images_BCHW, monkeypatch):
    detector = make_detector(architecture)

    def refuse(*_):
        raise AssertionError("the head ran")

    monkeypatch.setattr(detector, "_predict", refuse)
    assert detector(images_BCHW, taps=("fpn",)).pyramid
    with pytest.raises(AssertionError, match="the head ran"):
        detector(images_BCHW, taps=("class_logits",))


@pytest.mark.parametrize("size_px", [(97, 131), (33, 50), (64, 64)])
def test_odd_sizes_are_padded_and_never_resized(architecture, make_detector, size_px):
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


def test_a_single_image_trains(architecture, make_detector, images_BCHW, targets):
    detector = make_detector(architecture).train()
    outputs = detector(images_BCHW[:1], targets[:1])
    outputs.task_loss.backward()
    assert outputs.task_loss.isfinite()


def test_images_without_boxes_give_a_finite_loss_and_gradient(architecture, make_detector, images_BCHW, targets):
    detector = make_detector(architecture).train()
    empty = [targets[1]] * 3
    outputs = detector(images_BCHW, empty)
    outputs.task_loss.backward()
    assert outputs.task_loss.isfinite()
    gradients = [p.grad for p in detector.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_the_losses_reach_every_parameter(architecture, make_detector, images_BCHW, targets):
    detector = make_detector(architecture).train()
    detector(images_BCHW, targets).task_loss.backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
    assert detector.model.backbone.body.conv1.weight.grad.abs().sum() > 0


def test_taps_carry_gradient_to_the_backbone(architecture, make_detector, images_BCHW):
    detector = make_detector(architecture).train()
    outputs = detector(images_BCHW)
    taps = [*outputs.pyramid.values(), outputs.class_logits, outputs.boxes]
    for tap in taps:
        if tap is not None:
            weight = detector.model.backbone.body.conv1.weight
            (gradient,) = torch.autograd.grad(tap.square().mean(), weight, retain_graph=True)
            assert gradient.isfinite().all()
            assert gradient.abs().sum() > 0


def test_evaluation_losses_leave_batch_statistics_alone(architecture, make_detector, images_BCHW, targets):
    detector = make_detector(architecture).eval()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    detector(images_BCHW, targets)
    detector.detect(images_BCHW)
    detector.forward_and_detect(images_BCHW, targets)
    for name, value in detector.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_evaluation_losses_repeat_and_leave_the_random_state_alone(architecture, make_detector, images_BCHW, targets):
    detector = make_detector(architecture).eval()
    state = torch.get_rng_state()
    first = detector(images_BCHW, targets).losses
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    second = detector(images_BCHW, targets).losses
    assert {name: loss.item() for name, loss in first.items()} == {n: loss.item() for n, loss in second.items()}


def test_detect_works_in_training_mode_and_restores_each_modules_mode(architecture, make_detector, images_BCHW):
    detector = make_detector(architecture).train()
    frozen = _batch_norms(detector)[0].eval()
    before = [module.running_mean.clone() for module in _batch_norms(detector)]
    detector.detect(images_BCHW)
    assert detector.training
    assert not frozen.training
    assert _batch_norms(detector)[1].training
    assert all(torch.equal(m.running_mean, mean) for m, mean in zip(_batch_norms(detector), before))


def test_forward_and_detect_agrees_with_both(architecture, make_detector, images_BCHW, targets):
    detector = make_detector(architecture).eval()
    outputs, found = detector.forward_and_detect(images_BCHW, targets)
    assert {n: v.item() for n, v in outputs.losses.items()} == {
        n: v.item() for n, v in detector(images_BCHW, targets).losses.items()
    }
    for one, other in zip(found, detector.detect(images_BCHW)):
        assert all(torch.equal(one[name], other[name]) for name in ("boxes", "scores", "labels"))


def test_diverged_weights_give_a_loss_that_is_nan_and_no_exception(architecture, make_detector, images_BCHW, targets):
    detector = make_detector(architecture).train()
    with torch.no_grad():
        detector.model.backbone.body.conv1.weight[0] = float("nan")
    assert detector(images_BCHW, targets).task_loss.isnan()
    assert all(len(found["boxes"]) == 0 for found in detector.detect(images_BCHW))


def test_targets_stay_as_they_were(architecture, make_detector, images_BCHW, targets):
    before = [{name: value.clone() for name, value in target.items()} for target in targets]
    make_detector(architecture)(images_BCHW, targets)
    for target, old in zip(targets, before):
        assert target.keys() == old.keys()
        assert all(torch.equal(target[name], old[name]) for name in old)


def test_equal_seeds_build_equal_detectors(architecture, make_detector):
    torch.manual_seed(3)
    one = make_detector(architecture).plain_state_dict()
    torch.manual_seed(3)
    other = make_detector(architecture).plain_state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_half_precision_gives_float32_taps_and_finite_losses(architecture, make_detector, images_BCHW, targets):
    detector = make_detector(architecture).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = detector(images_BCHW, targets)
    for tap in (*outputs.pyramid.values(), outputs.class_logits, outputs.boxes, outputs.task_loss):
        assert tap is None or tap.dtype == torch.float32
    outputs.task_loss.backward()
    assert outputs.task_loss.isfinite()


def test_description_counts_what_the_model_has(architecture, make_detector):
    detector = make_detector(architecture)
    description = describe(detector)
    assert description.num_parameters == sum(p.numel() for p in detector.model.parameters())
    assert list(description.levels) == LEVELS[architecture]
    assert description.channels == 32
    assert "p5 (stride 32)" in str(description)


def test_bad_images_are_refused(architecture, make_detector):
    detector = make_detector(architecture)
    with pytest.raises(DetectorError, match="divide bytes by 255"):
        detector(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(DetectorError, match="Collate"):
        detector(torch.zeros(3, 64, 64))


@pytest.mark.parametrize(
    ("box", "label", "said"),
    [
        ([10.0, 10.0, 10.0, 20.0], 0, "Drop degenerate boxes"),
        ([10.0, float("nan"), 20.0, 20.0], 0, "Drop degenerate boxes"),
        ([10.0, 10.0, 20.0, 20.0], 5, "one of 0..4"),
        ([10.0, 10.0, 20.0, 20.0], -1, "one of 0..4"),
    ],
)
def test_bad_targets_are_refused_with_their_image(make_detector, images_BCHW, targets, box, label, said):
    targets[2] = {"boxes": torch.tensor([box]), "labels": torch.tensor([label])}
    with pytest.raises(DetectorError, match=r"targets\[2\]") as caught:
        make_detector()(images_BCHW, targets)
    assert said in str(caught.value)


def test_a_missing_target_and_an_unknown_tap_are_refused(make_detector, images_BCHW, targets):
    detector = make_detector()
    with pytest.raises(DetectorError, match="2 targets were given for 3 images"):
        detector(images_BCHW, targets[:2])
    with pytest.raises(DetectorError, match="Did you mean 'class_logits'"):
        detector(images_BCHW, taps=("class_logit",))
    targets[0]["labels"] = targets[0]["labels"][:1]
    with pytest.raises(DetectorError, match=r"targets\[0\] has boxes of shape \(2, 4\) and 1 labels"):
        detector(images_BCHW, targets)
