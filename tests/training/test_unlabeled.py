"""Images without boxes take part in a training by the terms that read no labels, and by these alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from autokd.config import RunConfig, ShapesData, load_config
from autokd.data import write_shapes
from autokd.data.unlabeled import UnlabeledImages
from autokd.errors import ConfigError, DataError
from autokd.spec import DistillerSpec
from autokd.training.assets import TrainingAssets
from autokd.training.distillation import UNLABELED, add_unlabeled, losses_of
from autokd.training.jobs.build_distillation import build_distillation
from autokd.training.loop import train
from autokd.training.optim.update import DISTILL, TASK, TOTAL
from tests.support.training_samples import make_config

CPU = torch.device("cpu")
FILES = {"train": "instances_train.json", "val": "instances_val.json", "test": "instances_test.json"}


def spec_of(*terms: str, ratio: float | None = None) -> DistillerSpec:
    rows = "".join(f"- {{source: {source}, distance: l2, weight: {{absolute: 2}}}}\n" for source in terms)
    spec = DistillerSpec.from_yaml(f"schema: 2\nterms:\n{rows}")
    return spec if ratio is None else spec.with_gradient_ratio(ratio)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A generated set as COCO files, with three images of another shape in ``more``, one of them in a subfolder."""
    root = tmp_path_factory.mktemp("unlabeled") / "set"
    made = write_shapes(
        ShapesData(format="shapes", image_size_px=(64, 64), num_train=8, num_val=6, num_test=5), root.parent
    )
    shutil.copytree(made, root)
    (root / "more" / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "deep/c.png")):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "more" / name)
    (root / "more" / "notes.txt").write_text("no image")
    return root


@pytest.fixture(scope="module")
def assets(folder) -> TrainingAssets:
    data = {"format": "coco", "root": folder, **FILES, "image_size_px": (64, 64), "unlabeled": "more"}
    config = make_config().model_dump(mode="json")
    changed = {**config, "data": {**data, "unlabeled_ratio": 0.5}}
    base = make_config()
    section = RunConfig.model_validate({**changed, "data": changed["data"]}).data
    return TrainingAssets(base.model_copy(update={"data": section}), folder.parent / "cache", CPU)


def distilled(assets: TrainingAssets, spec: DistillerSpec):
    student, loader = assets.students.new(0), assets.data.training_loader("full")
    return student, loader, build_distillation(spec, student, loader, assets, "full", seed=0)


def test_images_are_those_of_all_folders_scaled_and_padded_as_labeled_ones(folder):
    images = UnlabeledImages(folder / "more", (64, 64), 8)
    assert [path.name for path in images.files] == ["a.png", "b.png", "c.png"]
    batch = images.batch(3, seed=1, flip_probability=0.0)
    assert batch.shape == (3, 3, 64, 64)
    means = sorted(float(image[:, :42].mean()) for image in batch)
    files = sorted(float(np.asarray(Image.open(path)).mean()) / 255 for path in images.files)
    assert means == pytest.approx(files, abs=0.01)  # 32 x 48 becomes 43 x 64, above the padding
    assert len({float(each.sum()) for each in batch}) == 3  # none twice
    flipped = images.batch(3, seed=1, flip_probability=1.0)
    assert torch.equal(flipped, batch.flip(-1))


def test_loss_of_unlabeled_images_is_that_of_the_terms_without_labels(assets):
    student, loader, distillation = distilled(assets, spec_of("feature_map", "foreground"))
    distiller, unlabeled = distillation.distiller, distillation.unlabeled
    assert unlabeled is not None
    assert (unlabeled.num_images, unlabeled.share) == (2, 0.5)  # of a batch of 4
    (name,) = distiller.unlabeled_terms
    assert name.startswith("feature_map")
    student.train()
    parts = losses_of(student, next(iter(loader.epoch(0, 1))), distillation)
    before, step = {key: float(value.detach()) for key, value in parts.items()}, distiller.step
    batch = unlabeled.batch(0, 0)
    add_unlabeled(parts, student, distillation, batch)
    with torch.no_grad():
        ours, theirs = student(batch.images_BCHW), unlabeled.teacher(batch)
        levels = [
            float(((adapter(ours.pyramid[pair.student]) - theirs.pyramid[pair.teacher]) ** 2).double().mean())
            for pair, adapter in zip(distiller.pairs, distiller.adapters, strict=True)
        ]
    assert float(parts[UNLABELED].detach()) == pytest.approx(0.5 * 2.0 * sum(levels), rel=1e-4)
    assert float(parts[DISTILL].detach()) == pytest.approx(before[DISTILL] + float(parts[UNLABELED].detach()), rel=1e-5)
    assert float(parts[TOTAL].detach()) == pytest.approx(before[TOTAL] + float(parts[UNLABELED].detach()), rel=1e-5)
    assert float(parts[TASK]) == before[TASK]
    assert distiller.step == step


def test_trainings_see_other_images_at_each_step_and_the_same_ones_again(assets):
    def epochs():
        student, loader, distillation = distilled(assets, spec_of("feature_map", ratio=5.0))
        return list(train(student, loader, assets.config.full, seed=0, distillation=distillation)), distillation

    (first, distillation), (second, _) = epochs(), epochs()
    assert [each.losses for each in first] == [each.losses for each in second]
    assert all(each.losses[UNLABELED] > 0 for each in first)
    batches = [distillation.unlabeled.batch(0, step).images_BCHW for step in range(4)]
    assert any(not torch.equal(batches[0], other) for other in batches[1:])


def test_distillers_that_read_labels_alone_take_no_unlabeled_images(assets):
    assert distilled(assets, spec_of("foreground"))[2].unlabeled is None


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"data\.unlabeled: found no image in"):
        UnlabeledImages(tmp_path, (8, 8), 8).batch(1, 0, 0.0)


@pytest.mark.parametrize(
    ("key", "recipe", "message"),
    [
        ("none", {}, "there is no such folder"),
        ("more", {"full": {"micro_batch_size": 2}}, "are not cut into micro-batches"),
        ("more", {"runtime": {"full_processes": 2}}, "are not shared between processes"),
    ],
)
def test_what_unlabeled_images_cannot_join_is_refused(folder, tmp_path, key, recipe, message):
    names = ", ".join(f"{split}: {file}" for split, file in FILES.items())
    lines = [f"data: {{root: {folder}, {names}, image_size_px: [64, 64], unlabeled: {key}}}"]
    lines += ["teacher: {train: {}}", "student: {}", "space: {terms: {min: 1, max: 1}}"]
    lines += [f"{section}: {{{name}: {value}}}" for section, part in recipe.items() for name, value in part.items()]
    (tmp_path / "kd.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "kd.yaml")
