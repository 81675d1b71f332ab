"""torchvision's own builders and the layouts of their checkpoints, against the models that torchvision itself loads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import WeightsEnum, get_model
from torchvision.ops import FrozenBatchNorm2d

from autokd.config import BUILDERS, TorchvisionDetector
from autokd.detectors import (
    Detector,
    build_detector,
    load_weights,
    plain_torchvision_model,
    plain_torchvision_source,
)
from autokd.detectors.torchvision import pretrained
from autokd.errors import DetectorError
from tests.support.pretrained_samples import enliven, make_detector_file

pytestmark = pytest.mark.slow  # models of torchvision's full size

SIZE_PX = (128, 256)
"""Multiples of the coarsest stride: torchvision and AutoKD then pad alike."""
CLASSES = ("dog", "person", "toothbrush")
ROWS = (18, 1, 90)
"""Category ids of these classes in COCO."""
DENSE = tuple(name for name in BUILDERS if not name.startswith("fasterrcnn"))
TWO_STAGE = tuple(name for name in BUILDERS if name.startswith("fasterrcnn"))


@pytest.fixture
def _any_content_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made files have the names of torchvision's, but not their digests."""
    monkeypatch.setattr(pretrained, "_is_whole", lambda *file: True)


def _as_torchvision_loads_it(builder: str, file: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Any:
    """Let torchvision's builder load the file as its COCO_V1: frozen norms, their epsilon, old names."""
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, **how: torch.load(file, weights_only=True))
    height, width = SIZE_PX
    return get_model(builder, weights="COCO_V1", min_size=height, max_size=width, **settings).eval()


def _without_limits(model: Any) -> None:
    """Keep all candidates: of 91 classes and of 3, different ones would be cut off."""
    if hasattr(model, "rpn"):
        model.roi_heads.detections_per_img, model.roi_heads.score_thresh = 10**6, 5e-4
        model.roi_heads.nms_thresh = 2.0  # no suppression: random features are alike, and ties would fall by rounding
        model.rpn._pre_nms_top_n["testing"] = model.rpn._post_nms_top_n["testing"] = 100
    else:
        model.topk_candidates, model.detections_per_img, model.score_thresh = 10**7, 10**6, 0.62


def _assert_same_detections(detector: Detector, plain: Any, rows: tuple[int, ...]) -> None:
    images = torch.rand(2, 3, *SIZE_PX, generator=torch.Generator().manual_seed(3))
    for model in (detector.model, plain):
        _without_limits(model)
    plain.to(memory_format=detector.memory_format)
    with torch.no_grad():
        wanted = plain(list(images))
    for found, everything in zip(detector.eval().detect(images), wanted):
        num = 0
        for label, row in enumerate(rows):
            ours = torch.cat([found["boxes"], found["scores"][:, None]], 1)[found["labels"] == label]
            theirs = torch.cat([everything["boxes"], everything["scores"][:, None]], 1)[everything["labels"] == row]
            assert len(ours) == len(theirs)
            # Each has its like among the others; their order is that of scores, of which two may be equal but for
            # rounding.
            if len(ours):
                difference = (ours[:, None] - theirs[None]).abs() / torch.tensor([5e-3] * 4 + [2e-5])
                assert difference.amax(2).amin(0).max() < 1
                assert difference.amax(2).amin(1).max() < 1
            num += len(ours)
        assert num > 5


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.usefixtures("_any_content_is_whole")
def test_coco_weights_by_name_find_what_torchvisions_model_finds_of_these_classes(builder, tmp_path, monkeypatch):
    file = make_detector_file(builder, tmp_path)
    section = TorchvisionDetector(architecture=builder, weights="COCO_V1", weights_dir=tmp_path)
    detector = build_detector(section, 3, SIZE_PX, CLASSES)
    assert detector.num_classes == 3
    _assert_same_detections(detector, _as_torchvision_loads_it(builder, file, monkeypatch), ROWS)


@pytest.mark.parametrize("builder", ["fcos_resnet50_fpn", "retinanet_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn_v2"])
def test_a_head_with_a_background_of_the_data_sets_own_classes_loads(builder, tmp_path):
    file = make_detector_file(builder, tmp_path, num_classes=4, name="mine.pth")
    plain = get_model(
        builder, weights=None, weights_backbone=None, num_classes=4, min_size=SIZE_PX[0], max_size=SIZE_PX[1]
    )
    plain.load_state_dict(torch.load(file, weights_only=True))
    section = TorchvisionDetector(architecture=builder, weights=str(file))
    assert section.checkpoint == file
    _assert_same_detections(build_detector(section, 3, SIZE_PX, ("a", "b", "c")), plain.eval(), (1, 2, 3))


def test_stated_classes_are_matched_by_name_with_and_without_a_background(tmp_path):
    file = make_detector_file("fcos_resnet50_fpn", tmp_path, num_classes=4, name="mine.pth")
    section = TorchvisionDetector(architecture="fcos_resnet50_fpn", checkpoint=file, classes=("x", "y", "z"))
    bias = torch.load(file, weights_only=True)["head.classification_head.cls_logits.bias"]
    named = build_detector(section, 2, SIZE_PX, ("z", "x"))
    assert torch.equal(named.plain_state_dict()["head.classification_head.cls_logits.bias"], bias[[3, 1]])
    with_all = section.model_copy(update={"classes": ("w", "x", "y", "z")})
    named = build_detector(with_all, 2, SIZE_PX, ("z", "w"))
    assert torch.equal(named.plain_state_dict()["head.classification_head.cls_logits.bias"], bias[[3, 0]])
    # A student that was trained from there has the data set's rows, which are not permuted again.
    torch.save(named.plain_state_dict(), tmp_path / "student.pt")
    before = named.plain_state_dict()
    load_weights(named, tmp_path / "student.pt")
    assert all(torch.equal(value, before[name]) for name, value in named.plain_state_dict().items())


@pytest.mark.parametrize("builder", ["retinanet_resnet50_fpn", "fasterrcnn_resnet50_fpn"])
@pytest.mark.usefixtures("_any_content_is_whole")
def test_files_with_the_names_of_torchvisions_first_versions_load(builder, tmp_path, monkeypatch):
    """The hub's files of 2020 have no versions of modules, and convolutions where today blocks are."""
    file = make_detector_file(builder, tmp_path)
    old = {}
    for name, value in torch.load(file, weights_only=True).items():
        name = re.sub(r"(fpn\.(?:inner|layer)_blocks\.\d)\.0\.", r"\1.", name)
        name = re.sub(r"rpn\.head\.conv\.0\.0\.", "rpn.head.conv.", name)
        name = re.sub(r"(_head\.conv\.)(\d)\.0\.", lambda m: f"{m[1]}{2 * int(m[2])}.", name)
        old[name] = value
    assert "backbone.fpn.inner_blocks.0.weight" in old
    torch.save(old, file)
    section = TorchvisionDetector(architecture=builder, weights="COCO_V1", weights_dir=tmp_path)
    detector = build_detector(section, 3, SIZE_PX, CLASSES)
    _assert_same_detections(detector, _as_torchvision_loads_it(builder, file, monkeypatch), ROWS)


@pytest.mark.parametrize("builder", ["retinanet_resnet50_fpn_v2", "fasterrcnn_mobilenet_v3_large_fpn"])
def test_losses_are_those_of_torchvisions_model(builder):
    """RetinaNet v2 compares boxes by their generalized IoU; MobileNet has two levels of one stride."""
    detector = build_detector(TorchvisionDetector(architecture=builder), 3, SIZE_PX)
    enliven(detector.model)
    detector.eval()
    shift = int(builder in TWO_STAGE)
    plain = get_model(builder, weights=None, weights_backbone=None, num_classes=3 + shift)
    plain.load_state_dict(detector.plain_state_dict())
    plain.to(memory_format=detector.memory_format).train()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    plain.transform.min_size, plain.transform.max_size = (SIZE_PX[0],), SIZE_PX[1]
    images = torch.rand(2, 3, *SIZE_PX)
    boxes = torch.tensor([[10.0, 12, 90, 70], [50, 20, 240, 120]])
    targets = [{"boxes": boxes, "labels": torch.tensor([0, 2])}, {"boxes": boxes[:1], "labels": torch.tensor([1])}]
    torch.manual_seed(0)
    wanted = plain(list(images), [{"boxes": t["boxes"], "labels": t["labels"] + shift} for t in targets])
    found = detector(images, targets).losses
    assert found.keys() == wanted.keys()
    for name, loss in wanted.items():
        # Proposals are cut off at other numbers in training, and sampled by other random numbers.
        tolerance = 2e-4 if name in ("classification", "bbox_regression") else 0.05
        assert found[name].item() == pytest.approx(loss.item(), rel=tolerance), name


@pytest.mark.parametrize("builder", ["fcos_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn"])
@pytest.mark.usefixtures("_any_content_is_whole")
def test_a_student_from_coco_trains_and_loads_in_plain_torchvision(builder, tmp_path, monkeypatch):
    make_detector_file(builder, tmp_path)
    section = TorchvisionDetector(architecture=builder, weights="COCO_V1", weights_dir=tmp_path)
    student = build_detector(section, 3, SIZE_PX, CLASSES)
    target = {"boxes": torch.tensor([[10.0, 12, 90, 70]]), "labels": torch.tensor([2])}
    losses = student.train()(torch.rand(1, 3, *SIZE_PX), [target]).losses
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in student.parameters() if p.requires_grad)
    weights = student.plain_state_dict()
    plain_torchvision_model(section, 3, SIZE_PX, CLASSES).load_state_dict(weights)
    rows = 91 if builder in TWO_STAGE else 3
    get_model(builder, weights=None, weights_backbone=None, num_classes=rows).load_state_dict(weights, strict=False)
    torch.save(weights, tmp_path / "student.pt")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(plain_torchvision_source(section, 3, SIZE_PX, CLASSES), "rebuild.py", "exec"), names)
    _assert_same_detections(student, names["model"], ROWS if builder in TWO_STAGE else (0, 1, 2))


@pytest.mark.usefixtures("_any_content_is_whole")
def test_a_new_head_keeps_the_other_weights(tmp_path):
    file = make_detector_file("retinanet_resnet50_fpn", tmp_path)
    section = TorchvisionDetector(
        architecture="retinanet_resnet50_fpn", weights="COCO_V1", weights_dir=tmp_path, new_head=True
    )
    weights = build_detector(section, 2, SIZE_PX, ("needle", "screw")).plain_state_dict()
    saved = torch.load(file, weights_only=True)
    assert weights["head.classification_head.cls_logits.weight"].shape == (18, 256, 3, 3)
    same = [name for name in weights if "cls_logits" not in name]
    assert all(torch.equal(weights[name], saved[name]) for name in same)


@pytest.mark.usefixtures("_any_content_is_whole")
@pytest.mark.parametrize("builder", ["fcos_resnet50_fpn", "fasterrcnn_resnet50_fpn"])
def test_classes_that_coco_lacks_are_named_with_the_ways_out(builder, tmp_path):
    make_detector_file(builder, tmp_path)
    section = TorchvisionDetector(architecture=builder, weights="COCO_V1", weights_dir=tmp_path)
    with pytest.raises(DetectorError, match=r"does not know 'tooth' of .*'tooth' its 'toothbrush'.*new_head: true"):
        build_detector(section, 2, SIZE_PX, ("dog", "tooth"))


def test_a_head_of_another_number_of_classes_is_refused_with_the_ways_out(tmp_path):
    file = make_detector_file("fcos_resnet50_fpn", tmp_path, num_classes=8, name="mine.pth")
    section = TorchvisionDetector(architecture="fcos_resnet50_fpn", checkpoint=file)
    with pytest.raises(DetectorError, match=r"head has 8 classes.*data set has 3.*'classes'.*new_head: true"):
        build_detector(section, 3, SIZE_PX, CLASSES)


def test_the_weights_of_a_builder_in_another_architecture_are_recognized(tmp_path):
    file = make_detector_file("retinanet_resnet50_fpn", tmp_path, num_classes=3, name="mine.pth")
    section = TorchvisionDetector(
        architecture="retinanet", backbone={"name": "resnet50"}, fpn_channels=256, head_convs=4, checkpoint=file
    )
    with pytest.raises(DetectorError, match="architecture: retinanet_resnet50_fpn'"):
        build_detector(section, 3, (480, 640), CLASSES)


def test_frozen_norms_are_torchvisions_and_those_of_v2_are_trained(tmp_path):
    frozen = {}
    for builder in ("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2"):
        file = make_detector_file(builder, tmp_path, num_classes=4, name="mine.pth")
        body = build_detector(TorchvisionDetector(architecture=builder, checkpoint=file), 3, SIZE_PX).body
        frozen[builder] = any(isinstance(module, FrozenBatchNorm2d) for module in body.modules())
        assert {name.split(".")[0] for name, p in body.named_parameters() if not p.requires_grad} <= {
            "conv1",
            "bn1",
            "layer1",
        }
    assert frozen == {"fasterrcnn_resnet50_fpn": True, "fasterrcnn_resnet50_fpn_v2": False}
