"""Full trainings on endless views: the teacher runs beside the student, and nothing of it is stored."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from autokd.config import Recipe, RunConfig
from autokd.jobs import Job, WorkerResources
from autokd.presets import load_preset
from autokd.training import TrainingEvaluatorFactory, prepare
from autokd.training.assets import TrainingAssets
from autokd.training.loader import Loader, training_plan

CPU = torch.device("cpu")
MIXED = {
    "num_views": "endless", "scale_range": [0.7, 1.4], "color_jitter": 0.5, "mosaic_probability": 0.5,
    "mixup_probability": 0.3, "batch_scale_range": [0.5, 1.5], "epochs": 2, "batch_size": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def config(make_tiny_config):
    return make_tiny_config(full=MIXED)


@pytest.fixture
def evaluator(config, tiny_data, tiny_cache, tmp_path):
    return TrainingEvaluatorFactory(config, tiny_cache, tmp_path / "run", tiny_data)(WorkerResources())


def timeless(metrics):
    return {name: value for name, value in metrics.items() if name != "train_seconds"}


@pytest.mark.parametrize("preset", ["pkd", "bckd", "fgd"])
def test_a_distilled_training_on_endless_views_is_the_same_each_time(evaluator, run_job, preset):
    job = Job("full/x 0", load_preset(preset).with_gradient_ratio(4), "full", seed=1)
    first, again = (run_job(evaluator, job)[1] for _ in range(2))
    assert first.status == "finished", first.message
    assert timeless(first.metrics) == timeless(again.metrics)
    assert first.metrics["distill_loss"] > 0


def test_seeds_see_different_pictures_and_epochs_too(config, tiny_data):
    loader = Loader(tiny_data.train, training_plan(tiny_data.train, config.full), 4, CPU)

    def pictures(seed, epoch):
        return {
            pair[0]: image for batch in loader.epoch(seed, epoch) for pair, image in zip(batch.pairs, batch.images_BCHW)
        }

    first = pictures(0, 1)
    assert all(torch.equal(image, first[index]) for index, image in pictures(0, 1).items())
    for other in (pictures(1, 1), pictures(0, 2)):
        assert not any(other[i].shape == first[i].shape and torch.equal(other[i], first[i]) for i in first)


def test_the_teacher_sees_the_students_pixels_and_nothing_is_cached(config, tiny_data, tiny_cache, tmp_path):
    prepare(config, tiny_data, tmp_path)
    assets = TrainingAssets(config, tmp_path, CPU, tiny_data)
    stored = {path.name for path in (tmp_path / "teacher_taps").iterdir() if path.is_dir()}
    assert stored == {
        cache.folder.name
        for cache in (assets.teachers.training_cache("proxy"), assets.teachers.validation_cache("proxy"))
    }
    taps = assets.teachers.training_taps("full", ("fpn",))
    batch = next(assets.data.training_loader("full").epoch(0, 1))
    plain = assets.teachers.first.build(CPU)(batch.images_BCHW, taps=("fpn",))
    for level, map_BCHW in taps(batch).pyramid.items():
        assert not map_BCHW.requires_grad
        assert torch.equal(map_BCHW, plain.pyramid[level])


def test_proxies_keep_cached_views_whatever_full_trainings_do(config):
    assert config.full.num_views == "endless"
    assert (config.proxy.num_views, config.proxy.mosaic_probability, config.proxy.batch_scale_range) == (2, 0, (1, 1))
    assert (config.proxy.color_jitter, config.proxy.scale_range) == (0.5, (0.7, 1.4))


@pytest.mark.parametrize(
    ("setting", "value"), [("mosaic_probability", 0.5), ("mixup_probability", 0.1), ("batch_scale_range", [0.5, 1])]
)
def test_what_ends_with_the_training_needs_endless_views(setting, value):
    with pytest.raises(ValidationError, match=f"{setting} needs 'num_views: endless', and num_views is 2"):
        Recipe.model_validate({setting: value})
    assert Recipe.model_validate({setting: value, "num_views": "endless"})


def test_k_center_needs_cached_views():
    sections = {"data": {"format": "shapes"}, "teacher": {"train": {}}, "student": {}}
    proxy = {"subset_rule": "k_center", "subset": 0.5, "num_views": "endless"}
    with pytest.raises(ValidationError, match="subset_rule 'k_center' reads the teacher's cached features"):
        RunConfig.model_validate(sections | {"proxy": proxy})
