"""Losses, their gradients, taps and detections against MMDetection's own, which knows nothing of the adapters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autokd.detectors.mmdet import resolve_config
from tests.support.mmdet_cases import DENSE, NUM_CLASSES, QUERY, TWO_STAGE, section

PIPELINE = [
    dict(type="mmdet.LoadImageFromNDArray"),
    dict(type="mmdet.Resize", scale=(120, 90), keep_ratio=True),  # states a scale of 1
    dict(type="mmdet.PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]


def _samples(targets, size_px):
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    samples = []
    for target in targets:
        about = {"img_shape": size_px, "ori_shape": size_px, "scale_factor": (1.0, 1.0)}
        sample = DetDataSample(metainfo=about)
        sample.gt_instances = InstanceData(bboxes=target["boxes"], labels=target["labels"])
        samples.append(sample)
    return samples


def _own_pass(model, images_BCHW, targets, name):
    """Total loss of ``model.loss`` and the maps that its heads saw, from BGR images as a dataloader lists them."""
    bgr = [image[[2, 1, 0]] * 255 for image in images_BCHW]
    data = model.data_preprocessor({"inputs": bgr, "data_samples": _samples(targets, tuple(images_BCHW.shape[-2:]))})
    heard = []
    part = model.encoder if name in QUERY else model.neck
    handle = part.register_forward_hook(lambda module, arguments, output: heard.append(output))
    losses = model.loss(data["inputs"], data["data_samples"])
    handle.remove()
    return model.parse_losses(losses)[0], heard[0]


@pytest.fixture
def _no_mask_loss(name, monkeypatch):
    """mmdet's own loss wants masks; they are what the adapter leaves out."""
    if name == "mask_rcnn":
        from mmdet.models.roi_heads import StandardRoIHead

        monkeypatch.setattr(StandardRoIHead, "with_mask", False)


@pytest.mark.usefixtures("_no_mask_loss")
def test_the_loss_and_its_gradient_on_the_pyramid_are_mmdets_own(name, make, images_BCHW, targets):
    from mmengine.logging import MessageHub

    if name == "tood":
        MessageHub.get_current_instance().update_info("epoch", 0)
    detector = make(name).train()
    torch.manual_seed(5)
    total, own_maps = _own_pass(detector.model, images_BCHW, targets, name)
    torch.manual_seed(5)
    outputs = detector(images_BCHW, targets)
    torch.testing.assert_close(outputs.task_loss, total)
    maps = list(outputs.pyramid.values())
    gradients = torch.autograd.grad(outputs.task_loss, maps, allow_unused=True)
    if name in QUERY:
        (own_gradient,) = torch.autograd.grad(total, [own_maps])
        own = own_gradient.transpose(1, 2).split([map_BCHW.shape[-2:].numel() for map_BCHW in maps], 2)
        gradients = [gradient.flatten(2) for gradient in gradients]
    else:
        own = torch.autograd.grad(total, own_maps, allow_unused=True)
    for gradient, own_gradient in zip(gradients, own, strict=True):
        torch.testing.assert_close(gradient, own_gradient)
    assert gradients[0].abs().sum() > 0
    assert name in TWO_STAGE or all(gradient.abs().sum() > 0 for gradient in gradients)  # they sample anchors
    if name == "tood":
        MessageHub.get_current_instance().runtime_info.pop("epoch")


@pytest.mark.parametrize("name", ["retinanet", "fcos", "yolox", "mask_rcnn", "detr"])
def test_images_reach_the_model_as_its_preprocessor_says(name, make):
    image = np.random.default_rng(0).random((3, 65, 70)).astype(np.float32)
    rgb = image * 255
    means, deviations, is_bgr, multiple = {
        "retinanet": ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], False, 32),
        "detr": ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], False, 1),
        "fcos": ([102.9801, 115.9465, 122.7717], [1.0, 1.0, 1.0], True, 32),
        "mask_rcnn": ([103.53, 116.28, 123.675], [1.0, 1.0, 1.0], True, 32),
        "yolox": ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], True, 32),
    }[name]
    ordered = rgb[::-1] if is_bgr else rgb
    normal = (ordered - np.reshape(means, (3, 1, 1))) / np.reshape(deviations, (3, 1, 1))
    expected = np.zeros((3, *(-(-side // multiple) * multiple for side in (65, 70))))
    expected[:, :65, :70] = normal
    detector = make(name)
    heard = []
    detector.model.backbone.register_forward_pre_hook(lambda module, arguments: heard.append(arguments[0]))
    detector(torch.from_numpy(image)[None], taps=("fpn",))
    np.testing.assert_allclose(heard[0][0].numpy(), expected, atol=1e-3)


def _own_candidates(detector, images_BCHW):
    """(scores, labels, boxes) of mmdet's own reading of its head, one row a candidate and class, nothing suppressed."""
    model = detector.model.eval()
    bgr = [image[[2, 1, 0]] * 255 for image in images_BCHW]
    data = model.data_preprocessor(
        {"inputs": bgr, "data_samples": _samples(_NO_TARGETS, tuple(images_BCHW.shape[-2:]))}
    )
    metas = [sample.metainfo for sample in data["data_samples"]]
    outs = model.bbox_head(model.extract_feat(data["inputs"]))
    cfg = model.test_cfg.copy()
    cfg.update(score_thr=-1.0, nms_pre=10**6)
    own = model.bbox_head.predict_by_feat(*outs, batch_img_metas=metas, cfg=cfg, rescale=False, with_nms=False)
    return own[0], outs


def _greatest_gap(one, other):
    """Of each row to its nearest among the others, both ways."""
    gaps = (one[:, None] - other[None]).abs().amax(-1)
    return float(torch.maximum(gaps.amin(1).max(), gaps.amin(0).max()))


_NO_TARGETS = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}]


@pytest.mark.parametrize("name", [name for name in DENSE if name != "yolox"])
def test_boxes_and_logits_are_those_that_mmdet_decodes(name, make, images_BCHW):
    detector = make(name).eval()
    with torch.no_grad():
        own, outs = _own_candidates(detector, images_BCHW[:1])
        outputs = detector(images_BCHW[:1])
    scores = outputs.class_logits[0].sigmoid()
    if name in ("fcos", "atss"):  # their scores have the centerness folded in
        scores = scores * torch.cat([level[0].sigmoid().flatten() for level in outs[2]])[:, None]
    boxes = outputs.boxes[0].clamp(min=0).minimum(torch.tensor([128.0, 96.0, 128.0, 96.0]))
    own_boxes = own.bboxes.clamp(min=0).minimum(torch.tensor([128.0, 96.0, 128.0, 96.0]))
    ours = torch.cat([scores.reshape(-1, 1), boxes.repeat_interleave(NUM_CLASSES, 0)], 1)
    theirs = torch.cat([own.scores[:, None], own_boxes], 1)
    labels = torch.arange(NUM_CLASSES).repeat(len(boxes))
    assert len(ours) == len(theirs)
    for k in range(NUM_CLASSES):
        assert _greatest_gap(ours[labels == k], theirs[own.labels == k]) < 1e-3


def test_yolox_boxes_are_those_that_mmdet_decodes(make, images_BCHW):
    detector = make("yolox").eval()
    with torch.no_grad():
        own, _ = _own_candidates(detector, images_BCHW[:1])
        outputs = detector(images_BCHW[:1])
    torch.testing.assert_close(outputs.boxes[0], own.bboxes)
    assert torch.equal(outputs.class_logits[0].argmax(1), own.labels)


def test_edge_logits_average_to_the_boxes(make, images_BCHW):
    """GFL, arXiv:2006.04388, section 3.2: an edge is the mean of its bins, in strides from the cell's anchor."""
    outputs = make("gfl").eval()(images_BCHW[:1], taps=("boxes", "edge_logits"))
    distances = (outputs.edge_logits[0].softmax(-1) * torch.arange(9.0)).sum(-1)
    rows, columns = torch.meshgrid(torch.arange(12.0) * 8, torch.arange(16.0) * 8, indexing="ij")
    finest = slice(0, 12 * 16)
    x, y = columns.reshape(-1), rows.reshape(-1)
    left, top, right, bottom = (distances[finest] * 8).unbind(1)
    expected = torch.stack([x - left, y - top, x + right, y + bottom], 1)
    torch.testing.assert_close(outputs.boxes[0][finest], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", QUERY)
def test_query_taps_are_the_detections_before_the_best_are_chosen(name, make, images_BCHW):
    detector = make(name)
    outputs, (found,) = detector.forward_and_detect(images_BCHW[:1])
    boxes = outputs.boxes[0].clamp(min=0).minimum(torch.tensor([128.0, 96.0, 128.0, 96.0]))
    gaps = (found["boxes"][:, None] - boxes[None]).abs().amax(-1)
    assert gaps.amin(1).max() < 1e-3
    if name != "detr":  # DETR's softmax has a background column
        probabilities = outputs.class_logits[0].sigmoid().flatten()
        torch.testing.assert_close(found["scores"], probabilities.sort(descending=True).values[: len(found["scores"])])


@pytest.mark.parametrize("name", TWO_STAGE)
def test_proposals_are_those_of_the_first_stage(name, make, images_BCHW):
    detector = make(name).eval()
    with torch.no_grad():
        bgr = [image[[2, 1, 0]] * 255 for image in images_BCHW]
        data = detector.model.data_preprocessor({"inputs": bgr, "data_samples": _samples(_NO_TARGETS * 3, (96, 128))})
        own = detector.model.rpn_head.predict(detector.model.extract_feat(data["inputs"]), data["data_samples"], False)
        outputs = detector(images_BCHW, taps=("proposals",))
    for boxes, found in zip(outputs.proposals, own):
        best = found.bboxes[: len(boxes)]
        assert torch.equal(boxes[: len(best)], best)
        assert boxes[len(best) :].isnan().all()


def test_weights_and_detections_are_the_same_in_plain_mmdet(name, make, tmp_path, capfd):
    """The config and the weights alone give back the detector: no key missing or unexpected, and equal boxes."""
    from mmdet.apis import inference_detector, init_detector

    detector = make(name)
    config = resolve_config(section(name), NUM_CLASSES)
    config.test_dataloader = dict(dataset=dict(type="CocoDataset", pipeline=PIPELINE))
    config.dump(str(tmp_path / "student.py"))
    weights = detector.plain_state_dict()
    meta = {"dataset_meta": {"classes": tuple("abcde"), "palette": "random"}}
    torch.save({"state_dict": weights, "meta": meta}, tmp_path / "student.pth")
    plain = init_detector(str(tmp_path / "student.py"), str(tmp_path / "student.pth"), device="cpu")
    printed = "".join(capfd.readouterr())
    assert "missing keys" not in printed
    assert "unexpected key" not in printed
    assert plain.load_state_dict(weights, strict=True).missing_keys == []
    assert all(torch.equal(value, weights[key]) for key, value in plain.state_dict().items())

    rgb = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    (found,) = detector.detect(torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255)
    if name == "mask_rcnn":
        plain.roi_head.mask_head = None
    own = inference_detector(plain, np.ascontiguousarray(rgb[..., ::-1])).pred_instances
    assert len(own) == len(found["boxes"]) > 0
    torch.testing.assert_close(found["scores"], own.scores.sort(descending=True).values, rtol=1e-4, atol=1e-5)
    ours = torch.cat([found["boxes"], found["labels"][:, None] * 1000], 1)
    assert _greatest_gap(ours, torch.cat([own.bboxes, own.labels[:, None] * 1000], 1)) < 0.01
