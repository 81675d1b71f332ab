"""A student handed to plain MMDetection: the same weights, and the same boxes from the same image file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from autokd.config import CocoData
from autokd.data import load_datasets
from autokd.data.views import PAD_RGB
from autokd.detectors.mmdet import build_mmdet_detector, export_student
from autokd.detectors.mmdet.export import two_frames_pipeline
from tests.support.mmdet_cases import section

NAMES = ("red", "white", "platelet", "stain", "glass")


@pytest.fixture
def photograph(tmp_path):
    """A data set of one PNG of 150 x 205 pixels (height x width), which fits into 96 x 128 with a margin."""
    import json

    noise = np.random.default_rng(0).integers(0, 256, (15, 21, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((205, 150), Image.Resampling.BICUBIC)
    (tmp_path / "images").mkdir()
    image.save(tmp_path / "images" / "one.png")
    content = {
        "images": [{"id": 1, "file_name": "one.png", "width": 205, "height": 150}],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(NAMES)],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 20, 90, 80], "area": 7200, "iscrowd": 0}
        ],
    }
    (tmp_path / "all.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("name", ["retinanet", "fcos", "yolox", "rtmdet", "mask_rcnn", "detr"])
def test_plain_mmdet_finds_the_same_boxes_in_the_same_file(name, make, photograph, tmp_path, capfd):
    from mmdet.apis import inference_detector, init_detector

    data = CocoData(root=photograph, train="all.json", val="all.json", image_size_px=(96, 128))
    dataset = load_datasets(data, tmp_path / "cache").val
    detector = make(name, classes=dataset.classes)
    sample = dataset.load(0)
    (found,) = detector.detect(sample.image[None])
    boxes = sample.to_original(found["boxes"])

    out = tmp_path / "out"
    config, checkpoint = export_student(detector, section(name), dataset.classes, (96, 128), out, pad_rgb=PAD_RGB)
    plain = init_detector(str(config), str(checkpoint), device="cpu")
    printed = "".join(capfd.readouterr())
    assert "missing keys" not in printed
    assert "unexpected key" not in printed
    assert plain.dataset_meta["classes"] == NAMES
    if name == "mask_rcnn":
        plain.roi_head.mask_head = None
    own = inference_detector(plain, str(photograph / "images" / "one.png")).pred_instances
    confident = found["scores"] >= found["scores"][min(20, len(boxes) - 1)]
    rows = torch.cat([boxes, found["labels"][:, None] * 1000, found["scores"][:, None] * 1000], 1)[confident]
    # MMDetection clips boxes to the padded image, AutoKD to the photograph.
    own_boxes = own.bboxes.clamp(min=0).minimum(torch.tensor([205.0, 150.0, 205.0, 150.0]))
    others = torch.cat([own_boxes, own.labels[:, None] * 1000, own.scores[:, None] * 1000], 1)
    gaps = (rows[:, None] - others[None]).abs().amax(-1).amin(1)
    assert gaps.max() < 1.5  # AutoKD scales the axes apart by a rounding, MMDetection by one factor


def test_a_student_of_more_classes_keeps_their_names(make, tmp_path):
    teacher = make("retinanet")
    meta = {"dataset_meta": {"classes": NAMES}}
    torch.save({"state_dict": teacher.plain_state_dict(), "meta": meta}, tmp_path / "teacher.pth")
    named = section("retinanet", checkpoint=tmp_path / "teacher.pth")
    student = build_mmdet_detector(named, 1, (96, 128), ("glass",))
    config, checkpoint = export_student(student, named, ("glass",), (96, 128), tmp_path / "out")
    from mmengine import Config

    assert Config.fromfile(str(config)).model.bbox_head.num_classes == 5
    assert torch.load(checkpoint, weights_only=True)["meta"]["dataset_meta"]["classes"] == NAMES
    again = build_mmdet_detector(
        named.model_copy(update={"config": str(config), "checkpoint": checkpoint}), 5, (96, 128), NAMES
    )
    assert all(torch.equal(value, teacher.plain_state_dict()[key]) for key, value in again.plain_state_dict().items())


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (500, 500), (300, 900)])
def test_with_two_frames_the_exported_pipeline_scales_into_the_frame_that_lies_as_the_image(size):
    """MMDetection's transforms against plain arithmetic: the frame's sides in the image's own order."""
    from mmdet.datasets import transforms  # noqa: F401 - registers them
    from mmdet.registry import TRANSFORMS

    height, width = size
    frame = (96, 64) if height > width else (64, 96)
    scale = min(frame[0] / height, frame[1] / width)
    results = {"img": np.full((height, width, 3), 200, dtype=np.uint8), "img_shape": size}
    _, *fit, _ = two_frames_pipeline((64, 96), (124, 116, 104), 32)
    for part in fit:
        results = TRANSFORMS.build(part)(results)
    rows, columns = round(height * scale), round(width * scale)
    assert results["img"].shape[:2] == (-(-rows // 32) * 32, -(-columns // 32) * 32)
    assert (results["img"][: rows - 1, : columns - 1] == 200).all()
    assert (results["img"][rows + 1 :] == (104, 116, 124)).all()
    assert (results["img"][:, columns + 1 :] == (104, 116, 124)).all()
