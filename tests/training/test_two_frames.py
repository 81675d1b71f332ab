"""Two frames in trainings: batches, cached and live teachers, validation and AP, and lengths."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from autokd.config import RunConfig, complete_recipes
from autokd.data import load_datasets
from autokd.jobs import Job, WorkerResources
from autokd.presets import load_preset
from autokd.training import TrainingEvaluatorFactory, prepare
from autokd.training.assets import TrainingAssets
from autokd.training.assets.teacher_outputs import OutputNeeds
from autokd.training.length import training_length
from autokd.training.loader import Loader, dataset_length, training_plan
from autokd.training.measure.average_precision import PrecisionMeter, detect_split

CPU = torch.device("cpu")
FRAME = (64, 96)
UPRIGHT = (1, 4, 5)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    images, boxes = [], []
    for number in range(8):
        height, width = (90, 60) if number in UPRIGHT else (60, 90)
        pixels = rng.integers(90, 110, (height, width, 3), dtype=np.uint8)
        x, y = int(rng.integers(0, width - 30)), int(rng.integers(0, height - 30))
        pixels[y : y + 30, x : x + 30] = 255
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        images.append({"id": number + 1, "file_name": f"{number}.png", "width": width, "height": height})
        box = {"bbox": [x, y, 30, 30], "area": 900, "iscrowd": 0}
        boxes.append({"id": number + 1, "image_id": number + 1, "category_id": 1, **box})
    coco = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "square"}]}
    (folder / "all.json").write_text(json.dumps(coco))
    return folder


@pytest.fixture(scope="module")
def make_config(root):
    def make(**full):
        sections = {
            "data": {
                "root": root,
                "train": "all.json",
                "val": "all.json",
                "image_size_px": FRAME,
                "orientations": "two",
            },
            "teacher": {"backbone": {"width": 8}, "fpn_channels": 16, "train": {"epochs": 1, "batch_size": 4}},
            "student": {"backbone": {"width": 8}, "fpn_channels": 8},
            "proxy": {"epochs": 1, "batch_size": 4, "reward": ["ap", "cka"]},
            "full": {"epochs": 1, "batch_size": 4, **full},
        }
        return complete_recipes(RunConfig.model_validate(sections))

    return make


@pytest.fixture(scope="module")
def prepared(make_config, tmp_path_factory):
    """A cache with a teacher and its outputs of all training and validation images."""
    cache, config = tmp_path_factory.mktemp("cache"), make_config()
    datasets = load_datasets(config.data, cache)
    prepare(config, datasets, cache)
    return TrainingAssets(config, cache, CPU, datasets)


def test_cached_outputs_are_those_of_the_teacher_in_each_images_own_frame(prepared):
    loader = prepared.data.training_loader("full")
    taps = prepared.teachers.training_taps("full", ("fpn", "class_logits", "boxes"))
    teacher = prepared.teachers.first.build(CPU)
    shapes = set()
    for batch in loader.epoch(seed=0, epoch=1):
        cached = taps(batch)
        with torch.no_grad():
            live = teacher(batch.images_BCHW, taps=("fpn",))
        shapes.add(tuple(batch.images_BCHW.shape[2:]))
        assert cached.image_size_px == tuple(batch.images_BCHW.shape[2:])
        for level, map_BCHW in live.pyramid.items():
            torch.testing.assert_close(cached.pyramid[level], map_BCHW, atol=5e-3, rtol=2e-3)
    assert shapes == {FRAME, FRAME[::-1]}


def test_validation_shows_every_image_in_its_frame(prepared):
    batches = list(prepared.data.validation_loader().in_order())
    shown = {index: tuple(batch.images_BCHW.shape[2:]) for batch in batches for index, _ in batch.pairs}
    assert shown == {index: FRAME[::-1] if index in UPRIGHT else FRAME for index in range(8)}
    cached = prepared.teachers.validation_cache("full").read([(1, 0)], is_turned=True)
    height, width = next(iter(cached.pyramid.values())).shape[2:]
    assert height > width


def test_a_detector_that_finds_every_box_has_an_ap_of_one(prepared):
    dataset = prepared.data.full.val

    class Knows(torch.nn.Module):
        """Reads the white square out of the pixels, in pixels of the network's input."""

        def detect(self, images_BCHW):
            found = []
            for image in images_BCHW:
                rows, columns = torch.nonzero(image.min(dim=0).values > 0.9, as_tuple=True)
                box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                found.append(
                    {
                        "boxes": torch.tensor([[float(side) for side in box]]),
                        "scores": torch.ones(1),
                        "labels": torch.zeros(1, dtype=torch.int64),
                    }
                )
            return found

    found = detect_split(Knows(), dataset, batch_size=3, device=CPU)  # type: ignore[arg-type]
    assert PrecisionMeter(dataset).score(found).map_50 == pytest.approx(1.0)
    truth = {each["image_id"]: each["bbox"] for each in json.loads(dataset.annotation_path.read_text())["annotations"]}
    for each in found:
        assert each["bbox"] == pytest.approx(truth[each["image_id"]], abs=1.5)


@pytest.mark.parametrize(
    "full", [{}, {"num_views": "endless", "batch_scale_range": [0.5, 1.5]}], ids=["cached", "live"]
)
def test_a_distilled_training_ends_the_same_each_time(make_config, prepared, run_job, tmp_path, full):
    cache = prepared.data.cache_dir
    evaluator = TrainingEvaluatorFactory(make_config(**full), cache, tmp_path)(WorkerResources())
    job = Job("full/x 0", load_preset("pkd").with_gradient_ratio(4), "full", seed=1)
    first, again = (run_job(evaluator, job)[1] for _ in range(2))
    assert first.status == "finished", first.message
    same = {name: value for name, value in first.metrics.items() if name != "train_seconds"}
    assert same == {name: value for name, value in again.metrics.items() if name != "train_seconds"}
    assert first.metrics["distill_loss"] > 0


def test_batches_at_another_scale_keep_their_frame(make_config, prepared):
    config = make_config(num_views="endless", batch_scale_range=[0.5, 2.0])
    train = prepared.data.full.train
    loader = Loader(train, training_plan(train, config.full), 2, CPU)
    for batch in loader.epoch(seed=3, epoch=1):
        height, width = batch.images_BCHW.shape[2:]
        assert (height % 32, width % 32) == (0, 0)
        assert (height > width) == batch.is_turned or height == width


def test_the_steps_of_an_epoch_count_the_batches_of_both_frames(prepared, make_config):
    config = make_config()
    loader = prepared.data.training_loader("full")
    length = dataset_length(config.full, loader.dataset)
    assert length.steps == loader.steps_per_epoch(0) == 3  # 5 and 3 images, 4 a batch: 2 + 1, not 2
    assert (training_length(8, 4, 2, num_turned=3).steps, training_length(8, 4, 2).steps) == (6, 4)
    for steps in range(1, 7):
        shown = list(loader.epoch(0, 1, steps)) + list(loader.epoch(0, 2, max(0, steps - 3)))
        expected = sum(batch.num_images for batch in shown)
        assert training_length(8, 4, 2, steps, num_turned=3).images == expected
    assert OutputNeeds(config, 8, 8, 3).num_shown("full") == 8
