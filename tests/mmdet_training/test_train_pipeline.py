"""The train pipeline of a student's own config in AutoKD's loop: MMDetection's pixels and boxes, replayed."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from autokd.config import MmdetDetector, RunConfig, load_config
from autokd.data import load_datasets
from autokd.detectors import build_detector, resolve
from autokd.detectors.mmdet.train_pipeline import random_seeds, read_train_pipeline
from autokd.errors import ConfigError
from autokd.training.assets import TrainingAssets
from autokd.training.distillation import losses_of
from autokd.training.own_pipeline import SplitImages
from autokd.training.teacher.cache import LiveTeacher

CPU = torch.device("cpu")
PLAIN = """
train_dataloader["dataset"]["pipeline"] = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomResize", scale=(120, 80), ratio_range=(0.6, 1.5), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(56, 72), allow_negative_crop=True),
    dict(type="PhotoMetricDistortion"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
custom_hooks = [dict(type="PipelineSwitchHook", switch_epoch=2, switch_pipeline=[
    dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True), dict(type="PackDetInputs")])]
"""
MIXED = """
inner = dict(train_dataloader["dataset"])
inner["pipeline"] = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True)]
train_dataloader["dataset"] = dict(type="MultiImageMixDataset", dataset=inner, pipeline=[
    dict(type="Mosaic", img_scale=(96, 64), pad_val=114.0),
    dict(type="RandomAffine", scaling_ratio_range=(0.5, 1.5), border=(-48, -32)),
    dict(type="MixUp", img_scale=(96, 64), ratio_range=(0.8, 1.6), pad_val=114.0),
    dict(type="YOLOXHSVRandomAug"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1, 1), keep_empty=True),
    dict(type="PackDetInputs"),
])
custom_hooks = [dict(type="YOLOXModeSwitchHook", num_last_epochs=2)]
"""
RUN = """
data: {{root: {root}, train: instances_train.json, val: instances_val.json, image_size_px: [64, 96]}}
teacher: {{train: {{}}}}
student: {{framework: mmdet, config: {config}}}
full: {{pipeline: student_config, num_views: endless, epochs: 4, batch_size: 4}}
"""


@pytest.fixture
def written(folder):
    """Write a student's config with more lines; return its section."""

    def write(lines: str) -> MmdetDetector:
        path = folder() / "student.py"
        path.write_text(path.read_text() + lines)
        return MmdetDetector(framework="mmdet", config=str(path))

    return write


@pytest.fixture
def images(shapes, tmp_path):
    data = RunConfig.model_validate(
        {
            "data": {"root": shapes, "train": "instances_train.json", "val": "instances_val.json"},
            "teacher": {"train": {}},
            "student": {},
        }
    ).data.model_copy(update={"image_size_px": (64, 96)})
    return SplitImages(load_datasets(data, tmp_path / "cache", check=False).train)


def of_mmdet(section, seed, epoch, index):
    """Return what MMDetection's own data set gives, its pipeline seeded as AutoKD seeds its own."""
    from mmdet.registry import DATASETS
    from mmengine import Config
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    dataset = DATASETS.build(Config.fromfile(section.config).train_dataloader.dataset)
    numpy_seed, python_seed, torch_seed = random_seeds(seed, epoch, index)
    np.random.seed(numpy_seed)
    random.seed(python_seed)
    torch.manual_seed(torch_seed)
    return dataset[index]


def assert_equal(ours, theirs):
    inputs, truth = theirs["inputs"], theirs["data_samples"].gt_instances
    assert torch.equal(ours.pixels_CHW[[2, 1, 0]], inputs.to(ours.pixels_CHW.dtype))  # theirs is BGR
    torch.testing.assert_close(ours.boxes_xyxy_px, getattr(truth.bboxes, "tensor", truth.bboxes), atol=1e-3, rtol=0)
    assert torch.equal(ours.labels, truth.labels)


def test_images_and_boxes_are_those_of_mmdets_data_set(written, images):
    section = written(PLAIN)
    pipeline = read_train_pipeline(section, 4)
    for index, epoch in ((0, 1), (3, 1), (3, 2)):
        assert_equal(pipeline(images, index, epoch, 7), of_mmdet(section, 7, epoch, index))
    plain = pipeline(images, 3, 3, 7)  # after the hook has switched
    assert np.array_equal(plain.pixels_CHW.numpy(), images[3].read())


def test_mosaics_and_mixtures_are_those_of_mmdets_wrapper_until_its_hook_ends_them(written, images):
    section = written(MIXED)
    pipeline = read_train_pipeline(section, 4)
    compared = 0
    for index in range(10):
        try:
            theirs = of_mmdet(section, 0, 1, index)
        except IndexError:  # mmdet draws from 0 to the number of images, one too many
            continue
        assert_equal(pipeline(images, index, 1, 0), theirs)
        compared += 1
        if compared == 3:
            break
    assert compared == 3
    single = pipeline(images, 0, 2, 0)  # two of four epochs before the end
    assert single.pixels_CHW.shape == (3, 64, 96)
    assert len(single.labels) == len(images[0].labels)


def test_global_generators_are_left_as_they_were(written, images):
    def reset():
        np.random.seed(3)
        random.seed(3)
        torch.manual_seed(3)

    pipeline = read_train_pipeline(written(PLAIN), 4)
    reset()
    expected = np.random.rand(), random.random(), torch.rand(1).item()
    reset()
    pipeline(images, 0, 1, 0)
    assert (np.random.rand(), random.random(), torch.rand(1).item()) == expected


def test_a_full_training_sees_the_pipeline_and_its_teacher_the_same_pixels(written, shapes, tmp_path):
    config = resolve(load_config(RUN.format(root=shapes, config=written(PLAIN).config)))
    assets = TrainingAssets(config, tmp_path / "cache", CPU)
    loader = assets.data.training_loader("full")
    first = list(loader.epoch(seed=1, epoch=1, max_steps=2))
    again = list(replace(loader, threads=2).epoch(seed=1, epoch=1, max_steps=2))  # by two processes
    for batch, same in zip(first, again, strict=True):
        assert batch.pairs == same.pairs
        assert torch.equal(batch.images_BCHW, same.images_BCHW)
        assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(batch.targets, same.targets))
        assert all(side % 32 == 0 for side in batch.images_BCHW.shape[2:])
    other = next(iter(loader.epoch(seed=1, epoch=2)))
    assert other.images_BCHW.shape != first[0].images_BCHW.shape or not torch.equal(
        other.images_BCHW, first[0].images_BCHW
    )
    seen = []

    class Teacher(torch.nn.Module):
        def forward(self, images_BCHW, taps):
            seen.append(images_BCHW)

    LiveTeacher(Teacher())(first[0])  # type: ignore[arg-type]
    assert seen[0] is first[0].images_BCHW
    train = assets.data.full.train
    student = build_detector(config.student, train.num_classes, train.image_size_px, train.classes)
    losses = losses_of(student, first[0], None)
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())
    assert assets.data.training_loader("proxy").pipeline is None


@pytest.mark.parametrize(
    ("transform", "remedy"),
    [
        ('dict(type="CachedMixUp", img_scale=(64, 64))', "seen before.*Write MixUp into the outer"),
        ('dict(type="Albu", transforms=[])', "generators of its own"),
        ('dict(type="RandomApply", transforms=[dict(type="MyOwn")])', "MyOwn.*not known to be replayable"),
        ('dict(type="Normalize", mean=[0], std=[1])', "data_preprocessor normalizes"),
    ],
)
def test_what_cannot_be_replayed_is_refused_with_the_remedy(written, transform, remedy):
    section = written(f'\ntrain_dataloader["dataset"]["pipeline"].insert(2, {transform})\n')
    with pytest.raises(ConfigError, match=f"{remedy}.*pipeline: views"):
        read_train_pipeline(section, 4)


def test_a_transform_of_an_allowed_name_from_elsewhere_is_refused(written):
    from mmdet.registry import TRANSFORMS

    known = TRANSFORMS.get("RandomShift")

    class RandomShift:
        pass

    section = written('\ntrain_dataloader["dataset"]["pipeline"].insert(2, dict(type="RandomShift"))\n')
    TRANSFORMS.register_module(name="RandomShift", module=RandomShift, force=True)
    try:
        with pytest.raises(ConfigError, match=r"RandomShift.*only mmdet's and mmcv's own are run"):
            read_train_pipeline(section, 4)
    finally:
        TRANSFORMS.register_module(name="RandomShift", module=known, force=True)


@pytest.mark.parametrize(
    ("student", "full", "message"),
    [
        ({}, {"num_views": "endless"}, "names no file that has a train pipeline"),
        ({"framework": "mmdet", "config": "x.py"}, {}, "Set 'num_views: endless'"),
        ({"framework": "mmdet", "config": "x.py"}, {"num_views": "endless", "color_jitter": 0.5}, "color_jitter would"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(student, full, message):
    sections = {"data": {"format": "shapes"}, "teacher": {"train": {}}, "student": student}
    with pytest.raises(ValidationError, match=message):
        RunConfig.model_validate(sections | {"full": {"pipeline": "student_config"} | full})
