"""AutoKD's loop with the recipe of a student's config trains the weights that mmengine's Runner trains with it."""

from __future__ import annotations

import pytest
import torch

from autokd.config import load_config
from autokd.data import load_datasets
from autokd.detectors import build_detector, resolve
from tests.support.runner_cases import CLASSES

pytestmark = pytest.mark.slow

EPOCHS = 6
OWN = """
train_dataloader.update(batch_size=10, sampler=dict(type="DefaultSampler", shuffle=False))
train_cfg.update(max_epochs=6, val_interval=9)
default_hooks["checkpoint"]["interval"] = 9
auto_scale_lr = dict(enable=True, base_batch_size=20)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.2, momentum=0.8, weight_decay=0.01),
    clip_grad=dict(max_norm=0.5),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=3),
    dict(type="MultiStepLR", by_epoch=True, milestones=[4, 5], gamma=0.5),
]
"""
SPACE = """
data: {{root: {root}, train: instances_train.json, val: instances_val.json, image_size_px: [64, 96]}}
teacher: {{train: {{}}}}
student: {{framework: mmdet, config: {config}}}
full: {{from_student_config: true, amp: false}}
"""


def test_the_loop_trains_the_weights_of_the_runner(folder, runner_of, shapes, tmp_path):
    """One batch of all images a step: shuffling has no say; the images have the network's size, and are not resized."""
    from autokd.training.loader import Loader, training_plan
    from autokd.training.loop import train

    where = folder()
    with (where / "student.py").open("a") as file:
        file.write(OWN)
    config = resolve(load_config(SPACE.format(root=shapes, config=where / "student.py")))
    assert (config.full.epochs, config.full.batch_size, config.full.learning_rate) == (EPOCHS, 10, 0.1), config.notes

    model = runner_of(where, file="student.py").model
    model.init_weights()
    torch.save({"state_dict": model.state_dict()}, where / "start.pth")
    initial = torch.load(where / "start.pth", weights_only=True)["state_dict"]
    runner = runner_of(where, file="student.py", load_from=str(where / "start.pth"))
    runner.train()  # which draws weights anew, and then loads these

    dataset = load_datasets(config.data, tmp_path / "cache").train
    student = build_detector(config.student, len(CLASSES), dataset.image_size_px, dataset.classes)
    student.model.load_state_dict(initial)
    loader = Loader(dataset, training_plan(dataset, config.full), 10, torch.device("cpu"))
    rates = [result.learning_rate for result in train(student, loader, config.full, seed=0)]

    assert rates == pytest.approx([0.01, 0.055, 0.1, 0.1, 0.05, 0.025])
    expected, found = runner.model.state_dict(), student.plain_state_dict()
    assert expected.keys() == found.keys()
    moved = max(float((expected[name] - initial[name]).abs().max()) for name in expected if "weight" in name)
    assert moved > 0.01
    distant = [name for name in expected if not torch.allclose(found[name], expected[name], 1e-3, 1e-3 * moved)]
    assert distant == []
