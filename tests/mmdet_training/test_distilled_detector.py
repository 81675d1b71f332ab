"""What the wrapped model gives in one step: the student's own losses, the teacher's view of the same pixels."""

from __future__ import annotations

import copy

import pytest
import torch

from autokd.errors import ConfigError, DetectorError
from autokd.presets import load_preset
from tests.support.runner_cases import CLASSES

FEATURES = "terms: [{source: feature_map, distance: l2, weight: {relative: 20}}]"
LOGITS = "terms: [{source: class_logits, distance: l2, weight: {absolute: 1}}]"


@pytest.fixture
def build(folder):
    """Build the model of distilled.py, its ``model`` changed by dotted names."""

    def make(changes=None, **settings):
        from mmdet.registry import MODELS
        from mmengine import Config
        from mmengine.logging import MessageHub
        from mmengine.registry import DefaultScope

        MessageHub._instance_dict.clear()
        where = folder(**settings)
        config = Config.fromfile(str(where / "distilled.py"))
        config.merge_from_dict({f"model.{name}": value for name, value in (changes or {}).items()})
        with DefaultScope.overwrite_default_scope("mmdet"):
            model = MODELS.build(config.model)
            model.init_weights()
        return model.train()

    return make


def batch_of(sizes) -> dict:
    """Images of these (height, width) as a pipeline of mmdet gives them, a box in each."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(3)
    samples = []
    for index, (height, width) in enumerate(sizes):
        about = {"img_id": index, "img_shape": (height, width), "ori_shape": (height, width), "scale_factor": (1, 1)}
        boxes = torch.tensor([[8.0, 8.0, width / 2, height / 2]])
        sample = DetDataSample(metainfo=about)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([index % len(CLASSES)]))
        samples.append(sample)
    inputs = [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes]
    return {"inputs": inputs, "data_samples": samples}


STUDENTS = [
    ("gfl", "bbox_head"),
    ("yolox", "bbox_head"),
    ("reppoints", "bbox_head"),
    ("faster_rcnn", "roi_head.bbox_head"),
    ("deformable_detr", "bbox_head"),
]


@pytest.mark.parametrize(("student", "head"), STUDENTS)
def test_the_students_own_losses_are_mmdets(student, head, build):
    from mmengine.logging import MessageHub

    parts = head.split(".")
    opened = "=dict(".join(parts)
    model = build(student=student, terms=FEATURES, head=opened, closing=len(parts) - 1)
    MessageHub.get_current_instance().update_info("iter", 0)  # YOLOX's batch augmentation asks for it
    data = model.data_preprocessor(batch_of([(64, 96), (80, 64)]), True)
    plain = copy.deepcopy(model.student)
    torch.manual_seed(5)
    expected = plain(copy.deepcopy(data["inputs"]), copy.deepcopy(data["data_samples"]), mode="loss")
    torch.manual_seed(5)
    found = model(**data, mode="loss")
    assert {"distill/loss"} <= found.keys() - expected.keys()
    for name, value in expected.items():
        for one, other in zip(*(v if isinstance(v, list) else [v] for v in (value, found[name]))):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5, msg=name)
    total, _ = model.parse_losses(found)
    total.backward()
    assert all(parameter.grad is None for parameter in model.teacher.detector.parameters())


def test_the_teacher_sees_the_pixels_of_the_pipeline_in_its_own_colors(build):
    """Another normalization, channel order and padding than the student's; its own forward takes RGB in 0 to 1."""
    own = {"mean": [10.0, 20.0, 30.0], "std": [2.0, 3.0, 4.0], "bgr_to_rgb": False, "pad_size_divisor": 64}
    options = {f"model.data_preprocessor.{name}": value for name, value in own.items()}
    model = build(terms=FEATURES, options=options)
    data = batch_of([(64, 96), (64, 96)])
    images_BCHW = torch.stack(data["inputs"]).flip(1) / 255
    teacher = model.teacher
    with torch.no_grad():
        expected = teacher.detector(images_BCHW, taps=("fpn",)).pyramid
    seen = model.data_preprocessor(data, True)
    from autokd.mmdet_training.distilled import _pixels

    found = teacher(_pixels(model.data_preprocessor, seen["inputs"]), [(64, 96)] * 2).pyramid
    for level, map_BCHW in expected.items():
        torch.testing.assert_close(found[level], map_BCHW, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("student", "head", "family"),
    [("fcos", "bbox_head", "anchor_free"), ("faster_rcnn", "roi_head.bbox_head", "two_stage")],
)
def test_a_preset_has_the_weights_of_the_students_family(student, head, family, build):
    parts = head.split(".")
    model = build(
        {"distiller": "fgd"}, student=student, terms=FEATURES, head="=dict(".join(parts), closing=len(parts) - 1
    )
    assert model.distiller.spec.family == family
    assert model.distiller.spec == load_preset("fgd", family).canonical()


def test_classes_are_matched_by_name(build):
    """A teacher that knows the classes in another order says of each what it says of the same name."""
    order = tuple(reversed(CLASSES))
    same, other = build(terms=LOGITS), build(terms=LOGITS, names=order)
    data = batch_of([(64, 96)])
    pixels = data["inputs"][0][None].float()
    logits = [model.teacher(pixels, [(64, 96)]).class_logits for model in (same, other)]
    torch.testing.assert_close(logits[1], logits[0].flip(-1))


def test_classes_that_the_runner_tells_otherwise_are_refused(build):
    from mmengine.logging import MessageHub

    model = build({"classes": None}, terms=FEATURES)
    hub = MessageHub.get_current_instance()
    for name, value in {"max_iters": 4, "max_epochs": 2, "epoch": 0, "iter": 0}.items():
        hub.update_info(name, value)
    data = model.data_preprocessor(batch_of([(64, 96)]), True)
    hub.update_info("dataset_meta", {"classes": CLASSES})
    model(**data, mode="loss")
    hub.update_info("epoch", 1)  # classes are compared at the begin of each epoch
    hub.update_info("dataset_meta", {"classes": tuple(reversed(CLASSES))})
    with pytest.raises(DetectorError, match=r"model\.classes"):
        model(**data, mode="loss")


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"teacher.checkpoint": "nowhere.pth"}, DetectorError, "no such checkpoint"),
        ({"teacher.chekpoint": "teacher.pth"}, ConfigError, "chekpoint"),
        ({"teacher.checkpoint": None}, DetectorError, "no checkpoint"),
        ({"classes": CLASSES[:3]}, DetectorError, "names 3 classes"),
    ],
)
def test_what_cannot_train_is_refused_when_the_model_is_built(changes, error, match, build):
    with pytest.raises(error, match=match):
        build(changes, terms=FEATURES)


def test_a_torchvision_teacher_may_teach(build, tmp_path):
    from autokd.config import TorchvisionDetector
    from autokd.detectors import build_detector

    config = TorchvisionDetector(architecture="fcos", backbone={"width": 8}, fpn_channels=16)
    teacher = build_detector(config, len(CLASSES), (256, 256))
    torch.save(teacher.plain_state_dict(), tmp_path / "fcos.pt")
    section = config.model_dump(include={"framework", "architecture", "backbone", "fpn_channels"})
    model = build({"teacher": {"_delete_": True, **section, "checkpoint": str(tmp_path / "fcos.pt")}}, terms=FEATURES)
    losses = model(**model.data_preprocessor(batch_of([(64, 96)]), True), mode="loss")
    assert losses["distill/loss"] > 0


def test_it_trains_under_mmengines_distributed_wrapper(build, tmp_path):
    """One process of gloo: parameters that no loss reaches, or gradients taken twice, would stop the reducer."""
    from mmengine.model import MMDistributedDataParallel
    from mmengine.optim import OptimWrapper
    from torch import distributed

    wide = {"model.neck.out_channels": 24, "model.bbox_head.in_channels": 24}
    model = build(options=wide)
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        wrapped = MMDistributedDataParallel(module=model)
        optimizer = OptimWrapper(torch.optim.SGD(wrapped.parameters(), lr=0.01))
        before = [value.clone() for value in model.distiller.parameters()]
        logs = [wrapped.train_step(batch_of([(64, 96), (64, 96)]), optimizer) for _ in range(3)]
    finally:
        distributed.destroy_process_group()
    assert all(log["distill/loss"] > 0 for log in logs)
    assert any(not torch.equal(one, other) for one, other in zip(before, model.distiller.parameters()))
